"""`workbench show`: a recipe's values and where each came from, or the keys that there are. Without torch."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path

import click

from workbench import recipe_files, shipped
from workbench.cli.app import SETTINGS
from workbench.cli.listing import table_lines, terminal_width
from workbench.specs.recipe import Recipe


@click.command(context_settings=SETTINGS)
@click.argument("recipe_name", required=False, metavar="RECIPE")
@click.option("--keys", is_flag=True, help="Print every key with its meaning, unit and source instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE ...]")
def command(recipe_name: str | None, keys: bool, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Print a recipe's values with where each came from."""
    if keys:
        _print_keys()
        return
    if recipe_name is None:
        raise click.UsageError("name a recipe, or add --keys")
    loaded = recipe_files.load(recipe_name, overrides)
    rows = recipe_files.explain(loaded)
    if as_json:
        print(json.dumps({key: {"value": value, "source": source} for key, value, source in rows}, indent=1))
        return
    texts = [(key, json.dumps(value), _short(source)) for key, value, source in rows]
    print("\n".join(table_lines(texts, terminal_width())))


def _short(source: str) -> str:
    """Name a file within reach from here, and a shipped one as `recipes/NAME`, instead of by its whole path."""
    for base, shown in ((shipped.RECIPES, "recipes"), (Path.cwd(), "")):
        if Path(source).is_relative_to(base):
            return str(Path(shown, Path(source).relative_to(base)))
    return source


def _print_keys() -> None:
    for section in dataclasses.fields(Recipe):
        print(f"{section.name}: {section.default_factory.__doc__.splitlines()[0]}")
        for field in dataclasses.fields(section.default_factory):
            meta = field.metadata
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            parts = [
                f"default {json.dumps(default)}",
                meta["unit"],
                " | ".join(map(str, meta["choices"])),
                meta["source"],
            ]
            told = f"{section.name}.{field.name}: {meta['doc']} [{'; '.join(filter(None, parts))}]"
            wrapped = {"initial_indent": "  ", "subsequent_indent": "      ", "break_on_hyphens": False}
            print("\n".join(textwrap.wrap(told, terminal_width(), **wrapped)))
