#!/usr/bin/env python3
"""Keeps raw results of benches, and makes the tables of scripts/bench.sh and scripts/compare.sh of them.

bench_summary.py add FOLDER --line NAME --round N --what NAME FILE    adds a JSON file to FOLDER/runs.jsonl
bench_summary.py machine FOLDER --data PATH --server PROGRAM [--setting NAME=VALUE]...    writes FOLDER/machine.json
bench_summary.py half-rate FOLDER     half of the median rate of line `saturation`; nothing when it did not run
bench_summary.py summary FOLDER       the table of the canonical set; can be run again on old results
bench_summary.py compare FOLDER       the table of two commits

runs.jsonl holds an object in each line, {"line", "round", "what", "result"}: all that floor, echo and the load tool said.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

# --- Raw results -----------------------------------------------------------------------------------------------------


def add(arguments):
    with open(arguments.file) as file:
        result = json.load(file)
    run = {"line": arguments.line, "round": arguments.round, "what": arguments.what, "result": result}
    with open(os.path.join(arguments.folder, "runs.jsonl"), "a") as file:
        file.write(json.dumps(run, separators=(",", ":")) + "\n")


class Runs:
    """The raw results: `runs[line, what]` has the result of each round."""

    def __init__(self, folder):
        self.all = {}
        try:
            with open(os.path.join(folder, "runs.jsonl")) as file:
                for text in file:
                    run = json.loads(text)
                    self.all.setdefault((run["line"], run["what"]), {})[run["round"]] = run["result"]
        except FileNotFoundError:
            pass

    def values(self, line, what, figure):
        """The figure of each round."""
        return {number: figure(result) for number, result in self.all.get((line, what), {}).items()}


def median(values):
    known = [value for value in (values.values() if isinstance(values, dict) else values) if value is not None]
    return statistics.median(known) if known else None


def each_round(function, *figures):
    """Of figures by round, what the function makes of those of the same round."""
    common = set.intersection(*(set(figure) for figure in figures))
    return {number: function(*(figure[number] for figure in figures)) for number in sorted(common)}


# --- The machine -----------------------------------------------------------------------------------------------------


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def text_of(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def field(text, name):
    for line in text.splitlines():
        if line.startswith(name):
            return line.split(":", 1)[1].strip()
    return ""


def disk(path):
    """File system, its options, and the disk below it, as far as the system tells."""
    columns = output("findmnt", "--noheadings", "--output", "SOURCE,FSTYPE,OPTIONS", "--target", path).split()
    if len(columns) < 3:
        return {"fileSystem": output("stat", "--file-system", "--format", "%T", path)}
    source, kind, options = columns[:3]
    found = {"device": source, "fileSystem": kind, "mountOptions": options}
    name = os.path.basename(source)
    # Of a partition, its disk.
    parent = output("lsblk", "--noheadings", "--output", "PKNAME", source).splitlines()
    block = "/sys/block/" + ((parent[0].strip() if parent else "") or name)
    for key, file in [("model", "device/model"), ("rotational", "queue/rotational"), ("writeCache", "queue/write_cache")]:
        if text_of("%s/%s" % (block, file)):
            found[key] = text_of("%s/%s" % (block, file))
    return found


def machine(arguments):
    processor = text_of("/proc/cpuinfo")
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "commit": output("git", "rev-parse", "HEAD"),
        # Of the results themselves it would always be.
        "dirty": bool(output("git", "status", "--porcelain", "--", ":!benches/results")),
        "server": output(arguments.server, "--version"),
        "cpu": field(processor, "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memoryMib": int(field(text_of("/proc/meminfo"), "MemTotal").split()[0] or 0) // 1024,
        "disk": disk(arguments.data),
        "kernel": platform.release(),
        "virtual": output("systemd-detect-virt") or "unknown",
        "loadBefore": text_of("/proc/loadavg"),
        "settings": dict(setting.split("=", 1) for setting in arguments.setting),
    }
    with open(os.path.join(arguments.folder, "machine.json"), "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")


def machine_lines(folder):
    with open(os.path.join(folder, "machine.json")) as file:
        found = json.load(file)
    disk = " ".join(str(value) for key, value in found["disk"].items() if key in ("model", "device", "fileSystem"))
    settings = ", ".join("%s %s" % pair for pair in found["settings"].items())
    dirty = " and changes that are not committed" if found["dirty"] else ""
    commit = found["commit"][:12] or "unknown"
    yield "%s, commit %s%s" % (found["date"], commit, dirty)
    yield "%s, %s cores, %s MiB; %s" % (found["cpu"], found["cores"], found["memoryMib"], disk)
    yield "kernel %s, virtual: %s, load before %s" % (found["kernel"], found["virtual"], found["loadBefore"])
    yield settings


# --- The canonical set -----------------------------------------------------------------------------------------------


def series(name, figure):
    """A figure of the load tool's series of this name; `latency.p50Us` of the ones below it."""

    def find(result):
        for one in result["series"]:
            if one["name"] == name:
                value = one
                for part in figure.split("."):
                    value = value[part]
                return value
        return None

    return find


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return format(round(value), ",")
    return "%.4g" % value


