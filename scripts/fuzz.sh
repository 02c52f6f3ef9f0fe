#!/usr/bin/env bash
# Fuzzes what reads bytes from outside: frames, messages, HTTP, gossip, votes, records, recovery, state, tables of the
# index, options, what operators ask and are answered.
# The targets are in tests/fuzz; `cargo test --test corpora` runs their corpora without a fuzzer.
#
#   scripts/fuzz.sh [OPTION]... [TARGET]...      all targets when none is named
#
#   --seconds N      for each target (60)
#   --runs N         executions of each target, in place of a time
#   --jobs N         processes for each target at a time (1)
#   --sanitizer S    none (default: the code is safe, and twice as fast) or address
#   --minimise       afterwards, put what covers something new into the corpora of the source tree
#   --list           the targets, and no more
#
# Memory is bounded: 512 MiB for the process, and for one input what tests/fuzz/src/memory.rs says. What crashes is kept
# in target/fuzz/crashes; to see it again, give the file to the target's program:
#   target/fuzz/x86_64-unknown-linux-gnu/release/TARGET FILE
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

FUZZ=$TARGET/fuzz
HOST=$(rustc -vV | sed -n 's/^host: //p')
PROGRAMS=$FUZZ/$HOST/release
# The longest input: what lets a target come as deep as longer ones do, and runs faster. HTTP and gossip have limits of
# their own to run into, a footer is a page.
INPUT_BYTES_MAX=2048
declare -A INPUT_BYTES=(
  [chunk_footer]=4097 [chunk_header]=80 [client_frames]=1024 [client_messages]=1024 [command_line]=512
  [config_file]=1024 [gossip]=4096 [http]=4096 [index_manifest]=512 [index_table]=1024 [link]=1024 [log_info]=1024
  [peer_answer]=1024 [state]=1088
)
# What is kept in the source tree is to be small: one input, and those of a target together.
KEPT_INPUT_BYTES_MAX=1024
KEPT_BYTES_MAX=8192
KEPT_INPUTS_MAX=120

seconds=60
runs=
jobs=1
sanitizer=none
minimise=
list=
targets=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=${2:?a number}; shift 2 ;;
    --runs) runs=${2:?a number}; shift 2 ;;
    --jobs) jobs=${2:?a number}; shift 2 ;;
    --sanitizer) sanitizer=${2:?none or address}; shift 2 ;;
    --minimise) minimise=yes; shift ;;
    --list) list=yes; shift ;;
    --help | -h) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) die "unknown option $1; see --help" ;;
    *) targets+=("$1"); shift ;;
  esac
done

all_targets() { sed -n 's/^name = "\(.*\)"/\1/p' tests/fuzz/Cargo.toml | tail -n +2; }

mapfile -t known < <(all_targets)
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || die "there is no target $target; there are: ${known[*]}"
done
[[ ${#targets[@]} -gt 0 ]] || targets=("${known[@]}")
if [[ -n $list ]]; then
  printf '%s\n' "${targets[@]}"
  exit 0
fi

cargo +nightly --version >/dev/null 2>&1 || die "a nightly compiler is missing: rustup toolchain install nightly"
cargo +nightly fuzz --version >/dev/null 2>&1 || die "cargo-fuzz is missing: cargo install cargo-fuzz"

build() {
  cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir "$FUZZ" --sanitizer "$sanitizer"
}

# fuzz TARGET: runs it and says what came out.
fuzz() {
  local target=$1 output=$FUZZ/output/$1 status=0
  local bound=(-max_total_time="$seconds")
  [[ -z $runs ]] || bound=(-runs="$runs")
  mkdir -p "$FUZZ/corpus/$target" "$FUZZ/crashes" "$FUZZ/output"
  [[ $jobs == 1 ]] || bound+=(-fork="$jobs")
  "$PROGRAMS/$target" "${bound[@]}" -rss_limit_mb=512 -malloc_limit_mb=64 -timeout=10 \
    -max_len="${INPUT_BYTES[$target]:-$INPUT_BYTES_MAX}" \
    -print_final_stats=1 -artifact_prefix="$FUZZ/crashes/$target-" "$FUZZ/corpus/$target" "tests/fuzz/corpus/$target" \
    >"$output" 2>&1 || status=$?
  if [[ $status != 0 ]]; then
    grep --after-context=3 --max-count=1 -E 'panicked|ERROR|SUMMARY' "$output" || true
    grep -E 'Test unit written' "$output" || true
  fi
  awk -v target="$target" '
    / cov: / { for (field = 1; field < NF; field++) { if ($field == "cov:") cov = $(field + 1); if ($field == "corp:") corp = $(field + 1) } }
    /^stat::number_of_executed_units/ { runs = $2 }
    /^stat::average_exec_per_sec/ { speed = $2 }
    /^stat::peak_rss_mb/ { peak = $2 }
    END { printf "%-16s %12d runs %8d a second, %5d edges, %12s kept, %4d MiB\n", target, runs, speed, cov, corp, peak }
  ' "$output"
  return "$status"
}

# keep TARGET: few and small inputs that cover most of the edges, into the source tree.
keep() {
  local target=$1 folder=$FUZZ/kept/$1 kept=tests/fuzz/corpus/$1 size file bytes=0 count=0
  rm -rf "$folder"
  mkdir -p "$folder"
  "$PROGRAMS/$target" -set_cover_merge=1 -use_counters=0 -max_len="$KEPT_INPUT_BYTES_MAX" "$folder" \
    "$FUZZ/corpus/$target" "$kept" >"$FUZZ/output/$target.merge" 2>&1 || return
  # Seeds stay under their names (`RINGSTORE_REWRITE=1 cargo test --test corpora` writes them), crashes too.
  find "$kept" -type f ! -name 'seed-*' ! -name 'crash-*' -delete
  while read -r size file; do
    ((size > 0 && ++count <= KEPT_INPUTS_MAX && (bytes += size) <= KEPT_BYTES_MAX)) || continue
    cp "$file" "$kept/$(basename "$file" | cut -c1-12)"
  done < <(find "$folder" -type f -printf '%s %p\n' | sort -n)
  say "$target: $(find "$kept" -type f | wc -l) inputs, $(cat "$kept"/* | wc -c) bytes"
}

step "the targets, sanitizer $sanitizer" build
[[ $steps_failed == 0 ]] || steps_end
for target in "${targets[@]}"; do
  step "fuzz $target" fuzz "$target"
done
if [[ -n $minimise ]]; then
  for target in "${targets[@]}"; do
    step "minimise $target" keep "$target"
  done
fi
steps_end
