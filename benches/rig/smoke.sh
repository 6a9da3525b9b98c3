#!/usr/bin/env bash
# Whether the rig runs, with debug builds and tiny counts, so that it is not found broken when figures are wanted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

log=$(mktemp)
trap 'rm -f "$log"' EXIT

quietly() {
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; printf 'failed: %s\n' "$*" >&2; exit 1; }
}

quietly ./run.py --smoke
quietly ./endurance.py fleet --smoke
quietly ./endurance.py streams --smoke
quietly ../grpc/compare.py --smoke
