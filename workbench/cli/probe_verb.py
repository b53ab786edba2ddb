"""`workbench probe`: the best linear head on an unchanged network, from embeddings."""

from __future__ import annotations

import sys

import click

from workbench import recipe_files
from workbench.cli.app import SETTINGS
from workbench.specs.errors import UserError

MOST_STRENGTH = 1e4
"""On blossoms' 320 features accuracy was the same from 100 to 1e4; from some 1e6 on, the zero that the solver starts
from counts as solved."""


def numbers(option: str, kind: type = int, least: float = 1, most: float = sys.float_info.max):
    """Return click's reader of a comma-separated list of numbers from `least` (of fractions: above it) to `most`."""

    def read(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple:
        try:
            found = tuple(kind(word) for word in text.split(",")) if text else ()
        except ValueError:
            found = (None,)
        if any(value is None or not least <= value <= most for value in found) or 0 in found:
            what = "whole numbers from 1" if kind is int else "numbers above 0"
            what += f", up to {most:g}" if most < sys.float_info.max else ""
            raise UserError.of(f"probe: {option}", text, f"{what}, separated by commas", f"as in {option} 1,5,10")
        return tuple(sorted(set(found)))

    return read


@click.command(context_settings=SETTINGS)
@click.option("--recipe", "recipe_name", required=True, metavar="FILE", help="A recipe file, or a shipped one's name.")
@click.option("--stage", metavar="NAME", help="Take that stage's pooled output, such as stage5; no model is written.")
@click.option("--flips", is_flag=True, help="Train on mirrored pictures too.")
@click.option(
    "--strengths",
    callback=numbers("--strengths", float, 0, MOST_STRENGTH),
    metavar="A,B,...",
    help="Of the penalty, tried on selection; without it nine from 1e-6 to 1; for parts of train 1e-5 to 1e3.",
)
@click.option("--knn", "neighbours", callback=numbers("--knn"), metavar="K,...", help="Also by K nearest neighbours.")
@click.option("--shots", callback=numbers("--shots"), metavar="N,...", help="Also with N training images per class.")
@click.option("--draws", type=click.IntRange(1), default=5, show_default=True, help="Draws of those images.")
@click.option(
    "--fractions",
    callback=numbers("--fractions", float, 0),
    metavar="A,B,...",
    help="In place of a run: a learning curve over these shares of train; test stays closed.",
)
@click.option("--out", default="curve", show_default=True, metavar="FOLDER", help="Where that curve goes.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE ...]")
def command(recipe_name: str, strengths: tuple[float, ...], overrides: tuple[str, ...], **options) -> None:
    """Embed every image once, solve for the head, open test once; the last line printed is the run folder.

    \b
    workbench probe --recipe flowers_b0 data.root=~/sets
    workbench probe --recipe flowers_b0 --flips --knn 1,5,20 --shots 1,5,10
    workbench probe --recipe flowers_b0 --fractions .1,.25,.5,1 --out curve
    """  # noqa: D301 - click needs the character that \b stands for
    loaded = recipe_files.load(recipe_name, overrides)
    fractions, out = options.pop("fractions"), options.pop("out")
    if fractions:
        from workbench.cli.curve_verb import probe_fractions

        probe_fractions(loaded.recipe, fractions, strengths, out, options)
        return
    from workbench.cli.probe_tables import print_probe
    from workbench.training.probe import ProbeOptions, probe

    outcome = probe(loaded.recipe, ProbeOptions(strengths=strengths or None, **options))
    print_probe(outcome.result)
    print(outcome.folder)
