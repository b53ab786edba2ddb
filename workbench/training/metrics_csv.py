"""metrics.csv: one row per logged step, columns fixed in `specs/metric_names.py`, each row on disk at once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from workbench.atomic import replacing, sync
from workbench.specs.metric_names import LOGGED


class MetricsCsv(Logger):
    """A Lightning logger that appends rows to one file.

    Args:
        path: The file; an existing one is continued.
        epoch_steps: Steps of one epoch; the column `epoch` is worked out from the step.
        keep_through: Rows of later steps are dropped first: a restarted fit writes them again.
    """

    def __init__(self, path: Path, epoch_steps: int, keep_through: int | None = None):
        super().__init__()
        self.path, self.epoch_steps = path, epoch_steps
        rows = []
        if path.exists() and keep_through is not None:
            with path.open(newline="", encoding="utf-8") as file:
                whole = [line for line in file if line.endswith("\n")]  # a power failure can cut the last row
            rows = [row for row in csv.DictReader(whole) if int(row["step"]) <= keep_through]
        with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOGGED)
            writer.writeheader()
            writer.writerows(rows)

    @rank_zero_only
    def save(self) -> None:
        """Return when every row is on the disk."""
        sync(self.path)

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the recipe is in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row; names that are not columns (test scores) belong to result.json and are left out."""
        known = {name: value for name, value in metrics.items() if name in LOGGED and name != "epoch"}
        if known:
            row = {"step": step, "epoch": (step - 1) // self.epoch_steps, **known}
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, LOGGED).writerow(row)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv as rows of the values that each one has."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
