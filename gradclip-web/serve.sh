#!/usr/bin/env bash
# Builds the page where it was not built yet, and serves it on localhost: serve.sh [PORT].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[ -f dist/index.html ] || bash build.sh
exec node serve.js "${1:-8080}"
