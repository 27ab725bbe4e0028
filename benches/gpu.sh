#!/usr/bin/env bash
# One visit to a machine with a real GPU that may have neither Rust nor a network: seven minutes at most.
#
#   benches/gpu.sh pack DIR          with cargo: builds, and leaves this script and one archive in DIR
#   DIR/gpu.sh run [RESULTS [PART...]]   there: unpacks, and runs the parts (all of them), in this order:
#       devices    10 s  card, driver, and what wgpu finds
#       verify     60 s  gradclip verify: every shader against the CPU path, and that against f64
#       kernels    90 s  every form of norm and apply beside a copy, a read and plain kernels
#       bench     120 s  the crate beside PyTorch on CUDA, if Python has it: compare.py gpu
#       equality   60 s  the tests that GPU and CPU have the same bits, with a GPU required
#       tests      60 s  the other tests that use a GPU
#       steps      45 s  clip and step in one: cargo bench --bench steps
#       slots      45 s  an arena and separate buffers, by buffers bound at once: cargo bench --bench slots
#       plain      30 s  norm and apply by size of workgroups: cargo bench --bench plain
#
# A part has its own clock, the visit one over all (GPU_TOTAL, 420 s from the start): what it has no time for is left out.
# A part that fails or outlasts its clock keeps no other from running; the summary and the exit status tell.
#
# The archive holds the command line, the tests named below, the bench targets `arm`, `kernels`, `steps`, `plain` and
# `slots`, the Python files, tests/data and the Vulkan loader.
#
# RESULTS (else $OUT, else ./results) gets log.txt, PART.txt of each part as it runs, kernels.csv, gpu.csv, steps.csv,
# and summary.csv, a line for each step as it ends. The summary and bench's table are printed last.
# GRADCLIP_TEST_ADAPTER picks an adapter, VK_DRIVER_FILES a driver; GPU_SETS, GPU_ROUNDS, GPU_KERNELS (options of
# `kernels`) and GPU_SECONDS (`verify=120,bench=300`) what is measured and how long, PYTHON an interpreter with torch,
# CUDA_VISIBLE_DEVICES torch's card.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Tests that the GPU has the CPU path's bits, in order of worth, and the other ones with a GPU.
equality_tests=(forms forms_units finish equality halves golden accumulation)
other_tests=(oracle pass dispatches pipelines groups counts rules scopes power prepare scaling steps step_scopes faults peers telemetry thresholds
    trajectories)
benches=(arm kernels steps plain slots)
parts_all=(devices verify kernels bench equality tests steps slots plain)
# Seconds of each part.
declare -A clocks=([devices]=10 [verify]=60 [kernels]=90 [bench]=120 [equality]=60 [tests]=60 [steps]=45 [slots]=45
    [plain]=30)
