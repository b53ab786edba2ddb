"""Time what only looks: each verb from the shell's view, against a bare Python and one that imports torch, in turns.

python benchmarks/start_up.py            # 9 rounds, into results/start_up.csv
python benchmarks/start_up.py --quick    # a try: nothing is kept

Seconds are of the clock; processor seconds stand beside them, since on a busy machine only those say much.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import measured

from workbench.training import machine, run_folder

LIMIT_SECONDS = 0.6
VERBS = (
    "--help",
    "list recipes",
    "list archs",
    "list weights",
    "list compared",
    "list datasets",
    "show quickstart",
    "show --keys",
    "validate flowers_b0_cpu",
    "validate",
    "data list",
)
BARE, TORCH = "python -c pass", "python -c 'import torch'"
COMMANDS = {BARE: ["-c", "pass"], TORCH: ["-c", "import torch"]}
COMMANDS |= {f"workbench {verb}": ["-m", "workbench", *verb.split()] for verb in VERBS}


def timed(arguments: list[str]) -> tuple[float, float]:
    """Return (clock, processor) seconds of one Python process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run every command in turn, round by round, and keep a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="2 rounds; prints only")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            took = timed(command)
            if number:  # the first fills the disk's cache
                seconds[name].append(took)
    for name, taken in seconds.items():
        clock, processor = zip(*taken, strict=True)
        ratios = [own[0] / torch[0] for own, torch in zip(taken, seconds[TORCH], strict=True)]
        row = {
            "what": name,
            "seconds": round(statistics.median(clock), 3),
            "least": round(min(clock), 3),
            "most": round(max(clock), 3),
            "processor_seconds": round(statistics.median(processor), 3),
            "share_of_import_torch": round(statistics.median(ratios), 3),
            "limit": LIMIT_SECONDS if name.startswith("workbench") else "",
            "rounds": rounds,
        }
        print(*(f"{key}={value}" for key, value in row.items()))
        if not arguments.quick:
            measured.append("start_up.csv", row, run_folder.command_line(), machine.describe())


if __name__ == "__main__":
    main()
