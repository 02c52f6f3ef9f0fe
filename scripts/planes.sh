#!/usr/bin/env bash
# Three hosts with an internal and an external network card each, in network namespaces, and what the two planes promise.
#
#   scripts/planes.sh [--mode traffic|cuts|flood|strangers|kill|all] [--tls|--open] [--mib 1024] [--rounds N]
#                     [--seconds N] [--seed N] [--folder DIR] [--strict]
#
#   traffic    clients write --mib MiB through a follower: what each card carried, and a capture of both sides
#   cuts       bridges cut at the leader, both ways and one way: who leads, how long writes pause, what was lost
#   flood      the replication round trip while strangers flood the external side, with and without; clients' writes while
#              a follower that missed --mib MiB catches up, with and without: once with the same right to the processors,
#              which all three hosts share here, once with what the others leave (this one has a target)
#   strangers  nodes with wrong keys, a client on the wrong port, requests without a proof, repeated handshakes
#   kill       the leader killed --rounds times (failover.sh's tests, on loopback) with the internal plane closed or open as
#              is asked for here; then writes a second, open and closed in turn
#
# The internal plane is closed by a cluster secret; with --tls by certificates, with --open not at all. Needs root and
# `ip`; without them it says so and does nothing. Everything that it makes has a name that begins with rsp-; Ctrl-C takes
# it down, and so does the next run after one that was killed. A broken promise fails the script; a ratio above its target
# is printed, and fails it with --strict.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mode=all
mib=1024
rounds=
seconds=
seed=0
lock=
more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --mode) mode=${2:?a mode}; shift 2 ;;
    --mib) mib=${2:?a number}; shift 2 ;;
    --rounds) rounds=${2:?a number}; shift 2 ;;
    --seconds) seconds=${2:?a number}; shift 2 ;;
    --seed) seed=${2:?a number}; shift 2 ;;
    --folder) more+=(--folder "$(from_caller "${2:?a folder}")"); shift 2 ;;
    --tls | --open) lock=$1; shift ;;
    --strict) more+=(--strict); shift ;;
    --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done
[[ -z $lock ]] || more+=("$lock")

# planes MODE SECONDS ROUNDS: one run of the test program; what the caller gave goes before what is given here.
planes() {
  cargo test --release --quiet --test planes -- --mode "$1" --mib "$mib" --seconds "${seconds:-$2}" \
    --rounds "${rounds:-$3}" --seed "$seed" "${more[@]}"
}

# The kill tests need no namespaces.
kills() {
  local locked=--secret
  case $lock in
    --tls) locked=--tls ;;
    --open) locked= ;;
  esac
  # shellcheck disable=SC2086
  scripts/failover.sh --mode sigkill --rounds "${rounds:-20}" --seed "$seed" $locked
  rounds='' planes throughput 5 3
}

case $mode in
  traffic | cuts | strangers) planes "$mode" 4 3 ;;
  flood) planes flood 10 3 ;;
  kill) kills ;;
  all)
    planes traffic,cuts,strangers 4 3
    planes flood 10 3
    kills
    ;;
  *) die "unknown mode $mode; traffic, cuts, flood, strangers, kill or all" ;;
esac
