"""Read runs from a CSV that W&B's runs table exports: a row per run, columns of its config and its summary."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from pathlib import Path
from typing import Any

from workbench import card_files
from workbench.analysis.report_runs import EXPORT, SAME_RUN, SAME_RUN_KEYS, LeftOut, RunScore, own_path
from workbench.data.fractions import part_stamp
from workbench.specs.compared import resolve_backbone
from workbench.specs.errors import UserError
from workbench.specs.metric_names import SCORES, TOP1

_NEEDED = ("data.card", "model.arch")
_SECTIONS = ("data.", "model.", "augment.", "optim.", "schedule.", "train.")


def read_export(path: str | Path) -> tuple[list[RunScore], list[LeftOut]]:
    """Read an export.

    What it does not say (number of images, intervals, stamps) stays unknown; nothing is filled in.

    Args:
        path: The CSV; it needs the columns data.card and model.arch, and test/... or val/... scores.

    Returns:
        The runs, and the rows that were left out.

    Raises:
        UserError: Not such a file.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError.of(f"--wandb {path}", error, "a CSV file that W&B exported", "check the path") from error
    missing = [name for name in _NEEDED if name not in columns and not any(c.startswith(f"{name}.") for c in columns)]
    if not any(column.startswith(("test/", "val/")) for column in columns):
        missing.append("test/top1 (or another score)")
    if missing:
        raise UserError.of(
            f"--wandb {path}",
            f"no column {', '.join(missing)}",
            f"columns such as Name, {', '.join(_NEEDED)}, train.seed, test/top1",
            "show these columns in W&B's runs table, then export it again",
        )
    runs, left_out = [], []
    for number, row in enumerate(rows, 2):
        name = row.get("Name") or row.get("name") or f"{path.name} line {number}"
        made = _run({key: value for key, value in row.items() if key and value is not None}, name)
        (left_out if isinstance(made, LeftOut) else runs).append(made)
    return runs, left_out


def _run(row: dict[str, str], name: str) -> RunScore | LeftOut:
    state = row.get("State") or row.get("state") or "finished"
    if state.lower() != "finished":
        return LeftOut(name, f"W&B export: {state}")
    config = {key: _value(text) for key, text in row.items() if key.startswith(_SECTIONS)}
    stated = config.get("model.arch")
    parts = {key.removeprefix("model.arch."): value for key, value in config.items() if key.startswith("model.arch.")}
    stated = stated or {key: value for key, value in parts.items() if value is not None}
    if not config.get("data.card") or not stated:
        return LeftOut(name, "W&B export: its dataset (data.card) or architecture (model.arch) is not known")
    dataset = Path(str(config["data.card"])).stem
    metric = _metric(dataset)
    backbone, arch = None, str(stated)
    with contextlib.suppress(UserError):
        backbone = resolve_backbone(stated)
        arch = backbone.name
    scores = {split: _scores(row, split) for split in ("val", "test")}
    if not any(metric in found for found in scores.values()):
        return LeftOut(name, f"W&B export: no test/{metric} and no val/{metric} between 0 and 1")
    same = {key: value for key, value in config.items() if key not in SAME_RUN_KEYS and not key.startswith(SAME_RUN)}
    seed = config.get("train.seed")
    return RunScore(
        name=name,
        source=EXPORT,
        recipe=row.get("about.name") or row.get("Group") or "",
        dataset=dataset,
        arch=arch,
        backbone=backbone,
        metric=metric,
        selection=scores["val"] if metric in scores["val"] else None,
        test=scores["test"] if metric in scores["test"] else None,
        seed=int(seed) if isinstance(seed, int | float) else None,
        settings=same | own_path(dataset, config),
        stamps=_stamps(config.get("data.train_fraction")),
        flags=("from a W&B export: images, interval and whether the set was whole are not known",),
    )


def _stamps(train_fraction: Any) -> tuple[str, ...]:
    is_part = isinstance(train_fraction, int | float) and train_fraction < 1
    return (part_stamp(train_fraction),) if is_part else ()


def _metric(dataset: str) -> str:
    try:
        return card_files.load_card(dataset).metric
    except UserError:
        return TOP1


def _scores(row: dict[str, str], split: str) -> dict[str, float]:
    found = {name: _value(row.get(f"{split}/{name}", "")) for name in SCORES if name != "loss"}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1
    }


def _value(text: str) -> Any:
    """Return a cell as JSON has it where it is JSON, else as it stands; an empty one is None."""
    with contextlib.suppress(ValueError):
        return json.loads(text.strip().lower() if text.strip().lower() in ("true", "false", "null") else text)
    return None if text.strip().lower() in ("", "none", "undefined") else text
