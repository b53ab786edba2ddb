"""The runs at or below a folder, a row each: finished, unfinished or damaged. Nothing of it loads torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench import shipped
from workbench.analysis.report_checks import check_run
from workbench.specs.errors import UserError
from workbench.training import run_folder

FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"
_SIGNS = {run_folder.RECIPE, run_folder.RESULT, run_folder.CHECKPOINTS}
"""A folder that holds one of these is a run, or what is left of one."""

_LONGEST = 200
"""Characters of a reason; a guess."""


def list_runs(top: Path) -> list[dict[str, Any]]:
    """Return what is known of every run, whatever state its files are in.

    Args:
        top: A run folder, or a folder of them (a sweep's too).

    Returns:
        By path: `run`, `recipe`, `dataset`, `metric`, the metric on `selection` and on `test` (fractions, None where
        there is none), `state`, and, of a damaged run, `why`.

    Raises:
        UserError: There is no such folder.
    """
    if not top.is_dir():
        remedy = "name the folder that track.runs_dir said, or train first"
        raise UserError.of("list runs", f"{top}: no such folder", "a folder of runs", remedy)
    return [_row(folder) for folder in _folders(top)]


def _folders(top: Path) -> Iterator[Path]:
    """Yield run folders by name; nothing inside one is looked at."""
    for folder, inner, files in os.walk(top):
        inner.sort()
        if not _SIGNS.isdisjoint((*inner, *files)):
            inner.clear()
            yield Path(folder)


def _row(folder: Path) -> dict[str, Any]:
    row = {"run": str(folder), "recipe": None, "dataset": None, "metric": None, "selection": None, "test": None}
    read = folder / run_folder.RESULT
    try:
        result = run_folder.read_json(read)
        if result is not None and (folder / run_folder.RECIPE).is_file():
            return {**row, **_of_result(result), "state": FINISHED, "why": None}
        read = folder / run_folder.RECIPE
        return {**row, **_of_recipe(read), "state": UNFINISHED, "why": None}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        why = f"{read.name}: {type(error).__name__}: {error}"
    except UserError as error:
        why = f"{read.name}: {error.problems[0].given}"
    return {**row, "state": DAMAGED, "why": why[:_LONGEST]}


def _of_recipe(path: Path) -> dict[str, Any]:
    sections = shipped.read_sections(path, ("about", "data"))
    return {"recipe": _text(sections["about"]["name"]), "dataset": _text(sections["data"]["card"])}


def _of_result(result: Any) -> dict[str, Any]:
    """Return a result's part of a row.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It is not what `fit` writes.
    """
    told = {name: _text(result[name]) for name in ("recipe", "dataset", "metric")}
    metric, scored = told["metric"], {split: result[split] for split in ("selection", "test")}
    if any(scores is not None for scores in scored.values()):  # a fit can end without both: nothing held out or opened
        check_run(*scored.values(), metric, result["seed"], None)
    return told | {split: None if scores is None else round(scores[metric], 4) for split, scores in scored.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where text should stand")
    return value
