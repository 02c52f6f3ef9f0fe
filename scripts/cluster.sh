#!/usr/bin/env bash
# Three nodes on this machine: 127.0.0.1, .2 and .3 with the default ports.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=${RINGSTORE_DATA:-$TARGET/cluster}
FIRST=1
IPS=(127.0.0.1 127.0.0.2 127.0.0.3)
FOLDERS=("${IPS[@]/#/$DATA/}")
HTTP=$(cluster_http "$FIRST")

usage() {
  cat <<'TEXT'
scripts/cluster.sh up [--demo] [OPTION...]   build, start what does not run, wait for a leader; OPTIONs go to each node
scripts/cluster.sh demo                      write and read an event through a real client
scripts/cluster.sh status [--full]           what each node says of itself; --full: all statistics
scripts/cluster.sh kill-leader               SIGKILL to the leader; `up` brings the node back
scripts/cluster.sh logs [--follow]           the last lines that each node printed
scripts/cluster.sh down [--delete]           stop the nodes; --delete: and delete their data

RINGSTORE_DATA   where the data is (target/cluster)
TEXT
}

up() {
  local demo='' option leader options=()
  for option in "$@"; do
    if [[ $option == --demo ]]; then demo=yes; else options+=("$option"); fi
  done
  need python3 python3
  say "building"
  build_release
  cluster_start "$DATA" "$FIRST" ${options[@]+"${options[@]}"}
  leader=$(python3 scripts/nodes.py leader "$HTTP") || { last_words "${FOLDERS[@]}"; exit 1; }
  cat <<TEXT
three nodes run; $leader leads
  clients, TCP      ${IPS[0]}:1113  ${IPS[1]}:1113  ${IPS[2]}:1113
  clients, gossip   ${IPS[0]}:2113  ${IPS[1]}:2113  ${IPS[2]}:2113
  user              admin, changeit
  data and logs     $DATA
  stop them         scripts/cluster.sh down
TEXT
  [[ -z $demo ]] || demo
}

demo() {
  python_env "$RINGSTORE_CLIENTS/python" tests/compat/requirements.txt
  "$RINGSTORE_CLIENTS/python/bin/python" scripts/demo.py "$HTTP"
}

status() {
  local index pid
  for index in 0 1 2; do
    pid=$(node_pid "${FOLDERS[index]}")
    if [[ -n $pid ]]; then say "${IPS[index]} is process $pid"; else say "${IPS[index]} does not run"; fi
  done
  say ""
  python3 scripts/nodes.py status "$HTTP" "$@"
}

kill_leader() {
  local leader pid
  leader=$(python3 scripts/nodes.py leader "$HTTP" --any --timeout 10)
  pid=$(node_pid "$DATA/$leader")
  [[ -n $pid ]] || die "the leader $leader was not started by this script with RINGSTORE_DATA=$DATA"
  node_signal "$DATA/$leader" KILL
  say "killed $leader (process $pid); the others elect; scripts/cluster.sh up brings it back"
}

logs() {
  if [[ ${1:-} == --follow ]]; then
    exec tail --lines 20 --follow=name "${FOLDERS[@]/%//output}"
  fi
  tail --lines 20 "${FOLDERS[@]/%//output}"
}

down() {
  nodes_stop "${FOLDERS[@]}"
  if [[ ${1:-} == --delete ]]; then
    rm -rf "${FOLDERS[@]}"
    say "stopped; the data is deleted"
  else
    say "stopped; the data stays in $DATA (down --delete removes it)"
  fi
}

case ${1:-} in
  up) up "${@:2}" ;;
  demo) demo ;;
  status) status "${@:2}" ;;
  kill-leader) kill_leader ;;
  logs) logs "${@:2}" ;;
  down) down "${@:2}" ;;
  -h | --help | help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
