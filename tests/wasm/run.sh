#!/usr/bin/env bash
# The library in WebAssembly. `bash tests/wasm/run.sh [PART...]`, all parts by default:
#
#   simd128    the library's own tests in Node, with vectors
#   portable   the same without
#   chromium   the library in Chromium's WebGPU on SwiftShader: gradclip-verify/examples/browser.rs
#
# Installs what is missing: Node and Chromium with apt, wasm-bindgen-cli and playwright-core into target/tools.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/drivers.sh
. tests/drivers.sh

target=wasm32-unknown-unknown
tools=$(drivers_target)/tools

need() {
    local command=$1 package=$2
    command -v "$command" >/dev/null || { drivers_need_apt "$package" && drivers_apt_install "$command" "$package"; }
}

# in_node TESTS RUSTFLAG...: both libraries' tests, these names among them.
in_node() {
    local names=$1
    shift
    need node nodejs
    GRADCLIP_WASM_TESTS=$names RUSTFLAGS="$*" \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="node $PWD/tests/wasm/libtest.mjs" \
        cargo test --target "$target" --lib --package gradclip --package gradclip-verify
}

golden=gradclip_verify/golden::tests::the_corpus_comes_to_what_it_has_to

simd128() {
    in_node "gradclip/cpu::lanes::tests::simd128,$golden" -C target-feature=+simd128
}

portable() {
    in_node "$golden"
}

chromium() {
    local version built
    need node nodejs
    need chromium chromium
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
    if [ "$("$tools/bin/wasm-bindgen" --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
        cargo install wasm-bindgen-cli --version "$version" --root "$tools" --quiet
    fi
    if [ ! -d "$tools/node_modules/playwright-core" ]; then
        need npm npm
        npm install --prefix "$tools" --no-save --no-audit --no-fund playwright-core
    fi
    RUSTFLAGS="-C target-feature=+simd128" cargo build --target "$target" --package gradclip-verify --example browser
    built=$(drivers_target)/$target/debug/examples
    "$tools/bin/wasm-bindgen" --target web --no-typescript --out-name browser --out-dir "$built/browser" "$built/browser.wasm"
    PLAYWRIGHT=$tools/node_modules/playwright-core node tests/wasm/chromium.mjs "$built/browser"
}

for part in "${@:-simd128 portable chromium}"; do
    for one in $part; do
        "$one"
    done
done
