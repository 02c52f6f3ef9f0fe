#!/usr/bin/env bash
# Shows which system calls the log thread of each node makes while clients write: io_uring_enter, and no send, recv,
# read, write or fsync. The one write that is by design is that of 8 bytes to an eventfd, which wakes a sleeping thread,
# at most once for a batch; it is counted apart. Also how many rings the process has. The nodes run on 127.0.0.41 to .43.
#
#   scripts/syscalls.sh [--seconds 5]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=5
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=${2:?a number}; shift 2 ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

DATA=$TARGET/syscalls
FOLDERS=("$DATA"/127.0.0.{41,42,43})
load_pid=
cleanup() {
  [[ -z $load_pid ]] || kill "$load_pid" 2>/dev/null || true
  nodes_stop "${FOLDERS[@]}"
}
trap cleanup EXIT

need strace strace
need python3 python3
build_release
python_env "$RINGSTORE_CLIENTS/python" tests/compat/requirements.txt
nodes_stop "${FOLDERS[@]}"
rm -rf "$DATA"
cluster_start "$DATA" 41
leader=$(python3 scripts/nodes.py leader "$(cluster_http 41)") || { last_words "${FOLDERS[@]}"; exit 1; }
"$RINGSTORE_CLIENTS/python/bin/python" scripts/load.py "$leader:1113" --seconds $((3 * seconds + 5)) &
load_pid=$!
sleep 2

bad=0
# Calls that would mean data past the ring. Others (futex, a clock without vDSO) are shown and judged by the reader.
forbidden='^(send|recv|read|write|pread|pwrite|readv|writev|fsync|fdatasync|epoll|poll|accept|connect|splice|sync_file)'
for folder in "${FOLDERS[@]}"; do
  pid=$(node_pid "$folder")
  [[ -n $pid ]] || { last_words "$folder"; die "the node of $folder has ended"; }
  thread=$(grep --files-with-matches '^ring-log$' "/proc/$pid"/task/*/comm | head -n 1 | cut -d/ -f5) || true
  [[ -n $thread ]] || die "process $pid has no thread named ring-log"
  calls=$DATA/calls
  rm -f "$calls"
  status=0
  timeout --signal=INT "$seconds" strace --quiet=all --decode-fds=path --attach "$thread" --output "$calls" || status=$?
  # 124: the time was up, which is how it is meant to end. Anything else, and nothing was looked at.
  [[ $status == 124 ]] || die "strace of thread $thread ended with status $status; may this user trace other processes?"
  say "$(basename "$folder"), log thread $thread, $seconds s:"
  names=$(sed -n \
    -e '/^write([0-9]*<[^>]*eventfd/{s/.*/eventfd_write/p;b}' \
    -e 's/^\([a-z0-9_]*\)(.*/\1/p' "$calls" | sort | uniq --count | sort --reverse --numeric-sort)
  say "${names:-      no call at all}"
  if [[ -z $names && $(basename "$folder") == "$leader" ]]; then
    say "  NOT as designed: the leader's log thread made no call under load, so nothing was seen"
    bad=1
  fi
  wrong=$(awk '{ print $2 }' <<<"$names" | grep --extended-regexp "$forbidden" || true)
  [[ -z $wrong ]] || { say "  NOT as designed: $(tr '\n' ' ' <<<"$wrong")"; bad=1; }
  rings=$(find "/proc/$pid/fd" -lname '*io_uring*' | wc -l)
  say "      $rings io_uring file descriptors in the process: the log thread's one, and one for each monoio thread"
done
say ""
say "what the leader said at start:"
grep --ignore-case 'io_uring\|zero-copy\|buffer ring' "$DATA/$leader/output" || say "nothing about io_uring"
exit "$bad"
