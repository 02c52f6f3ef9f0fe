#!/usr/bin/env bash
# Compares two commits in one interleaved run: the same load on a cluster of the one and of the other in turn.
#
#   scripts/compare.sh A B [--rounds 5] [--seconds 5] [-- WORKLOAD OPTION...]
#
# A and B are anything that git takes for a commit, or server programs that are built already. The load is this tree's
# ringstore-bench for both: 1 connection with 1 request in flight, 32 with 1, 32 with 32; or the one that is given, for
# example `-- reads --page 500`. In each round A begins when its number is odd, else B, each with a fresh cluster.
# Prints medians, and of the ratios B/A of the same round the median and the spread: a machine whose speed drifts
# between rounds leaves those alone. Each kind of operation (write, read, delivery) has its own lines; CPU is of all nodes
# for an operation, deliveries not counted. A spread that reaches over 1 says that nothing was shown.
#
# Works in target/compare; the nodes run on 127.0.0.54 to .56 (BENCH_FIRST: another first).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=5 seconds=5 sides=() own=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --rounds) rounds=${2:?a number}; shift 2 ;;
    --seconds) seconds=${2:?a number}; shift 2 ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$(from_caller "$0")"; exit ;;
    --) shift; own=("$@"); break ;;
    -*) die "unknown option $1; see --help" ;;
    *) sides+=("$1"); shift ;;
  esac
done
[[ ${#sides[@]} == 2 ]] || die "two commits are wanted, ${#sides[@]} are given; see --help"

DATA=$TARGET/compare
FIRST=${BENCH_FIRST:-54}
HTTP=$(cluster_http "$FIRST")
FOLDERS=("$DATA"/nodes/127.0.0.{"$FIRST","$((FIRST + 1))","$((FIRST + 2))"})
cleanup() {
  nodes_stop "${FOLDERS[@]}"
  rm -rf "$DATA/nodes"
}
trap cleanup EXIT

# side LETTER COMMIT_OR_PROGRAM: builds what has to be built; sets PROGRAM[LETTER].
declare -A PROGRAM
side() {
  local commit program tree=$DATA/tree-$1
  program=$(from_caller "$2")
  if [[ -f $program && -x $program ]]; then
    PROGRAM[$1]=$(realpath "$program")
    say "$1: $2"
    return
  fi
  commit=$(git rev-parse --verify --quiet "$2^{commit}") || die "$2 is neither a commit nor a program"
  say "$1: $(git log -1 --format='%h %s' "$commit")"
  # The worktree stays: the next comparison builds only what is different.
  if [[ -d $tree ]]; then
    git -C "$tree" checkout --quiet --detach "$commit"
  else
    git worktree prune
    git worktree add --quiet --detach "$tree" "$commit"
  fi
  (cd "$tree" && CARGO_TARGET_DIR=$DATA/build-$1 cargo build --release --quiet --bin ringstore)
  # Off the build's place, so that a build of the same folder cannot replace what runs.
  cp "$DATA/build-$1/release/ringstore" "$DATA/ringstore-$1"
  PROGRAM[$1]=$DATA/ringstore-$1
}

# measure LETTER ROUND: every load on a fresh cluster of this side.
measure() {
  local name status
  RINGSTORE=${PROGRAM[$1]}
  rm -rf "$DATA/nodes"
  cluster_start "$DATA/nodes" "$FIRST"
  python3 scripts/nodes.py leader "$HTTP" >/dev/null || { last_words "${FOLDERS[@]}"; exit 1; }
  sleep 2
  for name in "${NAMES[@]}"; do
    local options=()
    read -ra options <<<"${LOADS[$name]}"
    [[ ${#own[@]} == 0 ]] || options=("${own[@]}")
    rm -f "$DATA/result.json"
    status=0
    "$LOAD" "${options[@]}" --seed "$HTTP" --warm-up 1 --seconds "$seconds" --json "$DATA/result.json" \
      >"$DATA/output" 2>&1 || status=$?
    if [[ $status != 0 ]]; then
      tail -n 15 "$DATA/output" >&2
      die "$1: status $status of ${options[*]}"
    fi
    python3 scripts/bench_summary.py add "$DATA/results" --line "$name" --round "$2" --what "$1" "$DATA/result.json"
  done
  nodes_stop "${FOLDERS[@]}"
}

declare -A LOADS=(
  ["1 x 1"]="writes --connections 1 --in-flight 1"
  ["32 x 1"]="writes --connections 32 --in-flight 1"
  ["32 x 32"]="writes --connections 32 --in-flight 32"
  ["given"]=""
)
NAMES=("1 x 1" "32 x 1" "32 x 32")
[[ ${#own[@]} == 0 ]] || NAMES=(given)

need python3 python3
mkdir -p "$DATA"
if [[ -n ${BENCH_BIN_DIR:-} ]]; then
  LOAD=$(from_caller "$BENCH_BIN_DIR")/ringstore-bench
else
  cargo build --release --quiet --bin ringstore-bench
  LOAD=$TARGET/release/ringstore-bench
fi
side A "${sides[0]}"
side B "${sides[1]}"
rm -rf "$DATA/results"
mkdir -p "$DATA/results"
for ((round = 1; round <= rounds; round++)); do
  order=(A B)
  ((round % 2)) || order=(B A)
  for letter in "${order[@]}"; do
    measure "$letter" "$round"
  done
  say "round $round of $rounds"
done
say ""
python3 scripts/bench_summary.py compare "$DATA/results"
