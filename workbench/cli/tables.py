"""Tables for the terminal: results, evaluations, plans."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.cli.listing import WIDTH, terminal_width
from workbench.recipe_files import LoadedRecipe
from workbench.specs.printable import printable

if TYPE_CHECKING:
    from workbench.data.doctor import Report


def _console() -> Console:
    # A pipe gets room for whole lines; a terminal decides for itself.
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=terminal_width(piped=WIDTH))


def _plain(text: str) -> str:
    """Return text from outside as it stands: rich takes nothing in it for markup, a terminal nothing for a command."""
    return escape(printable(text))


def _percent(interval: list[float] | None) -> str:
    return "" if interval is None else f" (95 %: {100 * interval[0]:.2f} to {100 * interval[1]:.2f})"


def _score(name: str, scores: dict[str, Any] | None, metric: str) -> str:
    if scores is None:
        return "no image left"
    interval = scores["interval95"] if name == metric else None
    return f"{scores[name]:.4f}" if name == "loss" else f"{100 * scores[name]:.2f} %{_percent(interval)}"


def print_result(result: dict[str, Any]) -> None:
    """Print a fit's result."""
    from workbench.training.run_page import score_rows

    table = Table(
        "score", "selection", "test", title=_plain(f"{result['recipe']}: {result['arch']} on {result['dataset']}")
    )
    for name, selection, test in score_rows(result):
        interval = (result["test"] or {}).get("interval95") if name == result["metric"] else None
        table.add_row(f"[b]{name}[/b]" if name == result["metric"] else name, selection, test + _percent(interval))
    console = _console()
    console.print(table)
    counts = ", ".join(f"n = {result[s]['n']} {s}" for s in ("selection", "test") if result[s])
    published = result["published"]
    beside = f"; published: {100 * published['accuracy']:.1f} % ({published['source']})" if published else ""
    console.print(f"{counts}{beside}", markup=False)
    console.print(
        f"{result['steps']} steps, {result['images_per_second']:.0f} images/s, "
        f"{result['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
    for stamp in result["stamps"]:
        console.print(_plain(f"note: {stamp}"))


def print_ending(folder: Path, result: dict[str, Any], seconds: float | None) -> None:
    """Print how long a fit took and what can be done with it now.

    Args:
        folder: The run folder.
        result: Its result.
        seconds: From the command's start to its end; None for a run that went on, whose earlier time is not known.
    """
    steps, fit = result["train_seconds"], result["seconds"]
    parts = [f"trained in {steps:.0f} s", f"decoded ahead, validated and tested in {max(0.0, fit - steps):.0f} s"]
    if seconds is not None:
        parts.insert(0, f"prepared in {max(0.0, seconds - fit):.0f} s")
    console = _console()
    console.print(_plain(", ".join(parts)))
    run = shlex.quote(str(folder))
    console.print("[b]next[/b]")
    for line in (f"workbench predict {run} photo.jpg", f"workbench serve {run}", f"workbench report {run}"):
        print(f"  {printable(line, keep='')}")  # whole on one line, to be copied
    print(f"  the page of this run: {printable(str(folder / 'report.html'), keep='')}")


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """Print what `evaluate` found."""
    scores = evaluation["scores"]
    columns = {evaluation["split"]: scores}
    if "leaked" in evaluation:
        columns[f"without {len(evaluation['leaked'])} leaked"] = evaluation["scores_without_leaks"]
    table = Table("score", *columns, title=_plain(f"{evaluation['model']} on {evaluation['dataset']}"))
    for name, value in scores.items():
        if isinstance(value, float):
            table.add_row(name, *(_score(name, found, evaluation["metric"]) for found in columns.values()))
    console = _console()
    console.print(table)
    opened = evaluation["test_openings"]
    console.print(f"n = {scores['n']}" + (f"; test opened {opened} times by now" if opened else ""))
    for stamp in evaluation["stamps"]:
        console.print(_plain(f"note: {stamp}"))


def print_report(name: str, report: Report) -> None:
    """Print what the doctor found."""
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items() if count)
    table = Table("", "finding", title=_plain(f"{name}: {counts} images"))
    for finding in sorted(report.findings, key=lambda finding: finding.severity, reverse=True):
        table.add_row("[b]wrong[/b]" if finding.severity == "wrong" else finding.severity, _plain(finding.text))
    console = _console()
    console.print(table)
    console.print("nothing that can make a figure wrong" if report.is_clean else "look at what is marked wrong")


def print_plan(loaded: LoadedRecipe) -> None:
    """Print what a fit would do."""
    from workbench.training.plan import plan

    made, console = plan(loaded), _console()
    for what, value in made.facts:
        console.print(_plain(f"{what + ':':<17} {value}"))
    phases = Table("phase", "trains from", "steps", "peak lr", "trainable parameters", "share", title="phases")
    for number, row in enumerate(made.phases):
        share = f"{100 * row['share']:.2f} %"
        phases.add_row(
            str(number),
            row["train"],
            str(row["steps"]),
            f"{row['peak_lr']:g}",
            f"{row['trainable']:,}",
            share,
        )
    groups = Table("group", "tensors", "parameters", "peak lr", "weight decay", title="optimizer groups")
    for row in made.groups:
        rates = f"{row['peak_lr']:.4g}", f"{row['weight_decay']:g}"
        groups.add_row(row["group"], str(row["tensors"]), f"{row['parameters']:,}", *rates)
    console.print(phases)
    console.print(groups)


def print_exports(rows: list[dict[str, Any]]) -> None:
    """Print what was exported and how far it is from the model."""
    table = Table("format", "file", "MiB", "a probability differs by at most", "same class")
    for row in rows:
        size, apart = f"{row['bytes'] / 2**20:.1f}", f"{row['max_probability_difference']:.1e}"
        table.add_row(row["format"], row["file"], size, apart, f"{row['top1_agreement']:.2%}")
    console = _console()
    console.print(table)
    console.print(f"on {rows[0]['images']} images: {rows[0]['of']}", markup=False)
