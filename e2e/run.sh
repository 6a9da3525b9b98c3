#!/usr/bin/env bash
# End-to-end tests: real llama.cpp servers, the real programs, OpenAI's own clients. usage: e2e/run.sh [pytest options]
#
# Prepares what it needs in $GATEWAY_E2E_CACHE (default: .cache/e2e in the repository), once. With the cache there it
# needs no network. GATEWAY_E2E_BINARIES names a directory with `standalone` and `runner` to test instead of building.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$here")
export GATEWAY_E2E_CACHE=${GATEWAY_E2E_CACHE:-$repository/.cache/e2e}
mkdir -p "$GATEWAY_E2E_CACHE"
cache=$(cd "$GATEWAY_E2E_CACHE" && pwd)
python=$cache/venv/bin/python

say() { printf '\n== %s\n' "$*"; }
stop() { printf 'e2e/run.sh: %s\n' "$*" >&2; exit 1; }

# up_to_date STAMP FILE...: whether the files are those that the stamp was made for; remembers their sum in $sum.
up_to_date() {
  local stamp=$1
  shift
  sum=$(cat "$@" | sha256sum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]
}

# quietly LOG COMMAND...: shows the end of the output only if it fails.
quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; stop "failed: $*"; }
}

command -v python3 >/dev/null || stop "python3 is missing: install Python 3.11 or later"
command -v node >/dev/null || stop "node is missing: install Node.js 20 or later"
command -v npm >/dev/null || stop "npm is missing: install it with Node.js"

if ! up_to_date "$cache/python.stamp" "$here/requirements.txt" || [ ! -x "$python" ]; then
  say "installing the Python packages"
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv" || stop "python3 has no venv: install python3-venv"
  quietly "$cache/pip.log" "$python" -m pip install --disable-pip-version-check -r "$here/requirements.txt"
  echo "$sum" >"$cache/python.stamp"
fi

if ! up_to_date "$cache/node.stamp" "$here/package.json" || [ ! -d "$cache/node_modules/openai" ]; then
  say "installing the Node packages"
  cp "$here/package.json" "$cache/package.json"
  quietly "$cache/npm.log" npm install --prefix "$cache" --no-package-lock --no-audit --no-fund
  echo "$sum" >"$cache/node.stamp"
fi

if ! up_to_date "$cache/model.stamp" "$here/engine/make_model.py" || [ ! -f "$cache/tiny-random.gguf" ]; then
  say "making the model"
  quietly "$cache/model.log" "$python" "$here/engine/make_model.py" "$cache/tiny-random.gguf"
  echo "$sum" >"$cache/model.stamp"
fi

if [ -z "${GATEWAY_E2E_BINARIES:-}" ]; then
  say "building the programs"
  (cd "$repository" && cargo build --quiet -p gateway-examples --example standalone --example runner)
fi

say "end-to-end tests"
cd "$here"
export GATEWAY_E2E_CACHE=$cache PYTHONDONTWRITEBYTECODE=1
# Everything is on this machine: no proxy of the environment has a part in it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
exec "$python" -m pytest -p no:cacheprovider --color="${PYTEST_COLOR:-auto}" --durations=5 -q "$@"
