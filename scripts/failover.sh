#!/usr/bin/env bash
# Kills and stops nodes of a cluster under load, checks that nothing was lost, and compares the times with our targets.
#
#   scripts/failover.sh [--rounds 20] [--mode sigkill|sigstop|follower|all] [--seed N] [--tls] [--secret] [--strict]
#
# With --tls the nodes know each other by certificates, with --secret by a secret; without, the internal plane is open.
# A lost or doubled event fails the script, and so does a mode that ran without a figure to show for it. A time above its target is said; with --strict it fails the script too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=20
mode=all
seed=0
strict=
more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --rounds) rounds=${2:?a number}; shift 2 ;;
    --mode) mode=${2:?a mode}; shift 2 ;;
    --seed) seed=${2:?a number}; shift 2 ;;
    --tls | --secret) more+=("$1"); shift ;;
    --strict) strict=yes; shift ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

output=$(mktemp)
trap 'rm -f "$output"' EXIT
cargo test --release --quiet --test fault -- --mode "$mode" --rounds "$rounds" --seed "$seed" "${more[@]}" | tee "$output"

above=0
missing=0
# verdict MODE KEY LIMIT WHAT: the figure KEY of that mode's result line against its limit in milliseconds.
verdict() {
  local value
  [[ $mode == all || $mode == "$1" ]] || return 0
  value=$(sed -n "s/^result mode=$1 .*\\b$2=\\([0-9]*\\).*/\\1/p" "$output")
  if [[ -z $value ]]; then
    missing=$((missing + 1))
    say "MISSING: mode $1 ran and has no result line with $2=: $4"
    return
  fi
  if [[ $value -le $3 ]]; then
    say "within target: $4: $value ms, target $3 ms"
  else
    above=$((above + 1))
    say "ABOVE TARGET: $4: $value ms, target $3 ms"
  fi
}
verdict sigkill median_ms 500 "leader killed, median time without a write"
verdict sigstop median_ms 2000 "leader stopped, median time without a write"
verdict follower largest_ms 100 "follower killed, largest pause"
[[ $missing == 0 && (-z $strict || $above == 0) ]]
