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
echo "Building gradclip and its tests; its command line then tells which adapters there are ..."
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
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# logged FILE COMMAND...: shows a command's output and keeps it for the count below. Standard input is closed off,
# so that nothing waits for an answer; `|| status=$?` lets the count be printed after a failure too.
status=0
logged() {
    local file=$scratch/$1
    shift
    echo "+ $*"
    "$@" </dev/null 2>&1 | tee "$file" || status=$?
}

# A failing test must not keep the rest from running: with three drivers, which tests fail is the clue.
if cargo nextest --version >/dev/null 2>&1; then
    logged nextest cargo nextest run "${test_features[@]}" --no-fail-fast "$@"
    # nextest cannot run documentation tests, and cargo does not know nextest's arguments.
    if [ $# -eq 0 ]; then
        logged libtest cargo test "${test_features[@]}" --doc
    else
        echo "Documentation tests are left out, because the arguments are nextest's: $*"
    fi
else
    logged libtest cargo test "${test_features[@]}" --no-fail-fast "$@"
fi

# One total over all test programs, from their closing lines:
#   libtest: test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
#   nextest:      Summary [   0.012s] 4 tests run: 3 passed, 1 failed, 2 skipped
# In nextest's output only its own lines count, since it may repeat those of the programs it runs.
read -r passed failed skipped < <(
    touch "$scratch/nextest" "$scratch/libtest"
    # The text may be coloured, even in a pipe, when the caller asks for that.
    { sed 's/^/nextest /' "$scratch/nextest" && sed 's/^/libtest /' "$scratch/libtest"; } |
        sed $'s/\x1b\\[[0-9;]*m//g' | awk '
        function count(what) {
            return match($0, "[0-9]+ " what) ? substr($0, RSTART, RLENGTH) + 0 : 0
        }
        /^libtest test result: / || /^nextest *Summary \[/ {
            passed += count("passed")
            failed += count("failed") + count("exec failed") + count("timed out")
            skipped += count("ignored") + count("skipped")
        }
        END { print passed + 0, failed + 0, skipped + 0 }'
)
if [ "$skipped" -gt 0 ]; then
    echo "Tests that did not run (marked as ignored, or left out by the arguments): $skipped"
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    # It did not build, no test matched, or a test program died: "0 failed" would be misleading.
    echo "The test run ended early with status $status; $passed passed until then."
    exit "$status"
fi
echo "$passed passed, $failed failed"
exit "$status"
