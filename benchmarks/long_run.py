"""Watch a fit's memory and open files, epoch by epoch, from outside; the row goes to results/long_run.csv.

python benchmarks/long_run.py --epochs 200
python benchmarks/long_run.py --quick                  20 epochs, nothing recorded

The fit is the shipped quickstart on a tenth of its images, with an average of the weights, a validation an epoch and
kept pictures. `grown` compares the medians of the last and the second quarter of what was seen: the first quarter is
left to caches that fill.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import measured

from workbench.training import machine

PAUSE_SECONDS = 0.05
_PAGE = 4096
_RECIPE = ["data.train_fraction=0.1", "data.resolution=32", "data.eval_resize=32", "data.num_workers=0"]
_RECIPE += ["train.ema_half_life_fraction=0.1", "train.device=cpu", "train.open_test=false", "track.wandb=off"]
_RECIPE += ["schedule.warmup_epochs=0"]


@dataclass(frozen=True)
class Seen:
    """One look at a process.

    Args:
        resident: Bytes of memory in use.
        files: Open file handles.
        rows: Lines of metrics.csv by then.
    """

    resident: int
    files: int
    rows: int


def watch(arguments: Sequence[str], runs: Path) -> list[Seen]:
    """Run `workbench ARGUMENTS` and look at it as long as it trains.

    Args:
        arguments: A verb and what follows.
        runs: Where its run folder appears.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "workbench", *arguments]
    seen = []
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        place = Path(f"/proc/{process.pid}")
        while process.poll() is None:
            tables = list(runs.glob("*/*/metrics.csv"))
            rows = tables[0].read_bytes().count(b"\n") if tables else 0
            try:
                resident = int((place / "statm").read_text().split()[1]) * _PAGE
                files = len(list((place / "fd").iterdir()))
            except (OSError, IndexError):
                break  # it ended while it was looked at
            if rows > 1 and (not seen or rows > seen[-1].rows):
                seen.append(Seen(resident, files, rows))
            time.sleep(PAUSE_SECONDS)
        if process.wait():
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-2000:])
    return seen


def grown(values: Sequence[int]) -> tuple[float, float]:
    """Return the medians of the second and of the last quarter."""
    quarter = len(values) // 4
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def main() -> None:
    """Fit, watch, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    epochs, environment = 20 if arguments.quick else arguments.epochs, machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        lengths = [f"train.total_epochs={epochs}", f"train.num_validations={epochs}", f"track.runs_dir={folder}"]
        seen = watch(["fit", "--recipe", "quickstart", *_RECIPE, *lengths], Path(folder))
    memory, files = grown([one.resident for one in seen]), grown([one.files for one in seen])
    row = {
        "epochs": epochs,
        "looks": len(seen),
        "mib_second_quarter": round(memory[0] / 2**20, 1),
        "mib_last_quarter": round(memory[1] / 2**20, 1),
        "files_second_quarter": files[0],
        "files_last_quarter": files[1],
    }
    print(row)
    if not arguments.quick:
        measured.append("long_run.csv", row, f"python benchmarks/long_run.py --epochs {epochs}", environment)


if __name__ == "__main__":
    main()
