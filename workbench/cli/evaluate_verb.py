"""`workbench evaluate`: score a finished run or model again."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import click

from workbench.cli.app import SETTINGS


@click.command(context_settings=SETTINGS)
@click.argument("model", metavar="RUN_OR_MODEL")
@click.option("--split", type=click.Choice(["test", "selection"]), default="test", show_default=True)
@click.option("--without-leaks", is_flag=True, help="Score also without images that training images are copies of.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE ...]")
def command(model: str, split: str, without_leaks: bool, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Score a finished run or model; opening test is recorded beside the model.

    \b
    workbench evaluate runs/quickstart/20261123-101500-a1b2c3
    workbench evaluate MODEL_FOLDER --split selection data.root=/elsewhere
    workbench evaluate RUN data.eval_resolution=256 data.eval_resize=292
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.cli.tables import print_evaluation
    from workbench.cli.waiting import waiting
    from workbench.training.evaluate import evaluate

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it tells of absent GPUs, and advertises
    warnings.filterwarnings("ignore", module="lightning")
    with waiting(f"scoring {model} on {split}", is_still=True):
        evaluation = evaluate(model, split, overrides, without_leaks)
    if as_json:
        print(json.dumps(evaluation, indent=1))
    else:
        print_evaluation(evaluation)
        used, own = evaluation["preprocessing"], evaluation["own_preprocessing"]
        told = "as the model says" if used == own else f"by these keys; the model says {_sizes(own)}"
        print(f"pictures: {_sizes(used)}, {told}")


def _sizes(preprocessing: dict[str, Any]) -> str:
    side = "both sides" if preprocessing["squash"] else "shorter side"
    return f"{side} to {preprocessing['resize']}, centre crop {preprocessing['crop']}"
