#!/usr/bin/env bash
# Runs every test of gradclip with a GPU required: a missing adapter is a failure, never a skipped test.
# Where there is no GPU driver at all, Mesa's software Vulkan driver is installed with apt first.
# Arguments go on to the test runner: `cargo nextest run` where nextest is installed, else `cargo test`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/drivers.sh
. tests/drivers.sh

command -v cargo >/dev/null || drivers_die "cargo is missing; install Rust first"

echo "Running all tests of gradclip on a GPU adapter (a software one will do)."
echo "Building the command line to see which adapters there are ..."
if ! has_adapter; then
    echo "There is no GPU adapter. Mesa's software Vulkan driver is going to be installed with apt."
    install_lavapipe
    # A caller who asked for some adapter gets that one or a failure.
    if [ -z "${GRADCLIP_TEST_ADAPTER:-}" ]; then
        use_lavapipe
    fi
    has_adapter || drivers_die "there is still no GPU adapter"
fi
echo "Adapter asked for: ${GRADCLIP_TEST_ADAPTER:-any}; limits: ${GRADCLIP_TEST_LIMITS:-all the adapter has}."

export GRADCLIP_REQUIRE_GPU=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Shows a command's output while keeping it for the count below. Standard input is closed off, so that nothing
# waits for an answer; `|| status=$?` lets the count be printed after a failure too.
status=0
logged() {
    echo "+ $*"
    "$@" </dev/null 2>&1 | tee -a "$log" || status=$?
}

# A failing test must not keep the rest from running: with three drivers, which tests fail is the clue.
if cargo nextest --version >/dev/null 2>&1; then
    logged cargo nextest run --features cli --no-fail-fast "$@"
    # nextest cannot run documentation tests, and cargo does not know nextest's arguments.
    if [ $# -eq 0 ]; then
        logged cargo test --features cli --doc
    else
        echo "Documentation tests are left out, because the arguments are nextest's: $*"
    fi
else
    logged cargo test --features cli --no-fail-fast "$@"
fi

# One total over all test programs, from the closing lines of either runner:
#   test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
#   Summary [   0.012s] 4 tests run: 3 passed, 1 failed, 2 skipped
read -r passed failed skipped < <(
    # Colours are on when the caller asks for them, even in a pipe.
    sed $'s/\x1b\\[[0-9;]*m//g' "$log" | awk '
        function count(what) {
            return match($0, "[0-9]+ " what) ? substr($0, RSTART, RLENGTH) + 0 : 0
        }
        /^test result: / || /^ *Summary \[/ {
            passed += count("passed")
            failed += count("failed") + count("exec failed") + count("timed out")
            skipped += count("ignored") + count("skipped")
        }
        END { print passed + 0, failed + 0, skipped + 0 }'
)
if [ "$skipped" -gt 0 ]; then
    echo "$skipped tests did not run: they are marked as ignored, or the arguments left them out."
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    # It did not build, or a test program died; "0 failed" would be misleading.
    echo "The tests did not finish (status $status); $passed passed until then."
    exit "$status"
fi
echo "$passed passed, $failed failed"
exit "$status"
