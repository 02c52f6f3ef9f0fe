#!/usr/bin/env python3
"""CPU time of a process by thread, and where samples of perf fall.

threads.py sample PID [HOST:HTTPPORT]   CPU nanoseconds of each thread so far, and the node's /stats, as JSON
threads.py difference BEFORE AFTER      of two such files: CPU seconds by thread, appends, enters, as JSON
threads.py table BEFORE AFTER           the same for people
threads.py samples [--top 12]           reads `perf script --fields comm,tid,ip,sym,dso`; the top functions of each thread

The kernel's workers of a ring (iou-wrk-TID) count as workers of the thread with that TID. One that has ended took its
time with it: what the process used beyond the sum of its threads is shown as "ended threads".
"""

import argparse
import collections
import json
import os
import re
import sys

import nodes


def words(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def stat_nanoseconds(text):
    """User and system time of a line of proc_pid_stat(5). The name in it may hold blanks and brackets."""
    fields = text.rsplit(")", 1)[-1].split()
    ticks = int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def cpu_nanoseconds(folder):
    """Exact where the kernel keeps scheduling statistics, else in clock ticks."""
    schedstat = words(folder + "/schedstat").split()
    return int(schedstat[0]) if schedstat else stat_nanoseconds(words(folder + "/stat"))


def sample(pid, http):
    """Threads by id, since two may have one name."""
    threads = {}
    folder = "/proc/%d/task" % pid
    for thread in os.listdir(folder):
        name = words("%s/%s/comm" % (folder, thread)).strip()
        if name:
            threads[thread] = [name, cpu_nanoseconds("%s/%s" % (folder, thread))]
    whole = stat_nanoseconds(words("/proc/%d/stat" % pid))
    stats = nodes.ask(http, "/stats") if http else None
    return {"pid": pid, "processNs": whole, "threads": threads, "stats": stats}


def owner(name, threads):
    """A worker's time is shown as its ring's."""
    worker = re.fullmatch(r"iou-(?:wrk|sqp)-(\d+)", name)
    return "%s, kernel workers" % threads.get(worker[1], ["?"])[0] if worker else name


def difference(before, after):
    """CPU seconds by name of thread, and the log's counters, over the span."""
    if before["pid"] != after["pid"]:
        sys.exit("the samples are of two processes, %d and %d" % (before["pid"], after["pid"]))
    seconds = collections.Counter()
    for thread, (name, cpu) in after["threads"].items():
        earlier = before["threads"].get(thread, [name, 0])[1]
        seconds[owner(name, after["threads"])] += (cpu - earlier) / 1e9
    whole = (after["processNs"] - before["processNs"]) / 1e9
    # The whole is known in clock ticks only: less than a few of them mean nothing.
    rest = whole - sum(seconds.values())
    if rest > 0.05:
        seconds["ended threads"] = rest
    found = {"cpuSeconds": {name: round(value, 6) for name, value in seconds.most_common()}, "processCpuSeconds": whole}
    if before["stats"] and after["stats"]:
        log = {key: after["stats"]["log"][key] - before["stats"]["log"][key] for key in ("appends", "flushes", "enters")}
        found["log"] = log
        if log["appends"]:
            found["logThreadUsPerAppend"] = seconds["ring-log"] * 1e6 / log["appends"]
            found["logWorkersUsPerAppend"] = seconds["ring-log, kernel workers"] * 1e6 / log["appends"]
            found["entersPerAppend"] = log["enters"] / log["appends"]
    return found


def table(found):
    rows = [["thread", "CPU seconds", "share"]]
    whole = found["processCpuSeconds"] or 1
    for name, seconds in found["cpuSeconds"].items():
        if seconds >= 0.0005:
            rows.append([name, "%.3f" % seconds, "%.0f %%" % (100 * seconds / whole)])
    rows.append(["the process", "%.3f" % found["processCpuSeconds"], ""])
    nodes.print_table(rows)
    log = found.get("log")
    if log:
        print("\n%d appends, %d flushes, %d enters" % (log["appends"], log["flushes"], log["enters"]))
    if "logThreadUsPerAppend" in found:
        print(
            "an append: log thread %.3f us of CPU, its kernel workers %.3f us, %.4f enters"
            % (found["logThreadUsPerAppend"], found["logWorkersUsPerAppend"], found["entersPerAppend"])
        )


# comm tid ip symbol (dso); comm may hold blanks, the symbol nearly everything.
SAMPLE = re.compile(r"^\s*(?P<comm>\S.*?)\s+(?P<tid>\d+)\s+(?P<ip>[0-9a-f]+)\s+(?P<symbol>.*)\s\((?P<dso>[^()]*)\)\s*$")


def function(symbol, dso):
    """A name for people. Without its symbols the kernel is one line."""
    kernel = dso.startswith("[kernel") or dso.startswith("[guest.kernel") or dso.endswith(".ko")
    if symbol in ("", "[unknown]"):
        return "[kernel]" if kernel else "[%s]" % (os.path.basename(dso) or "unknown")
    # The hash that ends a Rust symbol tells nothing.
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    return "%s [k]" % symbol if kernel else symbol


def samples(lines, top):
    threads = collections.defaultdict(collections.Counter)
    names = {}
    for line in lines:
        found = SAMPLE.match(line)
        if found:
            names[found["tid"]] = [found["comm"]]
            threads[found["comm"]][function(found["symbol"], found["dso"])] += 1
    merged = collections.defaultdict(collections.Counter)
    for comm, counts in threads.items():
        merged[owner(comm, names)] += counts
    whole = sum(sum(counts.values()) for counts in merged.values())
    if not whole:
        sys.exit("no sample was read")
    for name, counts in sorted(merged.items(), key=lambda pair: -sum(pair[1].values())):
        own = sum(counts.values())
        if own * 200 < whole:
            continue
        print("\n%s: %d samples, %.0f %% of the process" % (name, own, 100 * own / whole))
        for symbol, count in counts.most_common(top):
            print("  %5.1f %%  %s" % (100 * count / own, symbol[:150]))


def load(path):
    with open(path) as file:
        return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sample")
    one.add_argument("pid", type=int)
    one.add_argument("http", nargs="?")
    for name in ("difference", "table"):
        two = commands.add_parser(name)
        two.add_argument("before")
        two.add_argument("after")
    commands.add_parser("samples").add_argument("--top", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.command == "sample":
        json.dump(sample(arguments.pid, arguments.http), sys.stdout)
    elif arguments.command == "samples":
        samples(sys.stdin, arguments.top)
    else:
        found = difference(load(arguments.before), load(arguments.after))
        table(found) if arguments.command == "table" else json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