def bound(floor, echo):
    return 1 / (1 / floor + 1 / echo) if floor and echo else None


class Table:
    def __init__(self):
        self.rows = []
        self.missed = 0
        self.unmeasured = 0

    def row(self, line, what, figure, target, reached, floor=None, echo=None, limit=None, share=None):
        """`figure` is by round; the others are figures, or None. Without a round the line did not run."""
        middle = median(figure)
        if middle is None:
            # It ran, and could not say; or it did not run.
            if figure:
                self.unmeasured += 1
                self.rows.append([line, what, *["-"] * 6, target, "not measured"])
            return
        known = [value for value in figure.values() if value is not None]
        spread = "%s..%s" % (number(min(known)), number(max(known)))
        verdict = {True: "yes", False: "NO", None: ""}[reached]
        self.missed += reached is False
        cells = [number(middle), spread, number(floor), number(echo), number(limit), share or "-"]
        self.rows.append([line, what, *cells, target, verdict])

    def limit(self, line, what, figure, most, unit):
        middle = median(figure)
        reached = None if middle is None else middle <= most
        self.row(line, what, figure, "at most %s%s" % (number(most), unit and " " + unit), reached)

    def least(self, line, what, figure, least, **others):
        middle = median(figure)
        self.row(line, what, figure, "at least %s" % number(least), None if middle is None else middle >= least, **others)

    def text(self):
        head = ["line", "figure", "median", "spread", "floor", "echo", "bound", "share", "target", "reached"]
        rows = [head, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for index, row in enumerate(rows):
            yield "| %s |" % " | ".join(cell.ljust(width) for cell, width in zip(row, widths))
            if index == 0:
                yield "|%s|" % "|".join("-" * (width + 2) for width in widths)


WRITES = series("write", "operationsPerSecond")
EVENTS = series("write", "eventsPerSecond")
MEGABYTES = series("write", "megabytesPerSecond")


def p(name, series_name="write"):
    return series(series_name, "latency." + name)


def percent(share):
    return None if share is None else "%.0f %%" % (100 * share)


def share_row(table, runs, line, number_, what, figure, floor, echo, wanted):
    """A rate against the bound of floor and echo in the same round."""
    cluster = runs.values(line, "cluster", figure)
    floors = runs.values(line, "floor", floor)
    echoes = runs.values(line, "echo", echo)
    bounds = each_round(bound, floors, echoes)
    share = median(each_round(lambda one, limit: limit and one / limit, cluster, bounds))
    others = {"floor": median(floors), "echo": median(echoes), "limit": median(bounds), "share": percent(share)}
    if isinstance(wanted, str):
        table.row(number_, what, cluster, wanted, None, **others)
    elif wanted > 1:
        table.least(number_, what, cluster, wanted, **others)
    else:
        reached = None if share is None else share >= wanted
        table.row(number_, what, cluster, "at least %.0f %% of bound" % (100 * wanted), reached, **others)


def latency_row(table, runs):
    """Line 1: a latency against the sum of floor's and echo's."""
    cluster = runs.values("one", "cluster", p("p50Us"))
    floors = runs.values("one", "floor", lambda result: result["p50Us"])
    echoes = runs.values("one", "echo", lambda result: result["p50Us"])
    sums = each_round(lambda floor, echo: floor + echo, floors, echoes)
    share = median(each_round(lambda one, limit: one / limit, cluster, sums))
    reached = None if share is None else share <= 1.6
    others = {"floor": median(floors), "echo": median(echoes), "limit": median(sums)}
    others["share"] = None if share is None else "%.2f x" % share
    table.row("1", "1 x 1, p50, us", cluster, "at most 1.6 x the sum", reached, **others)


RECORDS = "recordsPerSecond"
MESSAGES = "messagesPerSecond"


def writes_rows(table, runs):
    latency_row(table, runs)
    per_second = {"floor": lambda result: result[RECORDS], "echo": lambda result: result[MESSAGES]}
    share_row(table, runs, "connections", "2", "32 x 1, writes/s", WRITES, wanted=0.6, **per_second)
    table.limit("2", "32 x 1, p99, us", runs.values("connections", "cluster", p("p99Us")), 2000, "")
    share_row(table, runs, "saturation", "3", "32 x 32, writes/s", WRITES, wanted=0.2, **per_second)
    table.limit("3", "32 x 32, p99, us", runs.values("saturation", "cluster", p("p99Us")), 10_000, "")
    cpu = runs.values("saturation", "cluster", lambda result: per_thousand(result))
    table.limit("3", "CPU of all nodes, s per 1,000 writes", cpu, 0.006, "")
    events = {"floor": lambda result: 500 * result[RECORDS], "echo": lambda result: 500 * result[MESSAGES]}
    share_row(table, runs, "batches", "4", "500 events a write, events/s", EVENTS, wanted=1e6, **events)
    floor_share(table, runs, "large", "5", "16 KiB events, MB/s", runs.values("large", "cluster", MEGABYTES), 0.5)


def per_thousand(result):
    """CPU seconds of all nodes; None when one of them did not say, or was restarted. The line has writes only."""
    micros = result.get("serverCpuUsPerOperation")
    return None if micros is None else micros / 1000


def floor_share(table, runs, line, number_, what, figure, wanted):
    """Megabytes a second against the floor's."""
    floors = runs.values(line, "floor", lambda result: result["megabytesPerSecond"])
    echoes = runs.values(line, "echo", lambda result: result["megabytesPerSecond"])
    share = median(each_round(lambda one, floor: one / floor, figure, floors))
    bounds = each_round(bound, floors, echoes) if echoes else {}
    reached = None if share is None else share >= wanted
    others = {"floor": median(floors), "echo": median(echoes), "limit": median(bounds), "share": percent(share)}
    table.row(number_, what, figure, "at least %.0f %% of floor" % (100 * wanted), reached, **others)


def other_rows(table, runs):
    read = series("read", "eventsPerSecond")
    table.least("6", "pages of 500, one stream, events/s", runs.values("reads", "stream", read), 1.5e6)
    table.least("6", "pages of 500, all-stream, events/s", runs.values("reads", "all", read), 1.5e6)
    caught = runs.values("catchup", "catchup", lambda result: result["catchup_mib_per_s"] * 1.048576)
    floor_share(table, runs, "catchup", "6", "catch-up of a follower, MB/s", caught, 0.7)
    threads = lambda name: runs.values("saturation", "threads", lambda result: result.get(name))
    table.limit("7", "log thread, us of CPU an append", threads("logThreadUsPerAppend"), 1, "")
    # Its writes to the edges' eventfds are system calls as well, one for each edge that it wakes; nobody counts them.
    table.limit("7", "log thread, io_uring_enter per write (without eventfd writes)", threads("entersPerAppend"), 0.05, "")
    workers = threads("logWorkersUsPerAppend")
    table.row("7", "its kernel workers, us of CPU an append", workers, "(shown, no target)", None)
    table.limit("8", "open loop, p99, us", runs.values("openloop", "cluster", p("p99Us")), 2000, "")
    table.limit("8", "open loop, p99.9, us", runs.values("openloop", "cluster", p("p999Us")), 10_000, "")
    kept = each_round(
        lambda rate, chunks: rate / chunks["ratePerSecond"],
        runs.values("openloop", "cluster", WRITES),
        runs.values("openloop", "chunks", lambda result: result),
    )
    table.least("8", "open loop, part of the rate that was kept", kept, 0.99)
    table.least("8", "open loop, chunk changes", runs.values("openloop", "chunks", lambda one: one["chunkChanges"]), 1)
    memory = lambda one: (one["afterKib"] - one["beforeKib"]) / one["seen"] if one["seen"] >= one["connections"] else None
    table.limit("9", "KiB for each idle connection", runs.values("idle", "memory", memory), 16, "")
    quiet, crowded = (runs.values("idle", what, p("p99Us")) for what in ("quiet", "crowded"))
    table.limit("9", "p99 with idle ones / without", each_round(lambda a, b: b / a, quiet, crowded), 1.2, "")


def summary(arguments):
    runs = Runs(arguments.folder)
    for line in machine_lines(arguments.folder):
        print(line + "  ")
    print()
    table = Table()
    writes_rows(table, runs)
    other_rows(table, runs)
    for line in table.text():
        print(line)
    print("\nMedians over the rounds; a share is the median of the rounds' shares. C x N: connections, in flight on each.")
    for (line, what), results in runs.all.items():
        troubles = {}
        for result in results.values():
            for name, count in result.get("troubles", {}).items() if isinstance(result, dict) else ():
                troubles[name] = troubles.get(name, 0) + count
        seen = ", ".join("%s %d" % pair for pair in troubles.items() if pair[1])
        if seen:
            print("Troubles in %s, %s: %s" % (line, what, seen))
    judged = sum(row[-1] != "" for row in table.rows)
    print("%d of %d targets are not reached, %d not measured." % (table.missed, judged, table.unmeasured))


def half_rate(arguments):
    rate = median(Runs(arguments.folder).values("saturation", "cluster", WRITES))
    if rate:
        print(int(rate / 2))


# --- Two commits -----------------------------------------------------------------------------------------------------

# Of each series.
COMPARED = [
    ("operations/s", "operationsPerSecond"),
    ("p50, us", "latency.p50Us"),
    ("p99, us", "latency.p99Us"),
    ("p99.9, us", "latency.p999Us"),
]


def compared(runs, line):
    """What a line's results are compared by: names, and functions that find the figure."""
    results = [result for what in ("A", "B") for result in runs.all.get((line, what), {}).values()]
    names = list(dict.fromkeys(one["name"] for result in results for one in result["series"]))
    for name in names:
        for figure, path in COMPARED:
            yield "%s %s" % (name, figure), series(name, path)
    # Not of a series: it cannot be told which of them a node worked for.
    units = {result.get("serverCpuOperation") for result in results} - {None}
    yield "CPU, us of all nodes for each %s" % (units.pop() if len(units) == 1 else "operation"), cpu_of_operation


def cpu_of_operation(result):
    return result.get("serverCpuUsPerOperation")


def compare(arguments):
    """Each load's figures of A and B, and B/A of the same round: what a drift of the machine leaves alone."""
    runs = Runs(arguments.folder)
    rows = [["load", "figure", "A", "spread", "B", "spread", "B/A", "spread"]]
    spread = lambda values: "%s..%s" % (number(min(values)), number(max(values)))
    for line in dict.fromkeys(line for line, _ in runs.all):
        for name, figure in compared(runs, line):
            a, b = (runs.values(line, what, figure) for what in ("A", "B"))
            a, b = ({key: value for key, value in one.items() if value is not None} for one in (a, b))
            ratios = each_round(lambda one, other: other / one if one else None, a, b)
            ratios = {key: value for key, value in ratios.items() if value is not None}
            if ratios:
                cells = [cell for one in (a, b, ratios) for cell in (number(median(one)), spread(list(one.values())))]
                rows.append([line, name, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in [("add", add), ("machine", machine), ("half-rate", half_rate), ("summary", summary), ("compare", compare)]:
        one = commands.add_parser(name)
        one.add_argument("folder")
        one.set_defaults(function=function)
        if name == "add":
            one.add_argument("file")
            one.add_argument("--line", required=True)
            one.add_argument("--round", type=int, required=True)
            one.add_argument("--what", required=True)
        if name == "machine":
            one.add_argument("--data", required=True)
            one.add_argument("--server", required=True)
            one.add_argument("--setting", action="append", default=[])
    arguments = parser.parse_args()
    return arguments.function(arguments)


if __name__ == "__main__":
    sys.exit(main())
