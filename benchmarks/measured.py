"""Append measured rows to results/*.csv, each with command, commit, hardware and date."""

from __future__ import annotations

import csv
import datetime
import subprocess
from pathlib import Path
from typing import Any

from workbench.training import machine, run_folder

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def hardware(device: str = "cpu") -> str:
    """Return the name that results are keyed by."""
    described = machine.describe()
    return described["gpu"] if device == "gpu" else f"{described['processor']} x {described['cores']}"


def append(name: str, row: dict[str, Any], command: str | None = None, commit: str | None = None) -> None:
    """Append one row to results/NAME; a new file gets its header from the row's keys."""
    path = RESULTS / name
    if commit is None:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    full = {
        **row,
        "torch": machine.describe()["torch"],
        "hardware": hardware(row.get("device", "cpu")),
        "date": datetime.date.today().isoformat(),
        "commit": commit[:7],
        "command": command or run_folder.command_line(),
    }
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(full))
        if new:
            writer.writeheader()
        writer.writerow(full)
