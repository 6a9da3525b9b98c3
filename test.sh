#!/usr/bin/env bash
# Every check there is, the same here and in CI. usage: ./test.sh
#
# The first run fetches what the end-to-end tests need into .cache; later ones need no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

step() {
  local started=$SECONDS
  printf '\n== %s\n' "$*"
  "$@"
  printf -- '-- %d s\n' $((SECONDS - started))
}

# cargo test without the lines about what is compiled; nextest, where it is there, runs the tests in parallel.
run_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-features --no-fail-fast --status-level fail --final-status-level fail
    cargo test --quiet --workspace --all-features --doc
  else
    cargo test --quiet --workspace --all-features
  fi
}

step cargo fmt --all --check
step cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
step cargo clippy --quiet --workspace --all-targets --no-default-features -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --quiet --workspace --no-deps
step run_tests
step cargo build --quiet --workspace --examples
step benches/rig/smoke.sh
step cargo run --quiet --release -p gateway-budget
step e2e/run.sh

printf '\nall checks passed in %d s\n' "$SECONDS"