# Seconds that a program which ignores its end gets before it is killed.
grace=3
# The loader, and what drivers without a display want of GLVND.
libraries=(libvulkan.so.1 libGLdispatch.so.0 libEGL.so.1 libGLX.so.0 libOpenGL.so.0)
default_sets=gpt2,gpt2:bf16,tiny,single-100M,single-1G

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
    local features=(--workspace --features serde) all_tests=("${equality_tests[@]}" "${other_tests[@]}")
    root=$(cd "$here/.." && pwd)
    mkdir -p "$into"
    into=$(cd "$into" && pwd)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$root"
    GRADCLIP_COMMIT=$(git rev-parse --short HEAD)
    git diff --quiet HEAD -- src shaders gradclip-cli gradclip-verify Cargo.toml Cargo.lock || GRADCLIP_COMMIT+=+
    export GRADCLIP_COMMIT
    # With the tests' features and the benches, so that all of it shares one build of what it depends on.
    mapfile -t programs < <(executables build --release "${features[@]}" --bin gradclip "${benches[@]/#/--bench=}")
    [ "${#programs[@]}" -eq $((${#benches[@]} + 1)) ] || die "${#programs[@]} programs were built"
    carry "$work/bin" "${programs[@]}"
    mapfile -t programs < <(executables test --no-run "${features[@]}" "${all_tests[@]/#/--test=}" | grep /deps/)
    [ "${#programs[@]}" -eq "${#all_tests[@]}" ] || die "${#programs[@]} tests were built, not ${#all_tests[@]}"
    carry "$work/tests" "${programs[@]}"
    mkdir "$work/lib"
    for name in "${libraries[@]}"; do
        found=$(library "$name")
        if [ -n "$found" ]; then cp "$found" "$work/lib/$name"; fi
    done
    [ -f "$work/lib/libvulkan.so.1" ] || die "no Vulkan loader here to take along (Debian: libvulkan1)"
    cp -r benches/compare.py benches/timing benches/peers tests/data "$work"
    printf '%s\n' "$root" >"$work/source"
    printf '%s\n' "$GRADCLIP_COMMIT" >"$work/commit"
    # The programs are much alike: a window that spans several is worth more than effort, which takes minutes here.
    tar -C "$work" --exclude=__pycache__ -cf - . | xz --lzma2=preset=1,dict=128MiB >"$into/gpu.tar.xz"
    cp "$here/gpu.sh" "$into/gpu.sh"
    found=$(wc -c <"$into/gpu.tar.xz")
    echo "$into: $((found >> 20)) MiB of commit $GRADCLIP_COMMIT"
    [ "$found" -le $((48 << 20)) ] || die "more than 48 MiB"
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
    manifest=$(timeout 5 find /usr/local /opt -path "*/vulkan/icd.d/$name" 2>/dev/null | head -n 1) || true
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

# Seconds that are left of the visit, one kept for the summary.
left() { echo $((total - SECONDS - grace - 1)); }

# begin PART: sets its clock, or says that there is no time for it.
begin() {
    local seconds=${clocks[$1]} rest
    part=$1
    rest=$(left)
    if [ "$rest" -lt 5 ]; then
        ended "$part" "LEFT OUT" 0
        return 1
    fi
    part_end=$((SECONDS + (seconds < rest ? seconds : rest)))
}

# ended NAME STATUS SECONDS: into the summary and its file at once. What there was no time for did not fail.
ended() {
    case $2 in
        ok | "LEFT OUT") ;;
        *) failed=$((failed + 1)) ;;
    esac
    summary+=("$(printf '%-9s %-22s %-12s %4d s' "$part" "$1" "$2" "$3")")
    printf '%s,%s,%s,%s\n' "$part" "$1" "$2" "$3" >>"$results/summary.csv"
}

# limited NAME COMMAND...: runs it for as long as its part has, keeps output and status, and goes on.
limited() {
    local name=$1 begun=$SECONDS status=0 seconds=$((part_end - SECONDS))
    shift
    if [ "$seconds" -lt 1 ]; then
        ended "$name" "LEFT OUT" 0
        return
    fi
    printf '\n==> [%ds] %s, at most %d s\n' "$SECONDS" "$name" "$seconds"
    # The program's status, not that of `tee`.
    timeout --kill-after=$grace "$seconds" "$@" </dev/null 2>&1 | tee -a "$results/$part.txt" || status=${PIPESTATUS[0]}
    case $status in
        0) status="ok" ;;
        124 | 137) status="OUT OF TIME" ;;
        *) status="FAILED ($status)" ;;
    esac
    ended "$name" "$status" $((SECONDS - begun))
}

devices() {
    if command -v nvidia-smi >/dev/null; then
        limited nvidia-smi nvidia-smi \
            --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit --format=csv
    fi
    limited devices "$work/bin/gradclip" devices
}

verify() { limited verify "$work/bin/gradclip" verify --device "${GRADCLIP_TEST_ADAPTER:-gpu}"; }

