#!/usr/bin/env bash
# Visits all states of three replicas of the consensus core, within bounds, and checks the invariants in each.
# `cargo test` does so within small ones; see src/consensus/exhaustive.
#
#   scripts/exhaustive.sh                      the bounds at the end of this file, one after the other
#   scripts/exhaustive.sh NAME=NUMBER...       these
#
#   terms=2 candidates=2 entries=0    elections, nodes that stand, records beside those that begin a term
#   crashes=0 breaks=0                crashes; links that break or leaders that give up
#   changes=0 members=3               changes of the member list; founding members (2: the third node is a clone)
#   slow-saves=0 slow-flushes=0       1: saving the vote takes time; flushing does even when nothing can crash any more
#   depth=N states=N                  steps from the beginning; the search ends when it has seen so many states
#   old-terms=0                       1: with the planted fault that commits records of old terms
#
# A state takes about 1 KiB while it waits, and 40 bytes for good. Without a depth the search goes to the end.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in --help | -h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
need cargo "cargo (or rustup.rs)"

search() {
  RINGSTORE_EXHAUSTIVE="$*" \
    cargo test --quiet --profile sim --lib -- --nocapture consensus::exhaustive::tests::every_state_within
}

if [[ $# -gt 0 ]]; then
  search "$@"
  exit
fi
search terms=1 crashes=1 entries=1 slow-saves=1
search terms=2
search terms=2 crashes=1
search terms=2 breaks=1
search terms=2 changes=1
search terms=2 changes=1 members=2
search terms=2 crashes=1 changes=1 members=2
