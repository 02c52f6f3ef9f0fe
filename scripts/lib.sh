# shellcheck shell=bash
# Shared by the scripts of this folder; each begins with
#   set -euo pipefail
#   source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# It goes to the top of the project, and gives words for: messages, named steps with their time, nodes as processes,
# and the programs of other languages that the clients need.

# Where the script was called: names of files that it is given are meant from there. See `from_caller`.
CALLER=$PWD
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
export RINGSTORE_CLIENTS=${RINGSTORE_CLIENTS:-$TARGET/clients}

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

# from_caller PATH: the absolute path of what the caller named.
from_caller() {
  case $1 in
    /*) say "$1" ;;
    *) say "$CALLER/$1" ;;
  esac
}

# need COMMAND PACKAGE: the command is there, or which Debian package brings it.
need() {
  command -v "$1" >/dev/null || die "the command $1 is missing; on Debian: apt-get install $2"
}

# --- Named steps -----------------------------------------------------------------------------------------------------

steps_passed=0
steps_failed=0

# step NAME COMMAND...: runs it, prints its name, outcome and time. A failed step does not end the script.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  say "==> $name"
  "$@" || status=$?
  if [[ $status == 0 ]]; then
    steps_passed=$((steps_passed + 1))
    say "<== ok: $name ($((SECONDS - start)) s)"
  else
    steps_failed=$((steps_failed + 1))
    say "<== FAILED: $name ($((SECONDS - start)) s, status $status)"
  fi
}

# The last line, and the exit status of the script.
steps_end() {
  say "$steps_passed passed, $steps_failed failed"
  [[ $steps_failed == 0 && $steps_passed != 0 ]]
}

# --- The program -----------------------------------------------------------------------------------------------------

# build_release: builds the server; sets RINGSTORE to it. An own build can be named in RINGSTORE_BIN.
build_release() {
  if [[ -n ${RINGSTORE_BIN:-} ]]; then
    RINGSTORE=$(from_caller "$RINGSTORE_BIN")
    [[ -x $RINGSTORE ]] || die "RINGSTORE_BIN=$RINGSTORE is not a program"
    return
  fi
  need cargo "cargo (or rustup.rs)"
  cargo build --release --quiet --bin ringstore
  RINGSTORE=$TARGET/release/ringstore
}

# --- Nodes as processes ----------------------------------------------------------------------------------------------
# A node has a folder: `pid` holds its process id and that process's start time, so that a number that the kernel has
# given to somebody else is never taken for ours.

# process_start PID: the start time of a process in clock ticks since boot; nothing when there is none, or when it has
# ended and only waits to be collected (where nobody does that, as in a container without an init, for ever).
process_start() {
  local line
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The command's name is in brackets and may hold blanks: count from behind it.
  awk '$1 != "Z" && $1 != "X" { print $20 }' <<<"${line##*) }"
}

# node_pid FOLDER: the process id of the node if it runs.
node_pid() {
  local pid start
  [[ -f $1/pid ]] || return 0
  read -r pid start <"$1/pid" || return 0
  [[ -n $start && $(process_start "$pid") == "$start" ]] || return 0
  say "$pid"
}

# node_start FOLDER OPTION...: starts a node in the background; what it prints goes to FOLDER/output.
node_start() {
  local folder=$1 pid
  shift
  [[ -z $(node_pid "$folder") ]] || die "the node of $folder runs already (process $(node_pid "$folder"))"
  mkdir -p "$folder"
  setsid "$RINGSTORE" --db "$folder/db" --log "$folder/log" "$@" >>"$folder/output" 2>&1 </dev/null &
  pid=$!
  say "$pid $(process_start "$pid")" >"$folder/pid"
}

# node_signal FOLDER SIGNAL: to the node of this folder and to no other process.
node_signal() {
  local pid
  pid=$(node_pid "$1")
  [[ -z $pid ]] || kill "-$2" "$pid" 2>/dev/null || true
}

# nodes_stop FOLDER...: SIGTERM to all, SIGKILL after 10 s to those that are left.
nodes_stop() {
  local folder wait
  for folder in "$@"; do
    node_signal "$folder" TERM
  done
  for folder in "$@"; do
    for ((wait = 0; wait < 100; wait++)); do
      [[ -n $(node_pid "$folder") ]] || break
      sleep 0.1
    done
    if [[ -n $(node_pid "$folder") ]]; then
      say "the node of $folder did not end within 10 s: SIGKILL" >&2
      node_signal "$folder" KILL
    fi
    rm -f "$folder/pid"
  done
}

# cluster_start FOLDER FIRST OPTION...: three nodes on 127.0.0.FIRST and the next two, default ports, each the others'
# seeds. Those that run already are left alone.
cluster_start() {
  local folder=$1 first=$2 index other ip seeds
  shift 2
  for index in 0 1 2; do
    ip=127.0.0.$((first + index))
    [[ -z $(node_pid "$folder/$ip") ]] || continue
    seeds=
    for other in 0 1 2; do
      [[ $other == "$index" ]] || seeds+=${seeds:+,}127.0.0.$((first + other)):2112
    done
    node_start "$folder/$ip" --int-ip "$ip" --ext-ip "$ip" --cluster-size 3 --gossip-seed "$seeds" "$@"
  done
}

# cluster_http FIRST: the client HTTP endpoints of such a cluster.
cluster_http() {
  say "127.0.0.$1:2113,127.0.0.$(($1 + 1)):2113,127.0.0.$(($1 + 2)):2113"
}

# last_words FOLDER...: why nodes may have ended.
last_words() {
  local folder
  for folder in "$@"; do
    say "--- the last lines of $folder/output"
    tail -n 15 "$folder/output" 2>/dev/null || true
  done >&2
}

# --- Other languages' clients ----------------------------------------------------------------------------------------

# python_env FOLDER REQUIREMENTS_FILE: a Python environment with these packages; kept while the file stays the same.
python_env() {
  local folder=$1 file=$2
  cmp -s "$folder/.requirements" "$file" && return
  need python3 python3
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  "${PYTHON:-python3}" -m venv "$folder" || die "no Python environment; on Debian: apt-get install python3-venv"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$file" \
    || die "pip could not install $file; is the package index reachable?"
  cp "$file" "$folder/.requirements"
}

# node_modules FOLDER PACKAGE_JSON: a folder with these npm packages; kept while the file stays the same.
node_modules() {
  local folder=$1 file=$2
  cmp -s "$folder/.package.json" "$file" && return
  need node nodejs
  need npm npm
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$file" "$folder/package.json"
  (cd "$folder" && npm install --silent --no-audit --no-fund --no-package-lock --omit=dev) >&2 \
    || die "npm could not install $file; is the package registry reachable?"
  cp "$file" "$folder/.package.json"
}
