"""The leaderboard: every trial of a sweep, best first, as rows, CSV and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from workbench.training import run_folder

FINISHED, STOPPED, FAILED, RUNNING = "finished", "stopped early", "failed", "unfinished"
_ORDER = (FINISHED, STOPPED, RUNNING, FAILED)


@dataclass(frozen=True)
class Row:
    """One trial.

    Args:
        trial: Its number, from 0.
        state: One of the words above.
        value: The metric on the selection split; of a trial that was stopped, the last logged.
        num_images: Images of the selection split.
        values: Its parameters.
        steps: Steps of the fit.
        seconds: Time of the fit.
        run: Run folder, or empty.
        error: Why it failed, or empty.
    """

    trial: int
    state: str
    value: float | None
    num_images: int | None
    values: dict[str, Any]
    steps: int | None
    seconds: float | None
    run: str
    error: str


def ranked(rows: Sequence[Row], higher_is_better: bool) -> list[tuple[int | None, Row]]:
    """Return (rank, row): the finished by their value, then the others without a rank."""

    def place(row: Row) -> tuple:
        value = row.value if row.value is not None else float("-inf" if higher_is_better else "inf")
        return _ORDER.index(row.state), -value if higher_is_better else value, row.trial

    ordered = sorted(rows, key=place)
    return [(rank if row.state == FINISHED else None, row) for rank, row in enumerate(ordered, 1)]


def write(path: Path, metric: str, names: Sequence[str], rows: Sequence[tuple[int | None, Row]]) -> None:
    """Write leaderboard.csv.

    Args:
        path: The file.
        metric: Its name is a column's.
        names: Parameters, a column each.
        rows: As `ranked` returns them.
    """
    header = ["rank", "trial", "state", metric, "n", "steps", "seconds", "run", "error", *names]
    table = []
    for rank, row in rows:
        facts = (rank, row.trial, row.state, row.value, row.num_images, row.steps, row.seconds, row.run, row.error)
        table.append([*facts, *(row.values.get(name) for name in names)])
    run_folder.write_rows(path, header, table)


def table(title: str, metric: str, names: Sequence[str], rows: Sequence[tuple[int | None, Row]]) -> Table:
    """Return the leaderboard for a terminal."""
    columns = "rank", "trial", "state", metric, "n", *map(escape, names), "steps", "seconds", "run"
    made = Table(*columns, title=escape(title))
    for rank, row in rows:
        value = "" if row.value is None else f"{row.value:.4f}"
        numbers = [_short(row.values.get(name)) for name in names]
        rest = (_short(row.steps), "" if row.seconds is None else f"{row.seconds:.0f}", escape(row.error or row.run))
        made.add_row(_short(rank), str(row.trial), row.state, value, _short(row.num_images), *numbers, *rest)
    return made


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else escape(str(value))
