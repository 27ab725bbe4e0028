#!/usr/bin/env bash
# One visit to a machine with a real GPU that may have neither Rust nor a network.
#
#   benches/gpu.sh pack DIR          with cargo: builds, and leaves this script and one archive in DIR
#   DIR/gpu.sh run [RESULTS [PART...]]   there: unpacks, and runs the parts (all of them):
#       devices   card, driver, and what wgpu finds
#       verify    gradclip verify: every shader against the CPU path, and that against f64
#       tests     the tests that use a GPU, with one required
#       bench     the crate beside PyTorch on CUDA, if python3 has it: compare.py gpu
#       steps     clip and step in one: cargo bench --bench steps
#       plain     norm and apply beside the plainest kernels: cargo bench --bench plain
#       slots     an arena and separate buffers, by buffers bound at once: cargo bench --bench slots
#
# The archive holds `cargo build --release --features cli`, the tests named below of `cargo test --no-run`, the
# bench targets `arm`, `steps`, `plain` and `slots` of `cargo bench --no-run`, the Python files, tests/data and the Vulkan loader.
#
# A part that fails or outlasts its limit does not keep the others from running; the exit status tells.
# RESULTS (else $OUT, else ./results) gets log.txt, gpu.csv, steps.csv and table.md, which is printed last.
# GRADCLIP_TEST_ADAPTER picks an adapter, VK_DRIVER_FILES a driver, GPU_SETS, GPU_ROUNDS and GPU_SECONDS what is
# measured and how long, PYTHON an interpreter with torch, CUDA_VISIBLE_DEVICES torch's card.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

gpu_tests=(accumulation equality faults golden halves oracle pass peers power prepare rules scaling scopes
    step_scopes steps telemetry thresholds trajectories)
# The loader, and what drivers without a display want of GLVND.
libraries=(libvulkan.so.1 libGLdispatch.so.0 libEGL.so.1 libGLX.so.0 libOpenGL.so.0)
# Small, models, many tensors at equal elements, one tensor from a thousand elements to as many as there is room for.
default_sets=gpt2,1000x768,single-1000,1x7.68M,10x768000,100x76800,10000x768
default_sets+=,single-100k,single-1M,single-10M,single-100M,gpt2-xl,single-1G,single-4G,llama-7b

die() {
    printf 'gpu.sh: %s\n' "$*" >&2
    exit 1
}

# ---------------------------------------------------------------- pack

# executables CARGO-ARGUMENT...: builds, and prints the programs.
executables() {
    cargo "$@" --message-format=json-render-diagnostics </dev/null | sed -nE 's/.*"executable":"([^"]+)".*/\1/p'
}

# Prints where the system's library of that name is.
library() { ldconfig -p | sed -nE "s|^[[:space:]]*$1 \\(libc6,x86-64.*=> (.*)|\\1|p" | head -n 1; }

# carry FOLDER PROGRAM...: without symbols, and without the hash cargo appends.
carry() {
    local folder=$1 program name
    shift
    mkdir -p "$folder"
    for program in "$@"; do
        name=$(basename "$program")
        strip -o "$folder/${name%-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*}" "$program"
    done
}

pack() {
    local into=$1 root name found programs
    root=$(cd "$here/.." && pwd)
    mkdir -p "$into"
    into=$(cd "$into" && pwd)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$root"
    GRADCLIP_COMMIT=$(git rev-parse --short HEAD)
    git diff --quiet HEAD -- src shaders Cargo.toml Cargo.lock || GRADCLIP_COMMIT+=+
    export GRADCLIP_COMMIT
    mapfile -t programs < <(executables build --release --features cli --bin gradclip)
    carry "$work/bin" "${programs[@]}"
    mapfile -t programs < <(executables bench --no-run --bench arm --bench steps --bench plain --bench slots)
    carry "$work/bin" "${programs[@]}"
    mapfile -t programs < <(executables test --no-run --features cli "${gpu_tests[@]/#/--test=}" | grep /deps/)
    carry "$work/tests" "${programs[@]}"
    [ "${#programs[@]}" -eq "${#gpu_tests[@]}" ] || die "${#programs[@]} tests were built, not ${#gpu_tests[@]}"
    mkdir "$work/lib"
    for name in "${libraries[@]}"; do
        found=$(library "$name")
        if [ -n "$found" ]; then cp "$found" "$work/lib/$name"; fi
    done
    [ -f "$work/lib/libvulkan.so.1" ] || die "no Vulkan loader here to take along (Debian: libvulkan1)"
    cp -r benches/compare.py benches/timing benches/peers tests/data "$work"
    printf '%s\n' "$root" >"$work/source"
    printf '%s\n' "$GRADCLIP_COMMIT" >"$work/commit"
    # The programs are much alike: a window that spans several makes the archive a third of the size.
    tar -C "$work" --exclude=__pycache__ -cf - . | xz --lzma2=preset=6,dict=128MiB >"$into/gpu.tar.xz"
    cp "$here/gpu.sh" "$into/gpu.sh"
    found=$(wc -c <"$into/gpu.tar.xz")
    echo "$into: $((found >> 20)) MiB of commit $GRADCLIP_COMMIT"
    [ "$found" -le $((64 << 20)) ] || die "more than 64 MiB"
}

# ---------------------------------------------------------------- run

unpack() {
    [ -f "$here/gpu.tar.xz" ] || die "no $here/gpu.tar.xz; run \`gpu.sh pack\` first"
    if command -v xz >/dev/null; then
        tar -C "$work" -xJf "$here/gpu.tar.xz"
    else
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/gpu.tar.xz" "$work"
    fi
}

