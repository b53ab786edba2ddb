"""The run folder: its name and its files, each written whole or not at all.

What stands in which file is the contract in README.md; `results.py` makes the scores.
"""

from __future__ import annotations

import csv
import datetime
import json
import secrets
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from workbench.atomic import disk_errors, replacing
from workbench.specs.errors import UserError

RECIPE, COMMAND, ENVIRONMENT, SPLITS = "recipe.yaml", "command.txt", "environment.json", "splits.json"
METRICS, RESULT, PREDICTIONS, LOG = "metrics.csv", "result.json", "predictions.csv", "log.txt"
TEST_OPENINGS, PAGE, LOGITS = "test_openings.json", "report.html", "logits.safetensors"
CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.safetensors"
WANDB, PIXELS = "wandb.json", "pixels.json"
RUNTIME = "runtime.json"


def create(runs_dir: str, recipe_name: str) -> Path:
    """Make `runs/<recipe>/<time>-<id>/`, never an existing one.

    Raises:
        UserError: It cannot be made.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(runs_dir) / recipe_name / f"{now}-{secrets.token_hex(3)}"
    with disk_errors(folder):
        (folder / CHECKPOINTS).mkdir(parents=True)
    return folder


def existing(path: str | Path) -> Path:
    """Return a run folder that can be continued or evaluated.

    Raises:
        UserError: It is none.
    """
    folder = Path(path)
    if not (folder / RECIPE).is_file():
        raise UserError.of("run", f"{folder}: no {RECIPE} in it", "a run folder", "give runs/<recipe>/<time>-<id>")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or return None if the file is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def record_test_opening(folder: Path, purpose: str, num_images: int) -> int:
    """Add one opening of the test split to the run's record, before it is opened.

    Returns:
        How often it has been opened by now.
    """
    openings = read_json(folder / TEST_OPENINGS) or []
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    openings.append({"time": time, "purpose": purpose, "images": num_images})
    write_json(folder / TEST_OPENINGS, openings)
    return len(openings)


def command_line() -> str:
    """Return the command that runs, as one could type it."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "workbench"] if name in ("__main__.py", "workbench") else [name or "python"]
    return shlex.join([*program, *sys.argv[1:]])
