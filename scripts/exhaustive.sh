#!/usr/bin/env bash
# Visits all states of three replicas of the consensus core, within bounds, and checks the invariants in each.
# `cargo test` does so within small ones; see src/consensus/exhaustive.
#
#   scripts/exhaustive.sh [NAME=NUMBER]...
#
#   terms=2 candidates=2 entries=0    elections, nodes that stand, records beside those that begin a term
#   crashes=0 breaks=0 links=1        crashes; links that break or leaders that give up; links that one node opens
#   slow-saves=0                      1: saving the vote takes time
#   depth=N states=N                  steps from the beginning; the search ends when it has seen so many states
#   old-terms=0                       1: with the planted fault that commits records of old terms
#
# A state takes about 1 KiB while it waits, and 64 bytes for good. Without a depth the search goes to the end.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in --help | -h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
need cargo "cargo (or rustup.rs)"
RINGSTORE_EXHAUSTIVE="depth=1000000 $*" \
  cargo test --quiet --profile sim --lib -- --nocapture consensus::exhaustive::tests::every_state
