#!/usr/bin/env python3
"""Makes a seccomp profile that allows io_uring out of one that does not.

  seccomp.py DEFAULT.json > ringstore-seccomp.json

DEFAULT.json is the container runtime's own profile, so that all that it forbids stays forbidden; Docker's is
profiles/seccomp/default.json in the source of its release (github.com/moby/moby, or moby/profiles), podman's
/usr/share/containers/seccomp.json. Only the three calls of io_uring are added. What a node does by them is accept, connect,
receive, send, read, write and flush; a seccomp filter does not see operations of a ring one by one, so give the profile to
this container only.
"""

import json
import sys

CALLS = ["io_uring_setup", "io_uring_enter", "io_uring_register"]


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        profile = json.load(file)
    if not isinstance(profile.get("syscalls"), list):
        sys.exit(f"seccomp.py: {sys.argv[1]} is no seccomp profile: it has no list \"syscalls\"")
    # A rule that refuses one of them by name would stand in the way.
    for rule in profile["syscalls"]:
        if rule.get("action") != "SCMP_ACT_ALLOW":
            rule["names"] = [name for name in rule.get("names", []) if name not in CALLS]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule.get("names")]
    profile["syscalls"].append({"names": CALLS, "action": "SCMP_ACT_ALLOW", "comment": "io_uring, for ringstore"})
    json.dump(profile, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
