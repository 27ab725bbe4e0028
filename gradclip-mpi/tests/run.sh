#!/usr/bin/env bash
# Tests of gradclip-mpi under mpirun, with 1, 2, 3, 4 and 7 ranks. Installs MPI and libclang where they are missing, saying so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../../tests/drivers.sh
. ../tests/drivers.sh

say() { printf '%s\n' "$*"; }
fail() {
    say "FAILED: $*"
    exit 1
}

if ! command -v mpirun >/dev/null || ! command -v mpicc >/dev/null; then
    drivers_need_apt "MPI"
fi
if command -v apt-get >/dev/null; then
    drivers_apt_install "MPI, and libclang for its bindings" libopenmpi-dev openmpi-bin libclang-dev
fi

# This package has a target folder of its own.
unset CARGO_TARGET_DIR
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# More ranks than cores, and as root in containers. The library's threads are one a rank: ranks share the cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RAYON_NUM_THREADS=1

# The command's tests call mpirun themselves.
install_lavapipe
{
    (
        use_lavapipe
        export GRADCLIP_REQUIRE_GPU=1 LP_NUM_THREADS=1
        cargo test --locked --lib --test command
    ) && cargo test --locked --doc
} </dev/null >"$scratch/unit" 2>&1 ||
    { cat "$scratch/unit"; fail "unit tests"; }
grep '^test result' "$scratch/unit"
passed=$(sed -nE 's/^test result: ok\. ([0-9]+) passed.*/\1/p' "$scratch/unit" | awk '{ sum += $1 } END { print sum + 0 }')

# The path of a test's program.
program() {
    cargo test --locked --no-run --message-format=json --test "$1" </dev/null 2>"$scratch/build" |
        sed -nE 's/.*"executable":"([^"]+)".*/\1/p' | tail -n 1
}
ranks=$(program ranks)
faults=$(program faults)
[ -x "$ranks" ] && [ -x "$faults" ] || { cat "$scratch/build"; fail "the tests do not build"; }

run() {
    local n=$1
    shift
    timeout 180 mpirun --oversubscribe -n "$n" "$@" </dev/null
}

for n in 1 2 3 4 7; do
    run "$n" "$ranks" 2>&1 | tee "$scratch/log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || fail "$n ranks"
    passed=$((passed + $(grep -c '\.\.\. ok$' "$scratch/log")))
done

# The example's losses, by data and sharded, to the bit.
cargo build --locked --example train </dev/null 2>"$scratch/build" || { cat "$scratch/build"; fail "the example does not build"; }
for way in data sharded; do
    for n in 1 2 4; do
        run "$n" target/debug/examples/train "$way" >"$scratch/$way$n" || fail "the example, $way, $n ranks"
        cmp "$scratch/data1" "$scratch/$way$n" || fail "losses of the example, $way, $n ranks"
    done
done
[ "$(grep -c loss "$scratch/data1")" -eq 30 ] || fail "the example printed: $(cat "$scratch/data1")"
say "test the example has the same losses on 1, 2 and 4 ranks, by data and sharded ... ok"
passed=$((passed + 1))

for n in 1 2 3 7; do
    (
        use_lavapipe
        export GRADCLIP_REQUIRE_GPU=1 LP_NUM_THREADS=1
        run "$n" "$ranks" --device
    ) 2>&1 | tee "$scratch/log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || fail "$n ranks on lavapipe"
    passed=$((passed + $(grep -c '\.\.\. ok$' "$scratch/log")))
done

# One of three dies with a reduction under way, or never calls: the other two have an error within twice the timeout.
for how in dies silent; do
    run 3 --enable-recovery "$faults" "$how" >"$scratch/log" 2>&1 || true
    [ "$(grep -c 'ended after' "$scratch/log")" -eq 2 ] || { cat "$scratch/log"; fail "one of three ranks $how"; }
    grep 'ended after' "$scratch/log"
    say "test one of three ranks $how ... ok"
    passed=$((passed + 1))
done
# As mpirun is without that option, it ends all ranks itself.
begun=$SECONDS
if run 3 "$faults" dies >"$scratch/log" 2>&1; then
    fail "mpirun went on without a rank"
fi
[ $((SECONDS - begun)) -lt 30 ] || fail "mpirun took long to end"
say "test mpirun ends all ranks when one dies ... ok"
passed=$((passed + 1))

say "$passed passed, 0 failed"
