#!/usr/bin/env bash
# Builds the page into dist/: the library as WebAssembly, what is seen, and the plotting library. Says what it takes and
# what it installs. `--fast` leaves out what makes the WebAssembly smaller, `--debian` takes Debian's compiler for the web
# although there may be another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=../tests/drivers.sh
. ../tests/drivers.sh

target=wasm32-unknown-unknown
fast=
debian=
for option in "$@"; do
    case $option in
        --fast) fast=1 ;;
        --debian) debian=1 ;;
        *) drivers_die "build.sh: expected --fast or --debian, given $option" ;;
    esac
done
# Bytes of the compressed WebAssembly that nobody should have to wait for.
most=3000000

say() { printf 'build: %s\n' "$*"; }

# The version of a package in the lock file.
locked() { awk -v name="\"$1\"" '$1 == "name" && $3 == name { found = 1 } found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock; }

has_target() { [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; }

# ---------------------------------------------------------------- the compiler

build=(cargo build --release --locked --target "$target" --lib)
if [ -z "$debian" ] && { has_target || { command -v rustup >/dev/null && rustup target add "$target"; }; }; then
    say "$(rustc --version), with the target $target"
else
    # Debian's compiler for the web has its sources and builds the standard library along.
    drivers_need_apt "a compiler for WebAssembly"
    say "taking Debian's rustc-web, rust-web-src and lld, which build the standard library for $target along"
    drivers_apt_install "a compiler for WebAssembly" rustc-web rust-web-src lld
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld
    build+=(-Z "build-std=std,panic_abort")
fi

# ---------------------------------------------------------------- the tools

for tool in node npm; do
    command -v "$tool" >/dev/null || { drivers_need_apt "$tool"; drivers_apt_install "what fetches the plotting library" nodejs npm; }
done
if [ ! -d node_modules/uplot ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "npm ci: $(node -p 'Object.entries({...require("./package.json").dependencies, ...require("./package.json").devDependencies}).map(e => e.join(" ")).join(", ")')"
    npm ci --no-audit --no-fund --loglevel=error
fi

bindgen=$(locked wasm-bindgen)
# Those of the main folder, whose tests in Node take the same.
tools=$(drivers_target)/tools
if [ "$("$tools/bin/wasm-bindgen" --version 2>/dev/null)" != "wasm-bindgen $bindgen" ]; then
    say "installing wasm-bindgen-cli $bindgen into $tools"
    cargo install wasm-bindgen-cli --version "$bindgen" --root "$tools" --quiet
fi

# ---------------------------------------------------------------- the page

"${build[@]}"
rm -rf dist
mkdir dist
"$tools/bin/wasm-bindgen" --target web --no-typescript --out-dir dist "${CARGO_TARGET_DIR:-target}/$target/release/gradclip_web.wasm"
wasm=dist/gradclip_web_bg.wasm
if [ -z "$fast" ]; then
    # What Rust's compiler takes every browser to have, and vectors.
    node_modules/.bin/wasm-opt -O2 --enable-bulk-memory --enable-multivalue --enable-mutable-globals \
        --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext --enable-simd "$wasm" -o "$wasm.small"
    mv "$wasm.small" "$wasm"
fi
cp page/* node_modules/uplot/dist/uPlot.esm.js node_modules/uplot/dist/uPlot.min.css dist/
cp ../LICENSE-APACHE dist/text.txt

bytes=$(wc -c <"$wasm")
packed=$(gzip -9 -c "$wasm" | wc -c)
say "$wasm has $bytes bytes, $packed compressed (at most $most)"
[ "$packed" -lt "$most" ] || drivers_die "the WebAssembly is too large: $packed bytes compressed, at most $most"
say "dist/ is whole; serve.sh serves it"