kernels() {
    # It ends by itself, before it would have to be ended.
    local seconds=$(((part_end - SECONDS) * 9 / 10))
    # shellcheck disable=SC2086 # options, word by word
    limited kernels "$work/bin/kernels" --seconds "$seconds" --csv "$results/kernels.csv" ${GPU_KERNELS:-}
}

# test_programs NAME...: those of the archive, as long as the part lasts.
test_programs() {
    local test
    for test in "$@"; do
        GRADCLIP_REQUIRE_GPU=1 limited "test $test" "$work/tests/$test" --quiet
    done
}

equality() { test_programs "${equality_tests[@]}"; }

tests() { test_programs "${other_tests[@]}"; }

# Sets `python` to an interpreter with PyTorch, else to any, and says which it is.
find_python() {
    local name
    python=
    for name in ${PYTHON:-python3 python}; do
        command -v "$name" >/dev/null || continue
        # Importing torch takes seconds; its place is enough to know.
        if "$name" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2>/dev/null; then
            python=$name
            echo "PyTorch: in $(command -v "$name")"
            return
        fi
        python=${python:-$name}
    done
    echo "PyTorch: MISSING (${PYTHON:-python3, python}); the crate is measured alone"
}

bench() {
    local threads seconds=$(((part_end - SECONDS) * 8 / 10))
    threads=$(nproc)
    find_python
    if [ -z "$python" ]; then
        ended bench "NO PYTHON" 0
        return
    fi
    # shellcheck disable=SC2016 # expanded by the inner shell
    limited bench bash -c 'exec "$0" "$@" >"$TABLE"' "$python" "$work/compare.py" gpu --arm "$work/bin/arm" \
        --sets "${GPU_SETS:-$default_sets}" --rounds "${GPU_ROUNDS:-7}" --seconds "$seconds" --torch-arms foreach,graph \
        --turn 0.1 --pause 0.05 --threads "$threads" --csv "$results/gpu.csv"
}

steps() {
    GRADCLIP_BENCH=${GPU_STEP_SETS:-gpt2,tiny} GRADCLIP_ROUNDS=${GPU_ROUNDS:-7} GRADCLIP_RECORD=$results/steps.csv \
        limited steps "$work/bin/steps"
}

plain() {
    GRADCLIP_BENCH_ELEMENTS=${GPU_PLAIN_ELEMENTS:-100000000} limited plain "$work/bin/plain"
}

slots() { limited slots "$work/bin/slots"; }

# set_clocks PART=SECONDS,...: instead of those above.
set_clocks() {
    local each name seconds
    for each in ${1//,/ }; do
        name=${each%%=*} seconds=${each#*=}
        [[ -n ${clocks[$name]:-} && $seconds =~ ^[1-9][0-9]*$ ]] || die "GPU_SECONDS: no \`part=seconds\`: $each"
        clocks[$name]=$seconds
    done
}

run() {
    results=${1:-${OUT:-results}}
    shift || true
    local part parts=("$@")
    [ "${#parts[@]}" -gt 0 ] || parts=("${parts_all[@]}")
    for part in "${parts[@]}"; do
        [ -n "${clocks[$part]:-}" ] || die "no part \`$part\`: ${parts_all[*]}"
    done
    set_clocks "${GPU_SECONDS:-}"
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
    printf 'part,step,status,seconds\n' >"$results/summary.csv"
    part=start
    ended unpacked ok "$SECONDS"
    for part in "${parts[@]}"; do
        if begin "$part"; then "$part"; fi
    done
    printf '\n==> summary, %d s of %d\n' "$SECONDS" "$total"
    printf '%s\n' "${summary[@]}"
    if [ -s "$TABLE" ]; then printf '\n%s\n' "$(cat "$TABLE")"; fi
    [ "$failed" -eq 0 ]
}

failed=0
lent=
total=${GPU_TOTAL:-420}
summary=()
case ${1:-} in
    pack) pack "${2:?the folder to pack into}" ;;
    run) run "${@:2}" ;;
    *) die "usage: gpu.sh pack DIR | run [RESULTS [PART...]]" ;;
esac
