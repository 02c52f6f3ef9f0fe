#!/usr/bin/env bash
# The canonical set: what a fresh three-node cluster on this machine does, read against what the machine can do.
#
#   scripts/bench.sh [--quick] [--rounds 5] [--seconds 10] [--only NAME]... [--results FOLDER]
#
# NAME is a line or its number: 1 one, 2 connections, 3 saturation (also gives 7, the log thread), 4 batches, 5 large,
# 6 reads, 6 catchup, 8 openloop, 9 idle. --quick: one round of 3 s each (8: 6 s), to see that all works; no figures.
#
# In each round every line runs floor (the stripped pipeline: disk and links), echo (the bare client hop) and the cluster
# in turn, since a machine's speed drifts; shares are of the same round. Medians over the rounds end in a table.
# Raw results, machine and settings go to benches/results/DATE-COMMIT/ (with --quick to target/bench/results).
#
# The nodes run on 127.0.0.51 to .53 (BENCH_FIRST: another first), with their data in target/bench. A round begins with a
# fresh cluster, and so do the lines openloop and idle, and a line when more than BENCH_DATA_MIB (6144, with --quick 2560)
# lie there. Wants four times that of disk, and a machine that does nothing else. RINGSTORE_BIN: another server.
# BENCH_BIN_DIR: a folder with ringstore-bench, floor, echo and fault.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ALL=(one connections saturation batches large reads catchup openloop idle)
FIRST=${BENCH_FIRST:-51}
DATA=$TARGET/bench
# One line for each event: protocol buffers' framing, name of its type, identifier.
EVENT_WIRE_BYTES=291
# The default; a minute at the rates seen here fills ten and more, --quick one or none.
CHUNK_BYTES=$((256 << 20))
IDLE=5000
# Longer than any run takes that is not stuck: the longest measured span is a minute.
RUN_SECONDS_MAX=300

rounds='' seconds='' length='' quick='' results='' only=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) quick=yes; shift ;;
    --rounds) rounds=${2:?a number}; shift 2 ;;
    --seconds) seconds=${2:?a number}; shift 2 ;;
    --only) only+=("${2:?a line}"); shift 2 ;;
    --results) results=$(from_caller "${2:?a folder}"); shift 2 ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$(from_caller "$0")"; exit ;;
    *) die "unknown option $1; see --help" ;;
  esac
done
if [[ -n $quick ]]; then
  rounds=${rounds:-1} seconds=${seconds:-3} warm_up=1 open_seconds=6 catchup_mib=256
  DATA_MIB_MAX=${BENCH_DATA_MIB:-2560}
else
  rounds=${rounds:-5} seconds=${seconds:-10} warm_up=2 open_seconds=60 catchup_mib=1024
  DATA_MIB_MAX=${BENCH_DATA_MIB:-6144}
fi

# lines_of NAME: the lines that this names.
lines_of() {
  case $1 in
    1) say one ;;
    2) say connections ;;
    3 | 7 | logthread) say saturation ;;
    4) say batches ;;
    5) say large ;;
    6) say reads catchup ;;
    8) say openloop ;;
    9) say idle ;;
    *) [[ " ${ALL[*]} " == *" $1 "* ]] || die "no line is named $1; there are ${ALL[*]}, or 1 to 9"; say "$1" ;;
  esac
}
LINES_TO_RUN=()
for name in ${only[@]+"${only[@]}"}; do
  found=$(lines_of "$name")
  read -ra found <<<"$found"
  LINES_TO_RUN+=("${found[@]}")
