#!/usr/bin/env python3
"""Medians of runs of `roost bench receive` and of a conventional system, a mail, and ratios ours over theirs, as a table.

ratios.py ROOST.jsonl CONVENTIONAL.jsonl      (standard library only; both are lines of JSON as compare.sh writes them)
"""
import collections, json, statistics, sys


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def medians(rows, key):
    runs = collections.defaultdict(list)
    for row in rows:
        runs[key(row)].append(row)
    each = lambda all, field: statistics.median(row[field] / row["n"] for row in all)
    return {of: (1000 * each(all, "seconds_total"), 1000 * each(all, "cpu_s"), each(all, "traffic_bytes"), len(all))
            for of, all in runs.items()}


def short(size):
    return f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}K"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    reports = lines(sys.argv[1])
    ours_rows = [row for report in reports for row in report["rows"]]
    theirs_rows = [row for row in lines(sys.argv[2]) if row.get("mode", "stream") == "stream"]
    wrong = [row for row in ours_rows if row["identical"] != row["n"]]
    wrong += [row for row in theirs_rows if row.get("bad") or row.get("error")]
    if wrong:
        sys.exit(f"not every mail that was read is what was submitted: {wrong[0]}")
    ours = medians(ours_rows, lambda row: (row["kind"], row["size"], row["connections"], row["group"], row["open"]))
    theirs = medians(theirs_rows, lambda row: (row["kind"], row["size"], row["conns"]))
    if reports:
        machine = reports[0]["machine"]
        print(f"commit {reports[0]['commit']}, {machine['cores']} cores, {machine['processor']}, {machine['build']} build")
    fsync = [row["fsync_ms"] for row in ours_rows + theirs_rows if row.get("fsync_ms") is not None]
    if fsync:
        print(f"fsync of 4 KiB on this disk: median {statistics.median(fsync):.2f} ms")
    for how in sorted({row["traffic_counted_by"] for row in ours_rows}):
        print(f"our traffic: {how}")
    lengths = sorted({short(row["size"]) for row in theirs_rows if row.get("check") == "len"})
    if lengths:
        print(f"theirs of {', '.join(lengths)}: mails were compared by their length (more than 200 MiB a run), ours to the byte")
    print("a mail, medians; time is from the first submission to the last body read")
    print()
    print("| kind | size | connections | group | opened | runs | time ms, ours / theirs | ratio | CPU ms, ours / theirs | ratio | traffic B, ours / theirs | ratio |")
    print("|" + "---|" * 12)
    order = lambda item: (item[0][3:], item[0][:3])
    for (kind, size, connections, group, opened), (time, cpu, traffic, runs) in sorted(ours.items(), key=order):
        their = theirs.get((kind, size, connections))
        if not their:
            continue
        # What sockets passed on is less than whole frames.
        frames = all(row["packets"] for row in ours_rows)
        cells = [f"{time:.2f} / {their[0]:.2f} | {time / their[0]:.2f}", f"{cpu:.2f} / {their[1]:.2f} | {cpu / their[1]:.2f}",
                 f"{traffic:.0f} / {their[2]:.0f} | " + (f"{traffic / their[2]:.2f}" if frames else "")]
        print(f"| {kind} | {short(size)} | {connections} | {group} | {opened} | {runs} / {their[3]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
