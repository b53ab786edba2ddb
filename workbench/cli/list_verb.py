"""`workbench list`: what recipes, architectures, weights, datasets and runs there are. Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from workbench import card_files, recipe_files, shipped
from workbench.cli.listing import print_rows
from workbench.specs import weights
from workbench.specs.architectures import ARCHS, count_madds, count_parameters
from workbench.specs.compared import FAMILIES, NOT_BUILT
from workbench.specs.compared_weights import COMPARED_WEIGHTS
from workbench.specs.errors import UserError
from workbench.specs.paper_models import paper_model, printed


def _recipes() -> list[dict[str, Any]]:
    rows = []
    for name in (*recipe_files.list_recipes(), *recipe_files.list_protocols()):
        about = shipped.read_yaml(shipped.RECIPES / f"{name}.yaml").get("about", {})
        rows.append({"recipe": name, "summary": about.get("summary", "")})
    return rows


def _archs() -> list[dict[str, Any]]:
    return [
        {
            "arch": name,
            "width": scaling.width,
            "depth": scaling.depth,
            "resolution": scaling.resolution,
            "parameters": sum(count_parameters(scaling, 1000).values()),
            "gmadds": round(count_madds(scaling, 1000) / 1e9, 3),
        }
        for name, scaling in ARCHS.items()
    ]


def _weights() -> list[dict[str, Any]]:
    return [
        {
            "weights": entry.name,
            "arch": entry.arch,
            "top1": entry.top1,
            "resolution": entry.preprocessing.crop,
            "resize": entry.preprocessing.resize,
            "interpolation": entry.preprocessing.interpolation,
            "padding": entry.padding,
            "bn_eps": entry.bn_eps,
            "megabytes": entry.megabytes,
            "source": entry.repository or entry.url,
            "licence": entry.licence,
        }
        for entry in (*weights.WEIGHTS, *COMPARED_WEIGHTS)
    ]


def _compared() -> list[dict[str, Any]]:
    """Return the networks that the paper compares with, and for those that cannot be built here, why."""
    archs = {**{name: family.library for name, family in FAMILIES.items()}, **NOT_BUILT}
    rows = []
    for arch, built_by in archs.items():
        row = paper_model(arch)
        figures = {name: printed(row, name) if row else "" for name in ("params_m", "flops_b", "top1")}
        rows.append(
            {
                "arch": arch,
                "title": row.title if row else FAMILIES[arch].title,
                "built_by": built_by if arch in FAMILIES else f"not built: {built_by}",
                **{f"paper_{name}": figure for name, figure in figures.items()},
            }
        )
    return rows


def dataset_rows() -> list[dict[str, Any]]:
    """Return what each shipped card says, a row per dataset."""
    cards = [card_files.load_card(name) for name in card_files.list_cards()]
    return [
        {
            "dataset": card.name,
            "title": card.title,
            "classes": card.num_classes,
            "train": card.sizes.train,
            "selection": card.sizes.selection,
            "test": card.sizes.test,
            "metric": card.metric,
            "sources": ", ".join(source.kind for source in card.sources if card.layout != "blossoms"),
            "licence": card.licence,
        }
        for card in cards
    ]


def _runs(folder: str) -> list[dict[str, Any]]:
    from workbench.analysis.run_list import list_runs

    return list_runs(Path(folder))


_LISTS = {"recipes": _recipes, "archs": _archs, "weights": _weights, "compared": _compared, "datasets": dataset_rows}
_RUNS = "runs"
_COLUMNS = {
    "weights": ("weights", "arch", "top1", "megabytes", "licence"),
    "datasets": ("dataset", "classes", "train", "selection", "test", "metric", "licence"),
}
"""Of tables whose rows hold more than fits a line; all others show every key."""


@click.command()
@click.argument("what", type=click.Choice([*_LISTS, _RUNS]))
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(what: str, folder: str | None, as_json: bool) -> None:
    """List recipes, archs, networks the paper compares with, weights, datasets, or the runs in a folder.

    \b
    workbench list recipes
    workbench list runs                 (those in runs/, finished or not)
    workbench list runs sweeps/flowers --json
    """  # noqa: D301 - click needs the character that \b stands for
    if folder is not None and what != _RUNS:
        raise UserError.of(f"list {what}", folder, "a folder only after `list runs`", f"leave {folder} out")
    rows = _runs(folder or _RUNS) if what == _RUNS else _LISTS[what]()
    print_rows(rows, as_json, _COLUMNS.get(what, ()))
