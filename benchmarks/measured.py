"""Append measured rows to results/*.csv, each with command, commit, hardware and date."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from workbench.training import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def append(name: str, row: dict[str, Any], command: str, environment: dict[str, Any], device: str = "cpu") -> None:
    """Append one row to results/NAME; a new file gets its header from the row's keys.

    Args:
        name: File name.
        row: What was measured.
        command: What measured it.
        environment: `machine.describe()` of that moment, or a run's environment.json.
        device: `cpu` or `gpu`.

    Raises:
        ValueError: The file has other columns.
    """
    path, git = RESULTS / name, environment["git"]
    full = {
        **row,
        "torch": environment["torch"],
        "hardware": machine.hardware_name(environment, device),
        "date": environment["date"],
        "commit": git["commit"][:7] + ("+changed" if git["changed"] else ""),
        "command": command,
    }
    new = not path.exists()
    if not new and (header := path.open(encoding="utf-8").readline().strip().split(",")) != list(full):
        raise ValueError(f"{path} has the columns {header}, the row has {list(full)}")
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(full))
        if new:
            writer.writeheader()
        writer.writerow(full)
