"""`workbench validate`: check recipes without running them. Without torch."""

from __future__ import annotations

import sys

import click

from workbench import recipe_files
from workbench.specs.errors import UserError
from workbench.specs.printable import printable


@click.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE ...]")
def command(recipes: tuple[str, ...]) -> None:
    """Check recipes, all shipped ones if none is named; every mistake is printed."""
    problems = []
    for name in recipes or recipe_files.list_recipes():
        try:
            recipe_files.load(name)
            print(f"{printable(name)}: fine", file=sys.stdout)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
