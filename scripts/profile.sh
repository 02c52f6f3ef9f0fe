#!/usr/bin/env bash
# Where the leader's CPU time goes under load: seconds of each thread, and the functions that take most of it.
#
#   scripts/profile.sh [--seconds 10] [--top 12] [--keep] [-- WORKLOAD OPTION...]
#
# The load is that of ringstore-bench, without more `writes --connections 32 --in-flight 32`. Samples come from perf
# (Debian: apt-get install linux-perf), of the hardware's cycles where there are some, else of the clock. Without rights
# to the kernel's symbols (kernel.kptr_restrict) the kernel is one line; without rights to its samples
# (kernel.perf_event_paranoid above 1) it is left out. --keep: leave target/profile/perf.data for perf report.
#
# A fresh cluster on 127.0.0.57 to .59 (BENCH_FIRST: another first), data in target/profile. RINGSTORE_BIN: another server.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=10 top=12 keep='' load=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=${2:?a number}; shift 2 ;;
    --top) top=${2:?a number}; shift 2 ;;
    --keep) keep=yes; shift ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$(from_caller "$0")"; exit ;;
    --) shift; load=("$@"); break ;;
    *) die "unknown option $1; see --help" ;;
  esac
done
[[ ${#load[@]} -gt 0 ]] || load=(writes --connections 32 --in-flight 32)

DATA=$TARGET/profile
FIRST=${BENCH_FIRST:-57}
HTTP=$(cluster_http "$FIRST")
FOLDERS=("$DATA"/127.0.0.{"$FIRST","$((FIRST + 1))","$((FIRST + 2))"})
load_pid=
cleanup() {
  [[ -z $load_pid ]] || kill "$load_pid" 2>/dev/null || true
  nodes_stop "${FOLDERS[@]}"
  rm -rf "${FOLDERS[@]}"
  [[ -n $keep ]] || rm -f "$DATA/perf.data"
}
trap cleanup EXIT

need perf linux-perf
need python3 python3
# The kernel's part is seen by whom the kernel lets see it.
suffix=
if [[ $(id -u) != 0 && $(cat /proc/sys/kernel/perf_event_paranoid) -gt 1 ]]; then
  suffix=:u
  say "the kernel's samples are left out: kernel.perf_event_paranoid is above 1"
fi
event=cycles$suffix
perf stat --event "$event" true 2>&1 | grep --quiet 'not supported' && event=cpu-clock$suffix
build_release
if [[ -n ${BENCH_BIN_DIR:-} ]]; then
  LOAD=$(from_caller "$BENCH_BIN_DIR")/ringstore-bench
else
  cargo build --release --quiet --bin ringstore-bench
  LOAD=$TARGET/release/ringstore-bench
fi

rm -rf "${FOLDERS[@]}"
mkdir -p "$DATA"
cluster_start "$DATA" "$FIRST"
leader=$(python3 scripts/nodes.py leader "$HTTP") || { last_words "${FOLDERS[@]}"; exit 1; }
pid=$(node_pid "$DATA/$leader")
sleep 2
# Longer than what is looked at, on both ends.
"$LOAD" "${load[@]}" --seed "$HTTP" --warm-up 2 --seconds $((seconds + 3)) >"$DATA/output" 2>&1 &
load_pid=$!
sleep 3
kill -0 "$load_pid" 2>/dev/null || { tail -n 15 "$DATA/output" >&2; load_pid=; die "the load has ended already"; }
python3 scripts/threads.py sample "$pid" "$leader:2113" >"$DATA/before.json"
perf record --quiet --event "$event" --freq 997 --pid "$pid" --output "$DATA/perf.data" -- sleep "$seconds" >/dev/null
python3 scripts/threads.py sample "$pid" "$leader:2113" >"$DATA/after.json"
wait "$load_pid" || { tail -n 15 "$DATA/output" >&2; load_pid=; die "the load failed"; }
load_pid=

say "the load, seen from outside: ${load[*]}"
grep --invert-match 'requests ' "$DATA/output" || true
say ""
say "the leader $leader for $seconds s, sampled by $event (being sampled costs a few percent)"
python3 scripts/threads.py table "$DATA/before.json" "$DATA/after.json"
perf script --input "$DATA/perf.data" --fields comm,tid,ip,sym,dso 2>/dev/null | python3 scripts/threads.py samples --top "$top"
[[ -z $keep ]] || say "
the samples stay: perf report --input $DATA/perf.data"
