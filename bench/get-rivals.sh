#!/usr/bin/env bash
# Puts nginx (Debian's package, unpacked: no root, nothing is installed) and vllm-router (a wheel of PyPI, in an environment of
# its own) where bench/fleet/overhead.ts and bench/fleet/rivals.ts look for them.
set -euo pipefail
folder="${XDG_CACHE_HOME:-$HOME/.cache}/slos-serve/rivals"
mkdir -p "$folder"
cd "$folder"
if ! command -v nginx > /dev/null && [ ! -x nginx/usr/sbin/nginx ]; then
  apt-get download nginx && dpkg -x nginx_*.deb nginx && rm nginx_*.deb
fi
if [ ! -x vllm-router/bin/vllm-router ]; then
  python3 -m venv vllm-router && vllm-router/bin/pip install --quiet "vllm-router==0.1.17"
fi
"$(command -v nginx || echo nginx/usr/sbin/nginx)" -v
vllm-router/bin/vllm-router --version
