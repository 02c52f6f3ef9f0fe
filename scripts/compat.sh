#!/usr/bin/env bash
# Real clients that others wrote, against one node and against a cluster of three that they find by gossip.
# Nodes run on 127.0.0.11 and 127.0.0.21 to .23, so that a cluster of scripts/cluster.sh is not in the way.
#
#   scripts/compat.sh [--only node|python] [--persistent]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DATA=$TARGET/compat
SINGLE=127.0.0.11
FIRST=21
FOLDERS=("$DATA/$SINGLE" "$DATA"/127.0.0.{21,22,23})
CERTIFICATES=$DATA/certificates
# Small chunk files: the programs write little. Beside the plain ports those with TLS.
OPTIONS=(--chunk-size 32MiB --max-append-size 16MiB
  --ext-secure-tcp-port 1116 --ext-secure-http-port 2114
  --certificate-file "$CERTIFICATES/node.pem" --certificate-private-key-file "$CERTIFICATES/node.key")
# Persistent subscriptions are not served by this version.
export NO_PERSISTENT=1
only=

while [[ $# -gt 0 ]]; do
  case $1 in
    --only) only=${2:?node or python}; shift 2 ;;
    --persistent) unset NO_PERSISTENT; shift ;;
    *) die "unknown option $1; see the head of $0" ;;
  esac
done

trap 'nodes_stop "${FOLDERS[@]}"' EXIT

# client NAME HOST [SEEDS]: one program, within its time. node-tls: at the ports with TLS, and it checks the certificate.
client() {
  local program=() host=$2 tcp=1113 http=2113
  case $1 in
    node) program=(node tests/compat/node-eventstore-client.js "$RINGSTORE_CLIENTS/node") ;;
    node-tls)
      tcp=1116 http=2114
      program=(env TLS=1 NODE_EXTRA_CA_CERTS="$CERTIFICATES/ca.pem"
        node tests/compat/node-eventstore-client.js "$RINGSTORE_CLIENTS/node")
      ;;
    python) program=("$RINGSTORE_CLIENTS/python/bin/python" -W ignore tests/compat/photonpump_client.py) ;;
  esac
  GOSSIP_SEEDS=${3:-} timeout --kill-after=5 300 "${program[@]}" "$host" "$tcp" "$http"
}

wanted() { [[ -z $only || $only == "$1" ]]; }

build_release
need python3 python3
! wanted node || node_modules "$RINGSTORE_CLIENTS/node" tests/compat/package.json
! wanted python || python_env "$RINGSTORE_CLIENTS/python" tests/compat/requirements.txt

nodes_stop "${FOLDERS[@]}"
rm -rf "$DATA"
"$RINGSTORE" certificates --out "$CERTIFICATES" --node "node=$SINGLE,127.0.0.21,127.0.0.22,127.0.0.23" >/dev/null

node_start "$DATA/$SINGLE" --int-ip "$SINGLE" --ext-ip "$SINGLE" "${OPTIONS[@]}"
python3 scripts/nodes.py leader "$SINGLE:2113" >/dev/null || { last_words "$DATA/$SINGLE"; exit 1; }
! wanted node || step "node-eventstore-client, one node" client node "$SINGLE"
! wanted node || step "node-eventstore-client, one node, TLS" client node-tls "$SINGLE"
! wanted python || step "photonpump, one node" client python "$SINGLE"
nodes_stop "$DATA/$SINGLE"

cluster_start "$DATA" "$FIRST" "${OPTIONS[@]}"
leader=$(python3 scripts/nodes.py leader "$(cluster_http "$FIRST")") || { last_words "${FOLDERS[@]:1}"; exit 1; }
! wanted node || step "node-eventstore-client, cluster by gossip" client node "$leader" "$(cluster_http "$FIRST")"
! wanted node || step "node-eventstore-client, cluster by gossip, TLS" \
  client node-tls "$leader" "127.0.0.21:2114,127.0.0.22:2114,127.0.0.23:2114"
! wanted python || step "photonpump, cluster by gossip" client python "$leader" "$(cluster_http "$FIRST")"
[[ $steps_failed == 0 ]] || last_words "${FOLDERS[@]}"
steps_end
