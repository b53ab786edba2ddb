"""`workbench data`: list the datasets, fetch and prepare one, find what is wrong with one."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from workbench import recipe_files
from workbench.cli.app import SETTINGS
from workbench.specs.card import DatasetCard

WRONG = 3
"""Exit code of a doctor that found something that can make a figure wrong."""
_OVERRIDES = click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[DATA.KEY=VALUE ...]")


@click.group()
def command() -> None:
    """List the datasets; fetch and prepare one; find what is wrong with one."""


@command.command("list", context_settings=SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_OVERRIDES
def list_datasets(as_json: bool, overrides: tuple[str, ...]) -> None:
    """Say what the datasets are and which are prepared under data.root."""
    from workbench.card_files import load_card
    from workbench.cli.list_verb import dataset_rows
    from workbench.cli.listing import print_rows
    from workbench.data.prepared import place_name, read_manifest

    base, rows = _base(recipe_files.load_data("folder", overrides).recipe.data), dataset_rows()
    for row in rows:
        manifest = read_manifest(base / place_name(load_card(row["dataset"]), None))
        row["prepared"] = manifest and sum(manifest.counts.values())
    print_rows(rows, as_json, ("dataset", "classes", "train", "selection", "test", "sources", "prepared"))


def _base(data: Any) -> Path:
    return Path(data.prepared_root or Path(data.root) / "prepared")


@command.command(context_settings=SETTINGS)
@click.argument("name")
@click.option("--again", is_flag=True, help="Fetch and prepare anew, whatever is there.")
@_OVERRIDES
def prepare(name: str, again: bool, overrides: tuple[str, ...]) -> None:
    """Fetch a dataset, look at every picture once and keep it ready; the last line printed is the folder.

    \b
    workbench data prepare pets data.root=~/sets
    workbench data prepare folder data.path=photos
    workbench data prepare hub data.hub.id=owner/name
    """  # noqa: D301 - click needs the character that \b stands for
    loaded = recipe_files.load_data(name, overrides)
    folder, _ = _prepared(loaded, again)
    print(folder)


def _prepared(loaded: recipe_files.LoadedRecipe, again: bool = False) -> tuple[Path, Any]:
    """Return (folder, manifest) of a set, prepared now if need be, and say what it holds."""
    from workbench.data import prepared

    card, data = loaded.card, loaded.recipe.data
    path = Path(data.path) if data.path else None
    folder = _base(data) / prepared.place_name(card, path)
    manifest = prepared.read_manifest(folder)
    if again or not manifest or not prepared.needs_no_look(manifest, card, Path(data.root), path):
        folder = _prepare(card, data, path, again)
        manifest = prepared.read_manifest(folder)
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items())
    bad = f", {manifest.num_bad} of them bad" if manifest.num_bad else ""
    text = f"{card.name}: {counts} images{bad}, {len(manifest.classes)} classes, from {manifest.source}"
    print(text, *(f"note: {stamp}" for stamp in manifest.stamps), sep="\n", file=sys.stderr)
    return folder, manifest


def _prepare(card: DatasetCard, data: Any, path: Path | None, again: bool) -> Path:
    from workbench.data.preparing import prepare

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("workbench").setLevel(logging.INFO)
    began = time.perf_counter()
    base = Path(data.prepared_root) if data.prepared_root else None
    folder = prepare(card, Path(data.root), path, prepared_root=base, download=data.download, again=again)
    print(f"{time.perf_counter() - began:.1f} s", file=sys.stderr)
    return folder


@command.command(context_settings=SETTINGS)
@click.argument("name")
@click.option("--resolution", type=click.IntRange(1), default=224, show_default=True, help="The model's input, pixels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--page", metavar="FILE", help="Where the page with pictures goes; beside the prepared set if not given.")
@_OVERRIDES
def doctor(name: str, resolution: int, as_json: bool, page: str | None, overrides: tuple[str, ...]) -> None:
    """Look for what can make a figure wrong: broken pictures, copies across splits, conflicting labels, and more.

    Exit code 0: nothing that can make a figure wrong; 3: something.

    \b
    workbench data doctor flowers data.root=~/sets
    workbench data doctor folder data.path=photos --resolution 380
    """  # noqa: D301 - click needs the character that \b stands for
    loaded = recipe_files.load_data(name, overrides)
    folder, _ = _prepared(loaded)
    from workbench.atomic import disk_errors
    from workbench.cli.tables import print_report
    from workbench.data.doctor import examine_prepared
    from workbench.data.doctor_page import write_doctor_page

    table, report = examine_prepared(folder, loaded.card, loaded.recipe.data.holdout_fraction, resolution)
    where = Path(page) if page else folder / "doctor.html"
    with disk_errors(where, "write elsewhere with --page FILE"):
        write_doctor_page(where, report, table, loaded.card.title or loaded.card.name)
    if as_json:
        print(json.dumps({"dataset": name, **report.to_dict(), "page": str(where)}, indent=1))
    else:
        print_report(name, report)
        print(where)
    sys.exit(0 if report.is_clean else WRONG)
