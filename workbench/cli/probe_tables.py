"""Tables of a probe for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from workbench.cli.tables import _console, _percent, _plain
from workbench.training.run_page import score_rows


def print_probe(result: dict[str, Any]) -> None:
    """Print a probe's result: the grid, what else was asked for, and the scores of the head that was chosen."""
    found, metric, console = result["probe"], result["metric"], _console()
    grid = Table("strength", metric, "loss", "iterations", title=_plain(f"{result['recipe']}: on the selection split"))
    for row in found["grid"]:
        mark = " *" if row["strength"] == found["strength"] else ""
        grid.add_row(
            f"{row['strength']:g}{mark}", f"{100 * row[metric]:.2f} %", f"{row['loss']:.4f}", str(row["iterations"])
        )
    console.print(grid)
    if "nearest" in found:
        table = Table("nearest neighbours", metric)
        for row in found["nearest"]:
            table.add_row(str(row["neighbours"]), f"{100 * row[metric]:.2f} %{_percent(row['interval95'])}")
        console.print(table)
    if "few_shot" in found:
        table = Table("images per class", "in all", f"mean {metric}", "lowest", "highest", "draws", "strength")
        for row in found["few_shot"]:
            scores = (f"{100 * row[name]:.2f} %" for name in ("mean", "lowest", "highest"))
            table.add_row(str(row["shots"]), str(row["images"]), *scores, str(row["draws"]), f"{row['strength']:g}")
        console.print(table)
    table = Table(
        "score", "selection", "test", title=_plain(f"{result['arch']}, {found['stage']}, on {result['dataset']}")
    )
    for name, selection, test in score_rows(result):
        interval = (result["test"] or {}).get("interval95") if name == metric else None
        table.add_row(name, selection, test + _percent(interval))
    console.print(table)
    counts = ", ".join(f"{result[split]['n']} {split}" for split in ("selection", "test") if result[split])
    seconds = found["seconds"]
    console.print(f"n = {counts}; embedding {seconds['embedding']:.1f} s, solving {seconds['solving']:.1f} s")
    for stamp in result["stamps"]:
        console.print(_plain(f"note: {stamp}"))
