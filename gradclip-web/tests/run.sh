#!/usr/bin/env bash
# Builds the page and drives it in Debian's Chromium, with WebGPU on SwiftShader; compares what it makes of files with the
# command line. Installs Chromium where it is missing, saying so. Its last line is `N passed, 0 failed`.
# GRADCLIP=PROGRAM names a command line that is built already, SHOTS=FOLDER takes pictures of the page's states.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=../../tests/drivers.sh
. ../tests/drivers.sh

if ! command -v chromium >/dev/null && [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
    drivers_need_apt "Chromium"
    drivers_apt_install "the browser that the page is tested in" chromium
fi

bash build.sh
# The command line: built already where the workspace's tests have run, or GRADCLIP names one.
if [ -z "${GRADCLIP:-}" ]; then
    build_command_line
    GRADCLIP=$(drivers_target)/debug/gradclip
fi
export GRADCLIP

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One after the other: each has a GPU process that takes every core.
node --test --test-concurrency=1 --test-reporter=spec tests/gradient.test.js tests/train.test.js tests/others.test.js tests/files.test.js 2>&1 | tee "$log" || true
count() { sed -nE "s/^ℹ $1 ([0-9]+)$/\1/p" "$log" | tail -n 1; }
passed=$(count pass)
failed=$(($(count fail) + $(count cancelled)))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
