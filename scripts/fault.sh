#!/usr/bin/env bash
# Real nodes in network namespaces, on small disks of their own, under load, and one fault after the other: killed,
# stopped, cut off in every way, with full, slow and failing disks and clocks that jump. Everything that clients did and
# were told is checked for what was lost, doubled, or out of order; the logs of the nodes are compared byte by byte.
#
#   scripts/fault.sh [--minutes 60] [--seed N] [--kinds kill,cut,...] [--nodes 3|5] [--tls] [--strict]
#                                                                      the suite
#   scripts/fault.sh --mode random-kill [--rounds 500] [--seed N]      kill -9 of a random node at a random moment
#   scripts/fault.sh --mode disk-full|disk-fails [--seed N]            full disks; a disk that gives errors
#   scripts/fault.sh --mode judge --data FOLDER                        judges what a run has kept once more
#
# Needs root, except random-kill; without it, or without what it needs of the machine, it says so and does nothing.
# The suite's disks take up to 512 MiB a node and 96 MiB more for each minute (an hour, three nodes: 18.4 GiB).
# The nodes' internal plane is closed by a cluster secret, with --tls by certificates. The same seed draws the same
# faults. What was lost fails the script; a heal after which writes took longer than 1.5 s is said, and fails it with
# --strict; so do fewer than 300 faults an hour then. Ctrl-C takes everything down; so does the next run after one that
# was killed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

minutes=60
seed=0
mode=suite
rounds=500
kinds=all
nodes=3
lock=(--secret)
more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --minutes) minutes=${2:?a number}; shift 2 ;;
    --seed) seed=${2:?a number}; shift 2 ;;
    --mode) mode=${2:?a mode}; shift 2 ;;
    --rounds) rounds=${2:?a number}; shift 2 ;;
    --kinds) kinds=${2:?names, with commas between them}; shift 2 ;;
    --data) more+=(--data "${2:?a folder}"); shift 2 ;;
    --nodes) nodes=${2:?3 or 5}; shift 2 ;;
    --tls) lock=(--tls); shift ;;
    --strict) more+=(--strict); shift ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done
case $mode in
  suite | random-kill | disk-full | disk-fails | judge) ;;
  *) die "unknown mode $mode; suite, random-kill, disk-full, disk-fails or judge (failover.sh has the others)" ;;
esac

exec cargo test --release --quiet --test fault -- --mode "$mode" --minutes "$minutes" --rounds "$rounds" \
  --seed "$seed" --kinds "$kinds" --nodes "$nodes" "${lock[@]}" "${more[@]}"
