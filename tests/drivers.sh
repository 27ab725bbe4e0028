# shellcheck shell=bash
# Software GPU drivers for tests: functions that install one (install_*) and
# functions that make wgpu see only that one (use_*). Source this file, do not run it:
#
#     . tests/drivers.sh && use_lavapipe && cargo test
#
# Each driver is strict about other things, so the tests run on all of them:
#   lavapipe     Mesa's Vulkan on the CPU: subgroups of 8, timestamps, 16-bit floats
#   SwiftShader  Google's Vulkan on the CPU: subgroups of 4, 10 storage buffers, offsets of 256 bytes
#   Mesa GL      OpenGL on the CPU, without a display: no subgroups, shaders translated to GLSL
# A fourth, RADV, compiles for AMD's GPUs without one and runs nothing.

# All paths below are absolute, so that tests may change the current directory.
drivers_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What the tests are built with; one list, so that nothing is built twice.
test_features=(--workspace --features serde)

drivers_say() { printf '%s\n' "drivers: $*" >&2; }

# Ends the calling script: a test run without the driver it asked for would prove nothing.
drivers_die() {
    drivers_say "$*"
    exit 1
}

# Cargo's target folder. Unpacked drivers are kept in it too, because git ignores it already.
drivers_target() {
    local target=${CARGO_TARGET_DIR:-target}
    case $target in
        /*) ;;
        *) target=$drivers_root/$target ;;
    esac
    printf '%s\n' "$target"
}

drivers_cache() { printf '%s\n' "$(drivers_target)/drivers"; }

# Runs a command as root, through sudo if need be.
drivers_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        drivers_die "installing packages needs root, and there is no sudo here. Run as root: $*"
    fi
}

drivers_apt_update() {
    # One broken third-party package source must not stop us: Debian's own may still be fine.
    drivers_as_root apt-get update -qq </dev/null >&2 ||
        drivers_say "apt-get update reported a problem; going on with the package lists there are"
}

# drivers_apt_install WHY PACKAGE...: installs those of the packages that are missing.
drivers_apt_install() {
    local why=$1 package log
    shift
    local missing=()
    for package in "$@"; do
        # dpkg also knows packages that were removed again, hence the test of their status.
        if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
            missing+=("$package")
        fi
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    drivers_say "installing with apt: ${missing[*]} ($why)"
    drivers_apt_update
    # apt prints several lines per package; they matter only if it fails.
    if ! log=$(drivers_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" </dev/null 2>&1); then
        drivers_say "$log"
        drivers_die "apt could not install: ${missing[*]}"
    fi
}

drivers_need_apt() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && return 0
    drivers_die "$1 is missing, and only Debian and Ubuntu (apt) are handled here." \
        "Install a Vulkan, Metal or DirectX 12 driver for your system and run this again."
}

# Builds the command line. Naming the tests as well makes cargo choose the same features of the dependencies as
# for the tests: `cargo build` or `cargo run` alone would compile wgpu once more, with others.
build_command_line() {
    (cd "$drivers_root" && cargo build "${test_features[@]}" --bins --tests </dev/null) ||
        drivers_die "gradclip does not build"
}

# Runs the command line that build_command_line built, with the arguments given.
command_line() {
    local program
    program=$(drivers_target)/debug/gradclip
    if [ -x "$program" ]; then
        "$program" "$@" </dev/null
    else
        # Cargo's settings may put it elsewhere; cargo knows where.
        (cd "$drivers_root" && cargo run --quiet -p gradclip-cli -- "$@" </dev/null)
    fi
}

# True if wgpu finds some adapter.
has_adapter() {
    local listing
    build_command_line
    # The exit status says less than the listing: an empty list may well count as an error.
    listing=$(command_line devices --json) || true
    case $(printf '%s' "$listing" | tr -d '[:space:]') in
        *'"adapters":[]'*) return 1 ;;
        *'"adapters":['*) return 0 ;;
    esac
    drivers_say "\`gradclip devices --json\` listed nothing; taking it that there is no adapter. It printed: $listing"
    return 1
}

# Undoes every use_* below, so that one can follow another in the same shell.
forget_driver() {
    unset VK_DRIVER_FILES VK_ICD_FILENAMES VK_LAYER_PATH VK_LAYER_DEBUG_ACTION VK_LAYER_MESSAGE_ID_FILTER
    unset RADV_FORCE_FAMILY NODEVICE_SELECT EGL_PLATFORM LIBGL_ALWAYS_SOFTWARE __EGL_VENDOR_LIBRARY_FILENAMES
    unset WGPU_BACKEND WGPU_VALIDATION GRADCLIP_TEST_ADAPTER
}

# drivers_use_vulkan MANIFEST ADAPTER: the Vulkan loader sees the one driver and nothing else.
drivers_use_vulkan() {
    forget_driver
    export VK_DRIVER_FILES=$1
    export VK_ICD_FILENAMES=$1 # the same variable's name before Vulkan loader 1.3.207
    # Mesa's layer that reorders devices; it looks for a Wayland display and prints errors without one.
    export NODEVICE_SELECT=1
    export WGPU_BACKEND=vulkan
    export GRADCLIP_TEST_ADAPTER=$2
}

# drivers_manifest NAME: prints the path of a Vulkan driver's manifest, or fails. On some systems its name has the
# architecture in it.
drivers_manifest() {
    local folder file
    for folder in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        for file in "$folder/$1.$(uname -m).json" "$folder/$1.json" "$folder/$1".*.json; do
            if [ -f "$file" ]; then
                printf '%s\n' "$file"
                return 0
            fi
        done
    done
    return 1
}

# ---------------------------------------------------------------- lavapipe

lavapipe_manifest() { drivers_manifest lvp_icd; }

install_lavapipe() {
    # The loader may be there without a driver, so ask apt about both where there is apt.
    if ! command -v apt-get >/dev/null && lavapipe_manifest >/dev/null; then
        return 0
    fi
    drivers_need_apt "Mesa's software Vulkan driver"
    drivers_apt_install "Mesa's software Vulkan driver and the Vulkan loader, to run the GPU tests on the CPU" \
        mesa-vulkan-drivers libvulkan1
}

use_lavapipe() {
    local manifest
    manifest=$(lavapipe_manifest) || drivers_die "lavapipe is not installed (no lvp_icd*.json); run install_lavapipe"
    drivers_use_vulkan "$manifest" llvmpipe
}

# ---------------------------------------------------------------- RADV's compiler

# Mesa's driver for AMD has a null device: it compiles for a GPU that is not there and executes nothing. wgpu opens
# no device on it, so it is no driver to run tests on; `benches/isa.rs` asks it without wgpu.
install_radv() {
    if ! command -v apt-get >/dev/null && drivers_manifest radeon_icd >/dev/null; then
        return 0
    fi
    drivers_need_apt "Mesa's Vulkan driver for AMD"
    drivers_apt_install "Mesa's Vulkan driver for AMD and the Vulkan loader, to compile the kernels for real GPUs" \
        mesa-vulkan-drivers libvulkan1
}

# use_radv [FAMILY]: such as navi21; without one the program chooses, before it loads the driver.
use_radv() {
    local manifest
    manifest=$(drivers_manifest radeon_icd) || drivers_die "RADV is not installed (no radeon_icd*.json); run install_radv"
    drivers_use_vulkan "$manifest" radv
    if [ -n "${1:-}" ]; then
        export RADV_FORCE_FAMILY=$1
    fi
}

# ---------------------------------------------------------------- SwiftShader and the validation layer

# Debian has neither SwiftShader nor a recent validation layer as a package of its own, but Chromium's package
# carries both as plain shared libraries. We take the libraries out of it; no browser is installed.
swiftshader_folder() { printf '%s\n' "$(drivers_cache)/chromium"; }

# drivers_library NAME: prints where that library of Chromium's is, or fails.
drivers_library() {
    local folder
    for folder in "$(swiftshader_folder)" /usr/lib/chromium; do
        if [ -f "$folder/$1" ]; then
            printf '%s\n' "$folder/$1"
            return 0
        fi
    done
    return 1
}

install_swiftshader() {
    local folder scratch
    if ! { drivers_library libvk_swiftshader.so && drivers_library libVkLayer_khronos_validation.so; } >/dev/null; then
        drivers_need_apt "SwiftShader"
        folder=$(swiftshader_folder)
        drivers_say "downloading Debian's chromium-common into $folder (SwiftShader and the Vulkan" \
            "validation layer are taken out of it; the package itself is not installed)"
        mkdir -p "$(dirname "$folder")"
        # Next to the cache folder, so that moving the files there is atomic and never leaves half a driver.
        scratch=$(mktemp -d "$folder.XXXXXX")
        drivers_apt_update
        # As root, apt would try to download as another user, who may not write to the scratch folder.
        (cd "$scratch" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" chromium-common </dev/null >&2) || {
            rm -rf "$scratch"
            drivers_die "apt could not download chromium-common (Debian has it; Ubuntu does not)"
        }
        dpkg -x "$scratch"/chromium-common_*.deb "$scratch/unpacked"
        mkdir -p "$folder"
        mv -f "$scratch/unpacked/usr/lib/chromium/libvk_swiftshader.so" \
            "$scratch/unpacked/usr/lib/chromium/libVkLayer_khronos_validation.so" \
            "$scratch/unpacked/usr/share/doc/chromium-common/copyright" "$folder/"
        rm -rf "$scratch"
    fi
    if command -v apt-get >/dev/null; then
        drivers_apt_install "the Vulkan loader, which opens SwiftShader" libvulkan1
    fi
}

# Chromium's own manifest names the library relative to itself; ours is absolute and can lie anywhere.
use_swiftshader() {
    local library manifest
    library=$(drivers_library libvk_swiftshader.so) || drivers_die "SwiftShader is not there; run install_swiftshader"
    manifest=$(drivers_cache)/manifests/swiftshader_icd.json
    mkdir -p "$(dirname "$manifest")"
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' \
        "$library" >"$manifest"
    drivers_use_vulkan "$manifest" swiftshader
}

# Call after use_lavapipe. An error found by the Vulkan validation layer is printed and kills the test process
# with SIGTRAP, so it cannot go unnoticed. Debian's own validation layer is too old: it rejects valid shaders
# of naga for naming WGSL as their source language. On SwiftShader the layer objects to how wgpu opens a device
# with binding arrays, so lavapipe is the driver to use it on.
use_validation_layer() {
    local library folder
    library=$(drivers_library libVkLayer_khronos_validation.so) ||
        drivers_die "the validation layer is not there; run install_swiftshader"
    folder=$(drivers_cache)/manifests/layers
    mkdir -p "$folder"
    # The package has the library but no manifest. wgpu looks for VK_EXT_validation_features in it.
    cat >"$folder/VkLayer_khronos_validation.json" <<MANIFEST
{
    "file_format_version": "1.2.0",
    "layer": {
        "name": "VK_LAYER_KHRONOS_validation",
        "type": "GLOBAL",
        "library_path": "$library",
        "api_version": "1.4.0",
        "implementation_version": "1",
        "description": "Khronos Validation Layer",
        "instance_extensions": [
            { "name": "VK_EXT_debug_report", "spec_version": "9" },
            { "name": "VK_EXT_debug_utils", "spec_version": "1" },
            { "name": "VK_EXT_validation_features", "spec_version": "2" }
        ]
    }
}
MANIFEST
    export VK_LAYER_PATH=$folder
    export WGPU_VALIDATION=1
    # wgpu hands the layer's messages to the `log` crate, where they are lost without a logger.
    export VK_LAYER_DEBUG_ACTION=VK_DBG_LAYER_ACTION_LOG_MSG,VK_DBG_LAYER_ACTION_BREAK
    # naga gives workgroup arrays a stride the layer objects to. wgpu knows and drops this message as well.
    export VK_LAYER_MESSAGE_ID_FILTER=VUID-StandaloneSpirv-None-10684
}

# True if the layer is really in use. Without this test a layer that fails to load would pass everything.
validation_layer_loads() {
    local log
    build_command_line
    log=$(VK_LOADER_DEBUG=layer command_line devices --json 2>&1) || true
    case $log in
        *'nsert instance layer "VK_LAYER_KHRONOS_validation"'*) return 0 ;;
    esac
    return 1
}

# ---------------------------------------------------------------- Mesa GL

install_gl() {
    drivers_need_apt "Mesa's OpenGL"
    drivers_apt_install "OpenGL on the CPU through EGL, to run the GPU tests on wgpu's GL backend" \
        libegl1 libegl-mesa0 libgl1-mesa-dri
}

use_gl() {
    local vendor=/usr/share/glvnd/egl_vendor.d/50_mesa.json
    forget_driver
    export EGL_PLATFORM=surfaceless # no display is needed, nor looked for
    export LIBGL_ALWAYS_SOFTWARE=1  # llvmpipe even where there is a real GPU
    # Another vendor's EGL would not heed the two settings above.
    if [ -f "$vendor" ]; then
        export __EGL_VENDOR_LIBRARY_FILENAMES=$vendor
    fi
    export WGPU_BACKEND=gl
    export GRADCLIP_TEST_ADAPTER=gl/
}