# Libraries that the machine lacks.
lend_libraries() {
    local file known
    known=$(ldconfig -p 2>/dev/null) || known=
    for file in "$work"/lib/*; do
        case $known in
            *"$(basename "$file") "*) rm "$file" ;;
            *) echo "taking the $(basename "$file") that was carried" ;;
        esac
    done
    export LD_LIBRARY_PATH=$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# Containers have the driver's libraries, but often not the manifest that the loader looks for.
find_driver() {
    local manifest name='*.json'
    if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then return; fi
    # Beside a card of NVIDIA's, a software driver's manifest alone would hide it.
    if command -v nvidia-smi >/dev/null; then name='nvidia*.json'; fi
    for manifest in /usr/share /etc /usr/local/share; do
        if compgen -G "$manifest/vulkan/icd.d/$name" >/dev/null; then return; fi
    done
    manifest=$(find /usr/local /opt -path "*/vulkan/icd.d/$name" 2>/dev/null | head -n 1) || true
    if [ -z "$manifest" ]; then
        case $(ldconfig -p 2>/dev/null) in
            *libGLX_nvidia.so.0*) manifest=$work/nvidia.json ;;
            *) return ;;
        esac
        printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' \
            libGLX_nvidia.so.0 >"$manifest"
    fi
    echo "driver: $manifest"
    export VK_DRIVER_FILES=$manifest VK_ICD_FILENAMES=$manifest
}

# Tests look for their data where they were built.
lend_data() {
    local source top
    source=$(cat "$work/source")
    [ ! -e "$source" ] || return 0
    top=$source
    while [ ! -e "$(dirname "$top")" ]; do top=$(dirname "$top"); done
    if mkdir -p "$source/tests" 2>/dev/null; then
        lent=$top
        ln -s "$work/data" "$source/tests/data"
    fi
}

tidy() {
    local status=$?
    rm -rf "$work"
    # Nothing was there before; the data are a link.
    if [ -n "$lent" ]; then rm -rf "$lent"; fi
    # The log is whole once nobody writes to it.
    exec >/dev/null 2>&1
    wait "$log" || true
    exit "$status"
}

# limited NAME SECONDS COMMAND...: runs it, keeps the status, and goes on.
limited() {
    local name=$1 seconds=$2 begun=$SECONDS status=0
    shift 2
    printf '\n==> %s\n' "$name"
    timeout --kill-after=10 "$seconds" "$@" </dev/null || status=$?
    case $status in
        0) status="ok" ;;
        124 | 137) status="OUT OF TIME" ;;
        *) status="FAILED ($status)" ;;
    esac
    [ "$status" = ok ] || failed=$((failed + 1))
    summary+=("$(printf '%-22s %-12s %4d s' "$name" "$status" $((SECONDS - begun)))")
}

devices() {
    if command -v nvidia-smi >/dev/null; then
        limited nvidia-smi 60 nvidia-smi \
            --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit --format=csv
    fi
    limited devices 60 "$work/bin/gradclip" devices
}

verify() { limited verify 240 "$work/bin/gradclip" verify --device "${GRADCLIP_TEST_ADAPTER:-gpu}"; }

tests() {
    local test
    for test in "$work"/tests/*; do
        GRADCLIP_REQUIRE_GPU=1 limited "test $(basename "$test")" 180 "$test" --quiet
    done
}

bench() {
    # A while more than it gives itself, for the set at the end.
    local seconds=${GPU_SECONDS:-300} threads
    threads=$(nproc)
    # shellcheck disable=SC2016 # expanded by the inner shell
    limited bench $((seconds + 180)) bash -c '"$0" "$@" >"$TABLE"' "${PYTHON:-python3}" "$work/compare.py" gpu \
        --arm "$work/bin/arm" --sets "${GPU_SETS:-$default_sets}" --rounds "${GPU_ROUNDS:-7}" --seconds "$seconds" \
        --turn 0.1 --pause 0.05 --threads "$threads" --csv "$results/gpu.csv"
}

steps() {
    GRADCLIP_BENCH=${GPU_STEP_SETS:-gpt2,tiny} GRADCLIP_ROUNDS=${GPU_ROUNDS:-7} GRADCLIP_RECORD=$results/steps.csv \
        limited steps 240 "$work/bin/steps"
}

plain() {
    GRADCLIP_BENCH_ELEMENTS=${GPU_PLAIN_ELEMENTS:-100000000} limited plain 120 "$work/bin/plain"
}

slots() { limited slots 180 "$work/bin/slots"; }

run() {
    results=${1:-${OUT:-results}}
    shift || true
    local part parts=("$@")
    [ "${#parts[@]}" -gt 0 ] || parts=(devices verify tests bench steps plain slots)
    mkdir -p "$results"
    results=$(cd "$results" && pwd)
    work=$(mktemp -d)
    export TABLE=$results/table.md
    # A process substitution, for a pipe would keep what is counted in a subshell.
    exec > >(exec tee -a "$results/log.txt") 2>&1
    log=$!
    trap tidy EXIT
    unpack
    echo "gradclip of commit $(cat "$work/commit"); $(date -u +%FT%TZ); $(uname -srm); $(nproc) processors"
    lend_libraries
    find_driver
    lend_data
    for part in "${parts[@]}"; do
        case $part in
            devices | verify | tests | bench | steps | plain | slots) "$part" ;;
            *) die "no part \`$part\`" ;;
        esac
    done
    printf '\n==> summary\n'
    printf '%s\n' "${summary[@]}"
    if [ -s "$TABLE" ]; then printf '\n%s\n' "$(cat "$TABLE")"; fi
    [ "$failed" -eq 0 ]
}

failed=0
lent=
summary=()
case ${1:-} in
    pack) pack "${2:?the folder to pack into}" ;;
    run) run "${@:2}" ;;
    *) die "usage: gpu.sh pack DIR | run [RESULTS [PART...]]" ;;
esac
