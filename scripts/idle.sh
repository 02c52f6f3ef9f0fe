#!/usr/bin/env bash
# What a cluster costs that nobody uses: CPU and resident memory of each node over a span.
#
#   scripts/idle.sh [--seconds 30]
#
# Targets: under 2 % of a core and under 150 MiB a node. The nodes run on 127.0.0.31 to .33.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=30
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=${2:?a number}; shift 2 ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

DATA=$TARGET/idle
FOLDERS=("$DATA"/127.0.0.{31,32,33})
trap 'nodes_stop "${FOLDERS[@]}"' EXIT

# cpu_ticks PID: user and system time so far, in clock ticks.
cpu_ticks() {
  local line
  line=$(cat "/proc/$1/stat")
  awk '{ print $12 + $13 }' <<<"${line##*) }"
}

need python3 python3
build_release
nodes_stop "${FOLDERS[@]}"
rm -rf "$DATA"
cluster_start "$DATA" 31
python3 scripts/nodes.py leader "$(cluster_http 31)" >/dev/null || { last_words "${FOLDERS[@]}"; exit 1; }
# Start-up is over when the chunk files are prepared; give it a moment.
sleep 5

declare -A before
for folder in "${FOLDERS[@]}"; do before[$folder]=$(cpu_ticks "$(node_pid "$folder")"); done
sleep "$seconds"
ticks=$(getconf CLK_TCK)
status=0
for folder in "${FOLDERS[@]}"; do
  pid=$(node_pid "$folder")
  [[ -n $pid ]] || { last_words "$folder"; die "the node of $folder has ended"; }
  used=$(($(cpu_ticks "$pid") - ${before[$folder]}))
  resident=$(awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$pid/status")
  # In hundredths of a percent of a core.
  cpu=$((10000 * used / ticks / seconds))
  verdict="within target"
  [[ $cpu -lt 200 && $resident -lt 150 ]] || { verdict="ABOVE TARGET"; status=1; }
  say "$(basename "$folder"): $((cpu / 100)).$(printf %02d $((cpu % 100))) % of a core, $resident MiB resident: $verdict"
done
exit "$status"
