#!/usr/bin/env python3
"""Asks nodes over HTTP what they are.  nodes.py COMMAND HOST:HTTPPORT,...

leader   waits until one node leads, the others follow and all gossip says so; prints the leader's address;
         with --any as soon as one node leads
status   prints a table of what each node says of itself, and the leader's view of its followers
"""

import argparse
import json
import sys
import time
import urllib.request


def ask(endpoint, path):
    """The JSON answer; None when there is none."""
    try:
        # No proxy of the environment: the nodes are near.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open("http://%s%s" % (endpoint, path), timeout=2) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def role(stats):
    return stats["node"]["role"] if stats else "no answer"


def leaders_in_gossip(endpoint):
    """The client HTTP endpoints of the leaders that this node would tell a client. "Master" is v5's word."""
    members = (ask(endpoint, "/gossip") or {}).get("members", [])
    leading = [member for member in members if member["state"] == "Master" and member["isAlive"]]
    return ["%s:%d" % (member["externalHttpIp"], member["externalHttpPort"]) for member in leading]


def leader(endpoints, limit, any_will_do):
    deadline = time.monotonic() + limit
    while True:
        roles = [role(ask(endpoint, "/stats")) for endpoint in endpoints]
        if any_will_do and roles.count("leader") == 1:
            print(endpoints[roles.index("leader")].rsplit(":", 1)[0])
            return 0
        if roles.count("leader") == 1 and roles.count("follower") == len(endpoints) - 1:
            found = endpoints[roles.index("leader")]
            if all(leaders_in_gossip(endpoint) == [found] for endpoint in endpoints):
                print(found.rsplit(":", 1)[0])
                return 0
        if time.monotonic() > deadline:
            seen = ", ".join("%s: %s" % pair for pair in zip(endpoints, roles))
            print("no leader that all agree on within %g s (%s)" % (limit, seen), file=sys.stderr)
            return 1
        time.sleep(0.1)


def print_table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def flat(value, name=""):
    """Every figure of a nested object, under its dotted name."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield name, value
        return
    for key, inner in pairs:
        yield from flat(inner, "%s.%s" % (name, key) if name else str(key))


def status(endpoints, full):
    all_stats = {endpoint: ask(endpoint, "/stats") for endpoint in endpoints}
    rows = [["node", "role", "term", "log end", "flushed", "committed", "applied", "clients", "memory"]]
    for endpoint, stats in all_stats.items():
        if stats is None:
            rows.append([endpoint, "no answer"] + [""] * 7)
            continue
        positions = [stats["positions"][key] for key in ("logEnd", "writerCheckpoint", "commit", "applied")]
        memory = "%d MiB" % ((stats["proc"]["mem"] or 0) >> 20)
        figures = [stats["node"]["term"], *positions, stats["clients"]["tcpConnectionsNow"], memory]
        note = ", disk full" if stats["node"]["diskFull"] else ""
        rows.append([endpoint, role(stats) + note] + [str(figure) for figure in figures])
    print_table(rows)
    names = {stats["node"]["id"]: endpoint for endpoint, stats in all_stats.items() if stats}
    for endpoint, stats in all_stats.items():
        if role(stats) == "leader" and stats["followers"]:
            print("\nas the leader %s sees its followers:" % endpoint)
            rows = [["follower", "acknowledged", "bytes behind", "served from"]]
            for one in stats["followers"]:
                source = "chunk files" if one["fromFiles"] else "log buffer"
                name = names.get(one["node"], one["node"])
                rows.append([name, str(one["acknowledged"]), str(one["lagBytes"]), source])
            print_table(rows)
        if full and stats:
            print("\nall figures of %s:" % endpoint)
            print_table([[name, str(value)] for name, value in flat(stats)])
    return 0 if all(all_stats.values()) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["leader", "status"])
    parser.add_argument("endpoints", help="host:port of the nodes' client HTTP, separated by commas")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for a leader (%(default)s)")
    parser.add_argument("--any", action="store_true", help="do not wait for the others to follow")
    parser.add_argument("--full", action="store_true", help="all figures")
    arguments = parser.parse_args()
    endpoints = arguments.endpoints.split(",")
    if arguments.command == "leader":
        return leader(endpoints, arguments.timeout, arguments.any)
    return status(endpoints, arguments.full)


if __name__ == "__main__":
    sys.exit(main())