done
[[ ${#LINES_TO_RUN[@]} -gt 0 ]] || LINES_TO_RUN=("${ALL[@]}")

# --- Programs --------------------------------------------------------------------------------------------------------

# executable NAME CARGO_ARGUMENT...: builds, and prints the path of the program NAME. Cargo names others beside it, in no
# order that can be relied on.
executable() {
  local name=$1
  shift
  cargo "$@" "$name" --quiet --message-format=json | python3 -c '
import json, sys
messages = [json.loads(line) for line in sys.stdin if line.startswith("{")]
found = [one["executable"] for one in messages if one.get("executable") and one["target"]["name"] == sys.argv[1]]
print(found[-1])' "$name"
}

programs() {
  build_release
  if [[ -n ${BENCH_BIN_DIR:-} ]]; then
    BENCH_BIN_DIR=$(from_caller "$BENCH_BIN_DIR")
    LOAD=$BENCH_BIN_DIR/ringstore-bench FLOOR=$BENCH_BIN_DIR/floor ECHO=$BENCH_BIN_DIR/echo
    # Another program measures a catch-up only where it is there.
    FAULT=$BENCH_BIN_DIR/fault
  else
    LOAD=$(executable ringstore-bench build --release --bin)
    FLOOR=$(executable floor bench --no-run --bench)
    ECHO=$(executable echo bench --no-run --bench)
    FAULT=$(executable fault test --release --no-run --test)
  fi
}

# --- The cluster -----------------------------------------------------------------------------------------------------

FOLDERS=("$DATA"/127.0.0.{"$FIRST","$((FIRST + 1))","$((FIRST + 2))"})
HTTP=$(cluster_http "$FIRST")
# Set while the nodes run.
running=
load_pid=

# fresh: a new cluster without data; sets LEADER and LEADER_PID.
fresh() {
  nodes_stop "${FOLDERS[@]}"
  rm -rf "${FOLDERS[@]}"
  running=yes
  cluster_start "$DATA" "$FIRST"
  LEADER=$(python3 scripts/nodes.py leader "$HTTP") || { last_words "${FOLDERS[@]}"; exit 1; }
  LEADER_PID=$(node_pid "$DATA/$LEADER")
  # Preparing the first chunk files ends a little later than the election.
  sleep 2
}

# cluster: one with not too much data.
cluster() {
  local mib
  mib=$(du -sm "$DATA" | cut -f 1)
  [[ -n $running && $mib -lt $DATA_MIB_MAX ]] || fresh
}

cleanup() {
  [[ -z $load_pid ]] || kill "$load_pid" 2>/dev/null || true
  nodes_stop "${FOLDERS[@]}"
  rm -rf "${FOLDERS[@]}" "$DATA/floor"
}
trap cleanup EXIT

# --- Runs ------------------------------------------------------------------------------------------------------------

# keep WHAT FILE: adds a result to the raw results, under the line and the round that run now.
keep() {
  python3 scripts/bench_summary.py add "$results" --line "$line" --round "$round" --what "$1" "$2"
}

# Runs that failed, as ROUND LINE WHAT.
failed=()

# fail WHAT FILE TEXT: says so with the last lines that the program printed; the rest of the set goes on.
fail() {
  local folder
  say "FAILED: round $round, $line, $1: $3"
  tail -n 15 "$2"
  for folder in "${FOLDERS[@]}"; do
    [[ ! -d $folder || -n $(node_pid "$folder") ]] || last_words "$folder"
  done
  failed+=("round $round, $line, $1: $3")
  # Whatever it was, the next line begins with new nodes.
  running=
} >&2

# run WHAT COMMAND...: a program that writes its result as JSON to $DATA/WHAT.json.
run() {
  local what=$1 status=0
  shift
  rm -f "$DATA/$what.json"
  timeout --foreground --kill-after=10 "$RUN_SECONDS_MAX" "$@" --json "$DATA/$what.json" >"$DATA/$what.out" 2>&1 || status=$?
  if [[ $status == 0 ]]; then
    keep "$what" "$DATA/$what.json"
  else
    fail "$what" "$DATA/$what.out" "status $status of $(basename "$1") ${*:2}"
  fi
}

floor() {
  run floor "$FLOOR" --in-flight "$1" --size "$2" --seconds "$seconds" --warm-up 1 --folder "$DATA/floor"
}

# echo_hop CONNECTIONS IN_FLIGHT BYTES
echo_hop() {
  run echo "$ECHO" --connections "$1" --in-flight "$2" --size "$3" --answer-size 60 --seconds "$seconds" --warm-up 1
}

# load WHAT WORKLOAD OPTION...: for $seconds, or what `length` says.
load() {
  local what=$1 workload=$2
  shift 2
  run "$what" "$LOAD" "$workload" --seed "$HTTP" --warm-up "$warm_up" --seconds "${length:-$seconds}" "$@"
}

sample() { python3 scripts/threads.py sample "$LEADER_PID" "$LEADER:2113" >"$DATA/$1"; }

one() {
  floor 1 256
  echo_hop 1 1 376
  cluster
  load cluster writes --connections 1 --in-flight 1 --size 256
}

connections() {
  floor 32 256
  echo_hop 32 1 376
  cluster
  load cluster writes --connections 32 --in-flight 1 --size 256
}

saturation() {
  floor 1024 256
  echo_hop 32 32 376
  cluster
  sample before.json
  load cluster writes --connections 32 --in-flight 32 --size 256
  sample after.json
  python3 scripts/threads.py difference "$DATA/before.json" "$DATA/after.json" >"$DATA/threads.json"
  keep threads "$DATA/threads.json"
}

batches() {
  floor 8 $((500 * 256))
  echo_hop 1 8 $((500 * EVENT_WIRE_BYTES + 80))
  cluster
  load cluster writes --connections 1 --in-flight 8 --events 500 --size 256
}

large() {
  floor 128 16384
  echo_hop 16 8 $((16384 + 120))
  cluster
  load cluster writes --connections 16 --in-flight 8 --size 16384
}

reads() {
  cluster
  load stream reads --connections 1 --in-flight 4 --page 500
  load all reads --connections 1 --in-flight 4 --page 500 --direction all
}

catchup() {
  floor 64 65536
  [[ -x $FAULT ]] || { say "  no catch-up: $FAULT is not there"; return; }
  # It starts nodes of its own; two clusters at once would disturb each other.
  nodes_stop "${FOLDERS[@]}"
  running=
  if ! timeout --foreground --kill-after=10 "$RUN_SECONDS_MAX" "$FAULT" --mode catchup --mib "$catchup_mib" --seed "$round" \
    --chunk-size $((256 << 20)) >"$DATA/catchup.out" 2>&1; then
    fail catchup "$DATA/catchup.out" "see what it printed"
    return
  fi
  # result mode=catchup mib=… seconds=… catchup_mib_per_s=… …
  python3 -c '
import json, sys
line = [line for line in sys.stdin if line.startswith("result mode=catchup")][-1]
pairs = dict(word.split("=", 1) for word in line.split()[1:])
print(json.dumps({name: value if name == "mode" else float(value) for name, value in pairs.items()}))
' <"$DATA/catchup.out" >"$DATA/catchup.json"
  keep catchup "$DATA/catchup.json"
}

log_end() {
  python3 scripts/nodes.py status "$LEADER:2113" --full | awk '$1 == "positions.logEnd" { print $2 }'
}

openloop() {
  local rate before
  rate=$(python3 scripts/bench_summary.py half-rate "$results")
  if [[ -z $rate ]]; then
    # Asked for alone: the rate of (3) is measured now.
    local asked=$line
    line=saturation
    saturation
    line=$asked
    rate=$(python3 scripts/bench_summary.py half-rate "$results")
    [[ -n $rate ]] || return 0
  fi
  fresh
  before=$(log_end)
  length=$open_seconds load cluster writes --connections 32 --in-flight 32 --size 256 --rate "$rate" \
    --hgrm "$results/openloop-round-$round.hgrm"
  say "{\"ratePerSecond\": $rate, \"chunkBytes\": $CHUNK_BYTES, \"seconds\": $open_seconds," \
    "\"chunkChanges\": $(($(log_end) / CHUNK_BYTES - before / CHUNK_BYTES))}" >"$DATA/chunks.json"
  keep chunks "$DATA/chunks.json"
}

resident_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$LEADER_PID/status"; }

tcp_connections() {
  { python3 scripts/nodes.py status "$LEADER:2113" --full || true; } | awk '$1 == "clients.tcpConnectionsNow" { print $2 }'
}

idle() {
  local before seen=0 until
  # Memory first and on its own, of nodes that have done nothing yet: nothing is written that could take some, and the
  # allocator has no room left over from a load before.
  fresh
  before=$(resident_kib)
  "$LOAD" connections --seed "$HTTP" --idle "$IDLE" --connections 1 --rate 1 --warm-up 0 --seconds 6 \
    >"$DATA/memory.out" 2>&1 &
  load_pid=$!
  until=$((SECONDS + 60))
  while kill -0 "$load_pid" 2>/dev/null && [[ $seen -lt $IDLE && $SECONDS -lt $until ]]; do
    seen=$(tcp_connections)
    seen=${seen:-0}
  done
  # The last of them are greeted and given their buffers.
  sleep 1
  say "{\"connections\": $IDLE, \"seen\": $seen, \"beforeKib\": $before, \"afterKib\": $(resident_kib)}" \
    >"$DATA/memory.json"
  if wait "$load_pid"; then
    keep memory "$DATA/memory.json"
  else
    fail memory "$DATA/memory.out" "the idle connections"
  fi
  load_pid=
  load quiet writes --connections 32 --in-flight 1 --size 256
  load crowded connections --idle "$IDLE" --connections 32 --in-flight 1 --size 256
}

# --- All of it -------------------------------------------------------------------------------------------------------

need python3 python3
ulimit -n "$(ulimit -Hn)"
mkdir -p "$DATA"
say "building"
programs
if [[ -z $results ]]; then
  base=benches/results
  [[ -z $quick ]] || base=$TARGET/bench/results
  results=$base/$(date +%Y-%m-%d)-$(git rev-parse --short=10 HEAD 2>/dev/null || say unknown)
  next=2 first=$results
  while [[ -e $results ]]; do
    results=$first-$next
    next=$((next + 1))
  done
fi
free=$(df --output=avail -BM "$DATA" | tail -n 1 | tr -dc 0-9)
# A line that begins just below the limit adds its own, and floor's files and the catch-up's nodes lie beside it.
[[ $free -gt $((4 * DATA_MIB_MAX)) ]] || die "$free MiB are free; the runs want $((4 * DATA_MIB_MAX)), 4 times BENCH_DATA_MIB"
mkdir -p "$results"
python3 scripts/bench_summary.py machine "$results" --data "$DATA" --server "$RINGSTORE" \
  --setting "rounds=$rounds" --setting "seconds=$seconds" --setting "warmUpSeconds=$warm_up" \
  --setting "openLoopSeconds=$open_seconds" --setting "lines=${LINES_TO_RUN[*]}"
for ((round = 1; round <= rounds; round++)); do
  running=
  for line in "${LINES_TO_RUN[@]}"; do
    begin=$SECONDS
    "$line"
    say "round $round of $rounds, $line: $((SECONDS - begin)) s"
  done
done
{
  python3 scripts/bench_summary.py summary "$results"
  [[ ${#failed[@]} == 0 ]] || printf '\nFailed: %s\n' "${failed[@]}"
} | tee "$results/summary.md"
say ""
say "raw results and this table: $results"
[[ ${#failed[@]} == 0 ]]
