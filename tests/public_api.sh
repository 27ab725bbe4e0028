#!/usr/bin/env bash
# The public names of the library with all features, a line each, as tests/public_api.txt keeps them under review:
#
#   bash tests/public_api.sh > tests/public_api.txt    after a change that is meant
#   bash tests/public_api.sh check                     fails where they are others, and shows which
#
# What is hidden from documentation is no interface and not listed; nor are the blocks that a type's own functions stand
# in, and lines are sorted, so that moving code changes nothing here. Installs cargo-public-api where it is missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.52.0
target=${CARGO_TARGET_DIR:-target}
tool=$target/tools/bin/cargo-public-api

listed() {
    [ -x "$tool" ] || cargo install cargo-public-api --version "$version" --locked --root "$target/tools" >&2
    # The listing reads rustdoc's JSON, which a stable compiler gives only so.
    RUSTC_BOOTSTRAP=1 cargo rustdoc --package gradclip --lib --all-features --target-dir "$target/public-api" \
        -- -Z unstable-options --output-format json --cap-lints allow >&2
    "$tool" public-api --rustdoc-json "$target/public-api/doc/gradclip.json" -sss \
        | awk '!/^impl/ || / for /' | LC_ALL=C sort -u
}

case ${1:-} in
check)
    # Not piped, so that a tool that cannot be had is named for what it is.
    names=$(mktemp)
    trap 'rm -f "$names"' EXIT
    listed >"$names"
    diff -u tests/public_api.txt "$names"
    ;;
*) listed ;;
esac
