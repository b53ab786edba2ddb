"""A learning curve by probing: images embedded once, a head solved for on parts of train. Test stays closed."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench import card_files
from workbench.analysis.learning_curve import Measured
from workbench.analysis.learning_curve_runs import DRAWS, Curve, scored_images, spread_of
from workbench.data import splits
from workbench.data.fractions import rows_of_part
from workbench.data.image_datamodule import ImageDataModule
from workbench.specs.errors import UserError
from workbench.specs.metric_names import LOSS
from workbench.specs.recipe import Recipe
from workbench.training import building, machine
from workbench.training.embeddings import Embedded, check_stage, embedded_split, join
from workbench.training.recipe_numbers import Lengths
from workbench.training.results import SplitResult
from workbench.training.schedules import PhasePlan
from workbench.training.softmax_probe import FEW_STRENGTHS, is_at_rim, solve

log = logging.getLogger("workbench")


@dataclass(frozen=True)
class CurveOptions:
    """How a curve is probed.

    Args:
        fractions: Shares of train, in (0, 1].
        draws: Of each share below 1; the first is that of `data.train_fraction`.
        strengths: Of the penalty.
        stage: Whose pooled output is taken; that before the head if None.
        flips: Train on mirrored pictures too.
    """

    fractions: tuple[float, ...]
    draws: int = 5
    strengths: tuple[float, ...] = FEW_STRENGTHS
    stage: str | None = None
    flips: bool = False


def probe_curve(recipe: Recipe, options: CurveOptions) -> Curve:
    """Embed train and selection once and measure the curve.

    Raises:
        UserError: Fractions out of range, nothing to score on, or anything that `probe` would refuse.
    """
    if odd := [fraction for fraction in options.fractions if not 0 < fraction <= 1]:
        raise UserError.of("probe: --fractions", f"{odd[0]:g}", "above 0, up to 1", "as in --fractions .1,.25,.5,1")
    if recipe.model.head != "linear":
        raise UserError.of("probe: model.head", recipe.model.head, "linear: it is solved for", "add model.head=linear")
    recipe = building.settle(recipe)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, train_on="train"))  # selection scores
    data = building.build_data(recipe, card_files.card_for(recipe))
    if len(data.rows(splits.SELECTION)) < 2:
        given, remedy = "fewer than 2 images in selection", "hold some out: data.holdout_fraction"
        raise UserError.of("probe: --fractions", given, "images to score on", remedy)
    device = machine.accelerator(recipe.train.device)
    lengths = Lengths(1, 1, (PhasePlan("head", 1, recipe.optim.lr),), 1)
    torch.manual_seed(recipe.train.seed)  # where there are no weights, the same random ones each time
    classifier = building.build_classifier(recipe, data, lengths)
    classifier.to("cuda" if device == "gpu" else "cpu").eval()
    how = {"stage": check_stage(classifier, options.stage)}
    how["precision"] = machine.choose_precision(recipe.train.precision, device)
    train = [embedded_split(classifier, data, splits.TRAIN, **how)]
    train += [embedded_split(classifier, data, splits.TRAIN, mirrored=True, **how)] if options.flips else []
    selection = embedded_split(classifier, data, splits.SELECTION, **how)
    scaling = classifier.net.scaling.name
    title = f"probe of {scaling}, {how['stage']}, {recipe.model.weights or 'random weights'} on {data.card.name}"
    return curve_of_embedded(join(*train), selection, data, options, title)


def curve_of_embedded(
    train: Embedded, selection: Embedded, data: ImageDataModule, options: CurveOptions, title: str
) -> Curve:
    """Measure the curve on features.

    Args:
        train: Of the training rows; a row may be there more than once, as mirrored.
        selection: Of the images to score on.
        data: Whose table the rows are of.
        options: What is measured.
        title: For people.
    """
    folds = halves([data.table.ids[row] for row in selection.rows])
    rows, measured, at_rim = np.unique(train.rows), [], 0
    labels = scored_images(_result(selection, torch.zeros(len(selection.rows), data.num_classes), data.metric))[0]
    for fraction in sorted(set(options.fractions)):
        for draw in range(options.draws if fraction < 1 else 1):
            part = rows_of_part(data.table, rows, fraction, f"/draw{draw}" if draw else "")
            own = train.take(np.flatnonzero(np.isin(train.rows, part)))
            grid = solve(own.features, own.targets, data.num_classes, options.strengths)
            logits, chosen = _cross_fitted([one.logits(selection.features) for one in grid], selection, folds, data)
            at_rim += sum(is_at_rim(options.strengths[number], options.strengths) for number in chosen)
            result = _result(selection, logits, data.metric)
            right, spread = scored_images(result)[1], spread_of(result)
            source = f"draw {draw}, strengths " + " and ".join(f"{options.strengths[n]:.3g}" for n in chosen)
            measured.append(Measured(len(part), result.scores()[data.metric], right, draw, source, spread))
            log.info("%d images, draw %d: %s %.4f", len(part), draw, data.metric, measured[-1].score)
    notes = [
        "the penalty's strength is chosen on one half of the selection images (by a hash of their ids) for the other, "
        "so that no image is scored by a strength that it chose",
        *data.table.stamps,
    ]
    if at_rim:
        notes.append(f"{at_rim} of {2 * len(measured)} chosen strengths are at the rim of the grid: widen --strengths")
    return Curve(title, data.metric, splits.SELECTION, labels, _distinct(measured), DRAWS, tuple(notes))


def _distinct(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """Leave out what repeats a number of images by another fraction, as tiny sets have it."""
    return tuple({(one.num_images, one.repeat): one for one in measured}.values())


def halves(ids: Sequence[str]) -> np.ndarray:
    """Return (N,) bool that halves images by a hash of their ids, to one image alike."""
    order = np.argsort([hashlib.sha256(f"workbench/halves/{name}".encode()).hexdigest() for name in ids])
    second = np.zeros(len(ids), dtype=bool)
    second[order[1::2]] = True
    return second


def _result(embedded: Embedded, logits: Tensor, metric: str) -> SplitResult:
    return SplitResult(splits.SELECTION, metric, logits, embedded.targets, torch.from_numpy(embedded.rows))


def _cross_fitted(
    grid: Sequence[Tensor], selection: Embedded, folds: np.ndarray, data: ImageDataModule
) -> tuple[Tensor, list[int]]:
    """Return (N, classes) logits, each half's by the strength that is best on the other; and those two strengths."""
    logits, chosen = torch.empty_like(grid[0]), []
    for fold in (folds, ~folds):
        other = np.flatnonzero(~fold)
        scores = [_result(selection.take(other), one[torch.from_numpy(other)], data.metric).scores() for one in grid]
        best = max(range(len(grid)), key=lambda number: (scores[number][data.metric], -scores[number][LOSS]))
        logits[torch.from_numpy(fold)] = grid[best][torch.from_numpy(fold)]
        chosen.append(best)
    return logits, chosen
