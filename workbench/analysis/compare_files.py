"""Read what `compare` needs of a finished run; a damaged file is named, with what is wrong in it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.analysis.report_checks import check_run
from workbench.specs.errors import UserError
from workbench.training import run_folder
from workbench.training.csv_cells import restored

_COLUMNS = ("class", "predicted", "confidence", "class_probability", "class_rank")
_NEEDED = {"recipe": str, "arch": str, "dataset": str, "metric": str, "stamps": list, "test": dict}


@dataclass(frozen=True)
class TestedRun:
    """A finished run and its predictions.

    Args:
        folder: Its folder.
        result: Its result.json.
        rows: Its predictions.csv, in the file's order.
        openings: How often its test split was opened, at least.
    """

    __test__ = False  # its name is no test for pytest

    folder: Path
    result: dict[str, Any]
    rows: list[dict[str, str]]
    openings: int = 1

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return bool(self.rows) and "class" not in self.rows[0]


def read_tested(path: str | Path) -> TestedRun:
    """Read a finished run whose test split was opened.

    Raises:
        UserError: It is none, or its files are damaged.
    """
    folder = run_folder.existing(path)
    result = _json(folder / run_folder.RESULT)
    if result is None:
        raise UserError.of("compare", f"{folder}: not finished", "a finished run", f"workbench fit --resume {folder}")
    if not isinstance(result, dict):
        raise _damaged(folder / run_folder.RESULT, f"a {type(result).__name__}", "what `fit` writes")
    if not result.get("test") or not (folder / run_folder.PREDICTIONS).is_file():
        raise UserError.of(
            "compare",
            f"{folder}: no {run_folder.PREDICTIONS}, its test split was not opened",
            "two runs with predictions on test",
            "train with train.open_test=true once nothing is left to choose",
        )
    _check_result(folder / run_folder.RESULT, result)
    openings = _json(folder / run_folder.TEST_OPENINGS)
    if not isinstance(openings, list | None):
        raise _damaged(folder / run_folder.TEST_OPENINGS, f"a {type(openings).__name__}", "a list")
    count = max(len(openings or []), result["test"].get("openings") or 1)
    return TestedRun(folder, result, _predictions(folder / run_folder.PREDICTIONS), count)


def _damaged(path: Path, given: object, allowed: str) -> UserError:
    return UserError.of(path, given, allowed, "restore the file, or train again")


def _json(path: Path) -> Any:
    try:
        return run_folder.read_json(path)
    except ValueError as error:
        raise _damaged(path, error, "JSON") from error


def _check_result(path: Path, result: dict[str, Any]) -> None:
    odd = [name for name, kind in _NEEDED.items() if not isinstance(result.get(name), kind)]
    odd += [] if "seed" in result else ["seed"]
    if odd:
        raise _damaged(path, f"no {', '.join(odd)}, or not as it should be", "what `fit` writes")
    if not isinstance(result["test"].get("openings") or 1, int):
        raise _damaged(path, f"test.openings is {result['test']['openings']}", "a number")
    try:
        check_run(None, result["test"], result["metric"], result["seed"], None)
    except KeyError as error:
        raise _damaged(path, f"no test.{error.args[0]}", "what `fit` writes") from error
    except ValueError as error:
        raise _damaged(path, error, "what `fit` writes") from error


def _predictions(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames = [restored(name) for name in reader.fieldnames or []]
            rows = [{name: _text(cell) for name, cell in row.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, error, "a readable CSV file in UTF-8") from error
    if not rows or "id" not in columns or len({row["id"] for row in rows}) < len(rows):
        raise UserError.of(path, "no rows, or an id twice", "a row per test image", "train or copy it again")
    missing = [name for name in _COLUMNS if name not in columns]
    if missing and not any(name.startswith("has ") for name in columns):
        raise _damaged(path, f"no column {', '.join(missing)}", "the columns that `fit` writes")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values() or not (missing or _is_sound(row)):
            given = f"line {line}, {row['id']}: cells are missing, or are not the shares and ranks that they should be"
            raise _damaged(path, given, "what `fit` writes")
    return rows


def _text(cell: Any) -> Any:
    return restored(cell) if isinstance(cell, str) else cell  # not where a row is too long or too short


def _is_sound(row: dict[str, str]) -> bool:
    try:
        shares: Sequence[float] = [float(row[name]) for name in ("confidence", "class_probability")]
        rank = int(row["class_rank"])
    except ValueError:
        return False
    return rank >= 1 and all(math.isfinite(share) and 0 <= share <= 1 + 1e-6 for share in shares)
