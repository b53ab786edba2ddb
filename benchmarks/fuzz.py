"""Feed damaged pictures, recipes and other files to what reads them; results/fuzz.csv counts what comes of it.

python benchmarks/fuzz.py --images 2000 --recipes 2000 --others 500
python benchmarks/fuzz.py --quick                      a few of each, nothing recorded
python benchmarks/fuzz.py --only recipe 17             one of them again, with its error whole

Anything but a result or the clear error is a crash and is printed with its number. The work is done by other processes,
a block each, so that even a decoder that takes its process along is counted and named.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import fuzzed
import measured

from workbench.training import machine

BLOCK = 200
_LAST = "last.txt"


def work(kind: str, first: int, count: int, folder: Path) -> None:
    """Try some numbers of one kind; print a line of JSON for each, and note each before it is tried."""
    for number in range(first, first + count):
        (folder / _LAST).write_text(str(number))
        print(json.dumps([number, *fuzzed.attempt(kind, number, folder)]), flush=True)


def block(kind: str, first: int, count: int) -> list[tuple[int, str, str]]:
    """Try some numbers in a process of its own.

    Returns:
        Number, sort and outcome of each; of one that took its process along, its signal.
    """
    found: list[tuple[int, str, str]] = []
    end = first + count
    while first < end:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--work", kind, str(first), str(end - first), folder]
            done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
            found += [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]
            last = Path(folder) / _LAST
            reached = int(last.read_text()) if last.is_file() else first
        if done.returncode:
            found.append((reached, "", f"CRASH: the process ended with {done.returncode}: {done.stderr[-200:]}"))
        first = reached + 1
    return found


def count_all(kind: str, count: int) -> list[dict[str, object]]:
    """Try numbers from 0 on; return a row per sort, and print every crash."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for first in range(0, count, BLOCK):
        for number, sort, told in block(kind, first, min(BLOCK, count - first)):
            word = told.split(":")[0]
            counts[sort][word] += 1
            if word == "CRASH":
                print(f"{kind} {number} ({sort}): {told}", flush=True)
        print(f"{kind}: {first + BLOCK} tried", file=sys.stderr, flush=True)
    return [
        {"kind": kind, "sort": sort, **{w: tally[w] for w in ("read", "refused")}, "crashed": tally["CRASH"]}
        for sort, tally in sorted(counts.items())
    ]


def main() -> None:
    """Try what is asked for; end with 1 if anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--recipes", type=int, default=0)
    parser.add_argument("--others", type=int, default=0, help="Of cards, sweep files, CSV lists and runs, each.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"))
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        kind, first, count, folder = arguments.work
        with contextlib.chdir(folder):
            return work(kind, int(first), int(count), Path(folder))
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            print(*fuzzed.attempt(arguments.only[0], int(arguments.only[1]), Path(folder), aloud=True), sep="\n")
            return None
    wanted = {"picture": arguments.images, "recipe": arguments.recipes}
    wanted |= dict.fromkeys(("card", "sweep", "csv", "run"), arguments.others)
    if arguments.quick:
        wanted = dict.fromkeys(wanted, 40)
    environment, crashed = machine.describe(), 0
    for kind, count in wanted.items():
        for row in count_all(kind, count) if count else []:
            print(row, flush=True)
            crashed += row["crashed"]
            if not arguments.quick:
                measured.append("fuzz.csv", row, "python benchmarks/fuzz.py " + " ".join(sys.argv[1:]), environment)
    return sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    main()
