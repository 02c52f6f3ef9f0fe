#!/usr/bin/env bash
# A follower is away while much is written and comes back: how fast it catches up, and the leader's writes meanwhile.
#
#   scripts/catchup.sh [--mib 1024] [--seed N]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mib=1024
seed=0
while [[ $# -gt 0 ]]; do
  case $1 in
    --mib) mib=${2:?a number}; shift 2 ;;
    --seed) seed=${2:?a number}; shift 2 ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

# Three copies, and as much again for the files that are prepared ahead.
free=$(df --output=avail -BM "$ROOT" | tail -n 1 | tr -dc 0-9)
[[ $free -gt $((mib * 4 + 1024)) ]] || die "$free MiB are free; three copies of $mib MiB want $((mib * 4 + 1024))"
cargo test --release --quiet --test fault -- --mode catchup --mib "$mib" --seed "$seed" --chunk-size $((256 << 20))
