"""report.html of one run: a single self-contained page, made from the run folder's own files.

Only its pictures need the images and the model; `workbench page RUN` makes a page again with or without them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, select_autoescape
from safetensors import SafetensorError
from safetensors.numpy import load_file

from workbench.data.splits import SELECTION, TEST
from workbench.models.portable import DESCRIPTION
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.specs.metric_names import SCORES
from workbench.training import page_charts, page_classes, page_settings, run_folder
from workbench.training.metrics_csv import read_metrics
from workbench.training.page_classes import Outputs
from workbench.training.page_mistakes import MOST_MISTAKES, add_pictures, mistakes

if TYPE_CHECKING:
    from workbench.data.image_datamodule import ImageDataModule
    from workbench.training.classifier import EfficientNetClassifier
    from workbench.training.results import SplitResult

log = logging.getLogger("workbench")

NO_PICTURES = "No pictures: the images or the model were not there when this page was made."


def write_page(
    folder: Path,
    result: dict[str, Any],
    shown: SplitResult | None,
    data: ImageDataModule,
    classifier: EfficientNetClassifier | None = None,
) -> None:
    """Write report.html at the end of a run, which it never fails: what goes wrong is logged, but for a full disk.

    Args:
        folder: A run folder with every other file but result.json.
        result: What result.json will hold.
        shown: The split whose classes and mistakes are listed, or None if nothing was evaluated.
        data: Gives names and images.
        classifier: Draws where it looked; None leaves pictures out.
    """
    try:
        outputs = None
        if shown is not None:
            ids = tuple(data.table.ids[row] for row in shown.rows.tolist())
            logits, targets = shown.logits.float().numpy(), shown.targets.numpy()
            outputs = Outputs(shown.split, tuple(data.classes), ids, logits, targets)
        images = None
        if outputs is not None and classifier is not None:
            rows = shown.rows.tolist()
            images = {rows_place: data.table.images[rows[rows_place]] for rows_place in _places(outputs)}
        text = render(folder, result, outputs, classifier, images)
    except Exception as error:  # a page is no reason to lose a fit
        log.warning("report.html was not made: %s: %s", type(error).__name__, error)
        return
    run_folder.write_text(folder / run_folder.PAGE, text)


def remake(folder: Path, data: ImageDataModule | None = None, classifier: EfficientNetClassifier | None = None) -> Path:
    """Make a finished run's page again from its files.

    Args:
        folder: A finished run folder.
        data: Its set, for pictures.
        classifier: Its model, for pictures.

    Returns:
        The page.

    Raises:
        UserError: Not a finished run, or a file in it is damaged.
    """
    run_folder.existing(folder)
    remedy = "finish the run with `workbench fit --resume RUN`, or give another"
    if not (folder / run_folder.RESULT).is_file():
        raise UserError.of("page", f"{folder}: no {run_folder.RESULT} in it", "a finished run", remedy)
    try:
        result = run_folder.read_json(folder / run_folder.RESULT)
        outputs = _stored_outputs(folder, result)
        images = None
        if outputs is not None and data is not None and classifier is not None:
            by_id = {name: row for row, name in enumerate(data.table.ids)}
            places = {place: by_id.get(outputs.ids[place]) for place in _places(outputs)}
            images = {place: data.table.images[row] for place, row in places.items() if row is not None}
        text = render(folder, result, outputs, classifier, images)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, IndexError, yaml.YAMLError) as error:
        given = f"a file that does not fit the others: {type(error).__name__}: {error!s:.200}"
        raise UserError.of(folder, given, "the files as the run wrote them", "restore them, or run again") from error
    run_folder.write_text(folder / run_folder.PAGE, text)
    return folder / run_folder.PAGE


def _places(outputs: Outputs) -> list[int]:
    return [] if outputs.is_multi_label else outputs.worst(MOST_MISTAKES)


def _stored_outputs(folder: Path, result: Mapping[str, Any]) -> Outputs | None:
    """Return what the page shows of logits.safetensors: test, else selection; None without the file or its names."""
    split = TEST if result.get("test") else SELECTION
    description = run_folder.read_json(folder / DESCRIPTION)
    if not result.get(split) or description is None or not (folder / run_folder.LOGITS).is_file():
        return None
    tensors, ids = load_file(folder / run_folder.LOGITS), run_folder.read_json(folder / run_folder.SPLITS)[split]
    logits, targets = tensors[split].astype(np.float32), tensors[f"{split}_targets"]
    classes = tuple(description["classes"])
    if logits.shape != (len(ids), len(classes)) or len(targets) != len(ids):
        raise ValueError(f"{run_folder.LOGITS} has {logits.shape}, not {len(ids)} images and {len(classes)} classes")
    return Outputs(split, classes, tuple(ids), logits, targets)


def render(
    folder: Path,
    result: Mapping[str, Any],
    outputs: Outputs | None,
    classifier: EfficientNetClassifier | None,
    images: Mapping[int, Any] | None,
) -> str:
    """Return the page's HTML.

    Args:
        folder: The run folder, whose other files it reads.
        result: result.json's content.
        outputs: Of the split that is shown, or None.
        classifier: Draws pictures.
        images: The image at a place of `outputs`, of those that pictures can be drawn of; None for no pictures.
    """
    recipe = (folder / run_folder.RECIPE).read_text(encoding="utf-8")
    values, splits = yaml.safe_load(recipe), run_folder.read_json(folder / run_folder.SPLITS) or {}
    description = run_folder.read_json(folder / DESCRIPTION) or {}
    phases = [page_settings.trained(phase) for phase in (values.get("train") or {}).get("phases") or []]
    title = f"{page_settings.name_of(result['arch'])} on {page_settings.title_of(result, values)}"
    environment = Environment(
        loader=PackageLoader("workbench.training", "."), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    page = environment.get_template("run_page.jinja").render(
        result=result,
        title=title,
        about=values.get("about") or {},
        headline=page_settings.headline(result),
        scores=page_settings.scores(result),
        scored=[name for name in (SELECTION, TEST) if result.get(name)],
        others=page_settings.others(result),
        settings=page_settings.settings(result, values, splits.get("counts", {})),
        curves=page_charts.curves(read_metrics(folder / run_folder.METRICS), result, phases),
        chart={name: getattr(page_charts, name) for name in ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM")},
        recipe=recipe,
        command=(folder / run_folder.COMMAND).read_text(encoding="utf-8").strip(),
        environment=run_folder.read_json(folder / run_folder.ENVIRONMENT) or {},
        hashes={"images and labels": splits.get("labels_sha256"), "model.safetensors": description.get("sha256")},
        **(_of_outputs(outputs, description.get("calibration"), classifier, images) if outputs else {"split": ""}),
    )
    return without_secrets(page)


def _of_outputs(
    outputs: Outputs,
    calibration: Mapping[str, Any] | None,
    classifier: EfficientNetClassifier | None,
    images: Mapping[int, Any] | None,
) -> dict[str, Any]:
    """Return what the template takes of a split's outputs."""
    made = {"split": outputs.split, "multi_label": outputs.is_multi_label, "classes": page_classes.class_rows(outputs)}
    if outputs.is_multi_label:
        return made
    found, note = mistakes(outputs), NO_PICTURES
    if classifier is not None and images is not None:
        drawn = [mistake for mistake in found if mistake["place"] in images]
        note = add_pictures(drawn, classifier, [images[mistake["place"]] for mistake in drawn])
        note = note or (NO_PICTURES if len(drawn) < len(found) else "")
    right = outputs.predicted == outputs.targets
    confidence = outputs.probabilities[np.arange(len(right)), outputs.predicted]
    bins, error = page_charts.reliability(confidence, right)
    made |= {"bins": bins, "ece": error, "wrong": int((~right).sum()), "calibration": calibration}
    if calibration:
        tempered = outputs.tempered(calibration["temperature"]).max(1)
        made["ece_after"] = page_charts.reliability(tempered, right)[1]
    pairs, drawn_matrix = page_classes.confused_pairs(outputs), page_classes.matrix(outputs)
    return {**made, "mistakes": found, "note": note if found else "", "pairs": pairs, "matrix": drawn_matrix}


def score_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (score, selection, test) as text, in percent where that is the unit."""
    rows = []
    for name in SCORES:
        cells = []
        for split in ("selection", "test"):
            value = (result.get(split) or {}).get(name)
            cells.append("" if value is None else f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %")
        if any(cells):
            rows.append((name, *cells))
    return rows
