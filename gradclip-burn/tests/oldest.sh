#!/usr/bin/env bash
# Runs a command with the oldest versions of Burn and cubecl that the manifest allows in place of those of Cargo.lock, and
# puts the lock file back. The target folder is the same, so that what both have in common is compiled once.
#
#     bash gradclip-burn/tests/oldest.sh cargo test --manifest-path gradclip-burn/Cargo.toml --locked
#
# `--update` in place of a command writes Cargo.oldest.lock anew, from Cargo.lock.
set -euo pipefail

package=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
saved=$(mktemp -d)
cp "$package/Cargo.lock" "$package/Cargo.toml" "$saved"
restore() {
    cp "$saved/Cargo.lock" "$saved/Cargo.toml" "$package"
    rm -rf "$saved"
}
trap restore EXIT

# The packages of the lock file in a series of versions whose names begin alike, each pinned to a version.
pins() {
    awk -v prefix="$1" -v series="$2" -v version="$3" '
        { gsub(/"/, "", $3) }
        /^name = / { name = $3 }
        /^version = / && (name == prefix || index(name, prefix "-") == 1) && index($3, series) == 1 {
            printf "%s = { version = \"=%s\", default-features = false }\n", name, version
        }' "$package/Cargo.lock"
}

if [ "${1:-}" = --update ]; then
    # Packages that require each other's newest version only go back together: a section that no target compiles pins them all.
    {
        printf "\n[target.'cfg(any())'.dependencies]\n"
        pins burn 0.22. 0.22.0 | grep -vE '^burn(-pack)? '
        pins cubecl 0.11. 0.11.0
    } >"$saved/pins"
    sed -i -E 's/"~0\.22\.0"/"=0.22.0"/' "$package/Cargo.toml"
    cat "$saved/pins" >>"$package/Cargo.toml"
    cargo update --manifest-path "$package/Cargo.toml" --workspace
    cp "$saved/Cargo.toml" "$package"
    cargo update --manifest-path "$package/Cargo.toml" --workspace
    cp "$package/Cargo.lock" "$package/Cargo.oldest.lock"
else
    cp "$package/Cargo.oldest.lock" "$package/Cargo.lock"
    "$@"
fi
