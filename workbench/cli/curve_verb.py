"""`workbench curve`: how a score grew with training images over finished runs; and the card that `probe` prints too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.specs.errors import UserError

if TYPE_CHECKING:
    from workbench.analysis.learning_curve_runs import Curve
    from workbench.specs.recipe import Recipe


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUN_OR_FOLDER...")
@click.option("--split", type=click.Choice(["selection", "test"]), default="selection", show_default=True)
@click.option("--but", multiple=True, metavar="KEY", help="A recipe key that may differ along with the fraction.")
@click.option(
    "--out", default="curve", show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder."
)
def command(paths: tuple[str, ...], split: str, but: tuple[str, ...], out: Path) -> None:
    """Put runs that differ in data.train_fraction and seed on one curve, and say what twice the images would bring.

    \b
    workbench curve runs/flowers_b0_cpu --out curve
    workbench curve runs/quarter runs/half runs/whole --but train.total_steps
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.analysis.learning_curve_runs import curve_of_runs

    show(curve_of_runs(paths, split, but), out)


def probe_fractions(
    recipe: Recipe, fractions: tuple[float, ...], strengths: tuple[float, ...], out: str, options: dict[str, Any]
) -> None:
    """Do what `probe --fractions` asks for.

    Args:
        recipe: A checked recipe.
        fractions: Shares of train.
        strengths: Of the penalty; none for the default grid.
        out: Folder of the card.
        options: The verb's others: `draws`, `stage`, `flips`, `neighbours`, `shots`.

    Raises:
        UserError: Nearest neighbours or few shots too; or anything that `probe` would refuse.
    """
    options = dict(options)
    if options.pop("neighbours") or options.pop("shots"):
        remedy = "ask for them without --fractions"
        raise UserError.of("probe: --fractions", "together with --knn or --shots", "--fractions alone", remedy)
    from rich.console import Console

    from workbench.analysis.probe_curve import CurveOptions, probe_curve
    from workbench.atomic import disk_errors
    from workbench.training.interrupts import interruptible
    from workbench.training.log_file import logging_to
    from workbench.training.softmax_probe import STRENGTHS

    folder = Path(out)
    with disk_errors(folder, "give --out another place"):
        folder.mkdir(parents=True, exist_ok=True)
        with interruptible(), logging_to(folder, Console(stderr=True)):
            curve = probe_curve(recipe, CurveOptions(fractions, strengths=strengths or STRENGTHS, **options))
    show(curve, folder)


def show(curve: Curve, out: Path) -> None:
    """Write a curve's card; print its table, its line and where it lies."""
    from workbench.analysis.learning_curve_page import briefly, make_card, sections, write_card
    from workbench.analysis.report_pages import line
    from workbench.atomic import disk_errors

    card = make_card(curve)
    with disk_errors(out, "give --out another place"):
        written = write_card(card, out)
    measured = sections(card)[0]
    print("\n".join([line(measured.header), "|" + " --- |" * len(measured.header), *map(line, measured.rows)]))
    for note in measured.notes:
        print(f"note: {note}")
    print(briefly(card))
    for path in written:
        print(path)
