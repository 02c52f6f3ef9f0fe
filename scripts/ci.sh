#!/usr/bin/env bash
# Everything that must hold before a change lands, each step with its time; the last line counts them.
#
#   scripts/ci.sh [--only STEP]...      the steps: format lint docs test sim fuzz scripts clients failover
#                                       faults planes benches
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

only=
while [[ $# -gt 0 ]]; do
  case $1 in
    --only) only+=" ${2:?a step} "; shift 2 ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

wanted() { [[ -z $only || $only == *" $1 "* ]]; }

format() { cargo fmt --check; }
lint() { cargo clippy --all-targets -- -D warnings; }
# With the private parts: the manual and the modules' docs lead into them.
docs() {
  RUSTDOCFLAGS='-Dwarnings -Arustdoc::private_intra_doc_links' cargo doc --no-deps --document-private-items
}
tests() { cargo test; }
simulator() { cargo sim --seeds 200; }
failover() { scripts/failover.sh --rounds 2; }
# All but the last skip themselves, with a word, where there are no network namespaces and loop devices for them.
faults() {
  scripts/fault.sh --minutes 1 --seed 1 || return
  scripts/fault.sh --mode disk-full --seed 1 || return
  scripts/fault.sh --mode disk-fails --seed 1 || return
  scripts/fault.sh --mode random-kill --rounds 5 --seed 1
}

# They skip themselves in the same way. A chance to see each promise of the two planes broken; figures are for longer runs.
planes() {
  scripts/planes.sh --mode traffic --mib 64 --seed 1 || return
  scripts/planes.sh --mode cuts --seconds 3 --seed 1 || return
  scripts/planes.sh --mode strangers --seed 1 || return
  scripts/planes.sh --mode flood --seconds 1 --rounds 1 --mib 16 --seed 1 || return
  scripts/planes.sh --mode traffic --open --mib 16 --seed 1
}

# A short run of each fuzz target; its corpus is part of the tests in any case.
fuzzing() {
  if cargo +nightly fuzz --version >/dev/null 2>&1; then
    scripts/fuzz.sh --seconds 5
  else
    say "SKIPPED: there is no nightly compiler with cargo-fuzz; the corpora run among the tests"
  fi
}

# Every bench with tiny inputs, so that it cannot rot.
benches() {
  local bench found=
  for bench in benches/*.rs; do
    [[ -f $bench ]] || continue
    found=yes
    cargo bench --bench "$(basename "$bench" .rs)" -- --small || return
  done
  [[ -n $found ]] || say "there are no benches"
}

# The scripts read well: by bash always, by shellcheck where it is installed; Python files compile.
scripts_read() {
  local script
  for script in scripts/*.sh scripts/*/*.sh .ci/run; do
    bash -n "$script" || return
  done
  python3 -c 'import ast, sys; [ast.parse(open(name).read(), name) for name in sys.argv[1:]]' \
    scripts/*.py scripts/*/*.py tests/compat/*.py || return
  if command -v shellcheck >/dev/null; then
    shellcheck --severity=warning --external-sources --source-path=scripts scripts/*.sh scripts/*/*.sh .ci/run
  else
    say "shellcheck is not installed; bash -n only"
  fi
}

need cargo "cargo (or rustup.rs)"
need python3 python3
! wanted format || step "format" format
! wanted lint || step "lint" lint
! wanted docs || step "docs" docs
! wanted scripts || step "scripts" scripts_read
! wanted test || step "test" tests
! wanted sim || step "simulator, 200 seeds" simulator
! wanted fuzz || step "fuzz targets, 5 s each" fuzzing
! wanted clients || step "real clients" scripts/compat.sh
! wanted failover || step "failover, 2 rounds a mode" failover
! wanted faults || step "faults, 1 minute, and disks" faults
! wanted planes || step "planes: traffic, cuts, strangers, a short flood" planes
! wanted benches || step "benches, small" benches
steps_end
