"""Finished runs that differ by their part of train and by seed, as the measurements of a learning curve."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.analysis.learning_curve import Measured
from workbench.analysis.report_groups import plain
from workbench.analysis.report_runs import RUN, RunScore, find_runs
from workbench.data import splits
from workbench.data.fractions import part_stamp
from workbench.models.tensor_files import read_tensors
from workbench.specs.errors import UserError
from workbench.specs.metric_names import TOP5
from workbench.training import run_folder
from workbench.training.kept_features import bytes_of
from workbench.training.metrics import ranks
from workbench.training.results import SplitResult

FRACTION = "data.train_fraction"
SEEDS, DRAWS = "seeds", "draws"
_NAMED = 8
_DRAWN_AGAIN = 100
"""Draws of the scored images for the spread of a score that is no mean: it is then known to some 7 %."""
_ROUNDING = 1e-6
"""By which a score may change between machines that add in another order."""


@dataclass(frozen=True)
class Curve:
    """Trainings on parts of one set, all scored on the same images.

    Args:
        title: What was trained, for people.
        metric: The score.
        split: Which images were scored: `selection` or `test`.
        labels: (N,) class of each scored image; 0 where an image can have several.
        measured: The trainings.
        repeats: `SEEDS` or `DRAWS`: what differs between trainings on one number of images.
        notes: What a reader must know.
    """

    title: str
    metric: str
    split: str
    labels: np.ndarray
    measured: tuple[Measured, ...]
    repeats: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scored:
    """A run's measurement, the images that it was scored on, by id, and a digest of what it answered."""

    measured: Measured
    ids: tuple[str, ...]
    labels: np.ndarray
    answers: str


def curve_of_runs(paths: Iterable[str | Path], split: str = splits.SELECTION, but: Sequence[str] = ()) -> Curve:
    """Read the runs of a curve.

    Args:
        paths: Run folders or folders of them (a sweep's too).
        split: Which of their splits is read; test only of runs that opened it themselves.
        but: Recipe keys that may differ along with the fraction, as `train.total_steps`.

    Raises:
        UserError: No run, runs that differ otherwise or were scored on other images, or damaged files.
    """
    runs, left_out = find_runs(paths)
    runs = [run for run in runs if run.source == RUN]
    if not runs:
        found = "; ".join(f"{entry.name}: {entry.reason}" for entry in left_out[:_NAMED]) or "none"
        raise UserError.of("curve", f"no finished run: {found}", "finished run folders", "finish some fits first")
    notes = [f"left out: {entry.name}: {entry.reason}" for entry in left_out]
    notes += [f"differs too: {told}" for told in _check_alike(runs, but)]
    lacking = [run.name for run in runs if getattr(run, split) is None]
    if lacking:
        raise UserError.of(
            "curve",
            f"{len(lacking)} of {len(runs)} runs have no scores on {split}, such as {lacking[0]}",
            f"runs that were scored on {split}",
            "name the other split with --split, or leave these runs out",
        )
    scored: dict[tuple[int, Any], _Scored] = {}
    answers: dict[tuple[int, str], str] = {}
    for run in sorted(runs, key=lambda run: run.name):
        one = _read(run, split)
        notes += [f"{run.name}: {flag}" for flag in run.flags]
        if (place := (one.measured.num_images, run.seed)) in scored:
            notes.append(f"not counted, the same seed and part again: {run.name}")
        elif (twin := answers.setdefault((place[0], one.answers), run.name)) != run.name:
            notes.append(f"not counted, {run.name} answers as {twin} does: nothing in it depends on the seed")
            continue
        scored.setdefault(place, one)
    first = next(iter(scored.values()))
    for one in scored.values():
        if one.ids != first.ids or not np.array_equal(one.labels, first.labels):
            raise UserError.of(
                "curve",
                f"{one.measured.source} and {first.measured.source} were scored on different {split} images or labels",
                "runs scored on the same images",
                "give runs of one set with the same data.holdout_fraction",
            )
    if split == splits.SELECTION and runs[0].settings["train.pick"] == "best":
        notes.append("the selection images also chose the weights of each run (train.pick=best): scores a little high")
    if split == splits.SELECTION and "probe" in runs[0].settings:
        notes.append("the selection images also chose the penalty's strength of each probe: scores a little high")
    title = f"{runs[0].recipe}: {runs[0].arch} on {runs[0].dataset}"
    measured = tuple(scored[place].measured for place in sorted(scored, key=lambda p: (p[0], p[1] is None, p[1])))
    return Curve(title, runs[0].metric, split, first.labels, measured, SEEDS, tuple(notes))


def _check_alike(runs: Sequence[RunScore], but: Sequence[str]) -> list[str]:
    """Return what differs although it may; refuse what else differs between runs than fraction and seed."""
    told = [
        {
            "dataset": run.dataset,
            "arch": run.arch,
            "metric": run.metric,
            **{key: value for key, value in run.compared.items() if key != FRACTION},
            "stamps": [stamp for stamp in run.stamps if stamp != part_stamp(run.settings[FRACTION])],
        }
        for run in runs
    ]
    values = {key: dict.fromkeys(plain(one.get(key)) for one in told) for key in {k: 0 for one in told for k in one}}
    differing = {key: ", ".join(texts) for key, texts in values.items() if len(texts) > 1}
    if wrong := [f"{key}: {texts}" for key, texts in differing.items() if key not in but]:
        more = f"; and {len(wrong) - _NAMED} more keys" if len(wrong) > _NAMED else ""
        raise UserError.of(
            "curve",
            f"runs that differ in {'; '.join(wrong[:_NAMED])}{more}",
            f"runs that differ in {FRACTION} and train.seed only",
            "leave the others out; or, if it belongs together, allow a key with --but KEY",
        )
    return [f"{key}: {texts}" for key, texts in differing.items()]


def _read(run: RunScore, split: str) -> _Scored:
    """Read which images a run was scored on, and which of them it has right.

    Raises:
        UserError: A file is missing or damaged, or they do not belong together.
    """
    folder = Path(run.name)
    told = run_folder.read_json(folder / run_folder.SPLITS) or {}
    tensors = read_tensors(folder / run_folder.LOGITS, "curve")
    ids, score = told.get(split, []), getattr(run, split)[run.metric]
    logits, targets = tensors.get(split), tensors.get(f"{split}_targets")
    if logits is None or targets is None or not len(ids) == len(logits) == len(targets) or not told["counts"]["train"]:
        given = f"{folder}: {run_folder.SPLITS} and {run_folder.LOGITS} do not tell of the same {split} images"
        raise UserError.of("curve", given, "the files that `fit` wrote", "restore them, or leave this run out")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    result = SplitResult(split, run.metric, logits, targets, torch.arange(len(ids)))
    if abs(result.scores()[run.metric] - score) > _ROUNDING:
        given = f"{folder}: {run_folder.LOGITS} gives another {run.metric} than {run_folder.RESULT}"
        raise UserError.of("curve", given, "the files that `fit` wrote", "restore them, or leave this run out")
    labels, right = scored_images(result)
    right = None if right is None else right[order]
    measured = Measured(told["counts"]["train"], score, right, run.seed, run.name, spread_of(result))
    digest = hashlib.sha256(bytes_of(logits)).hexdigest()
    return _Scored(measured, tuple(ids[i] for i in order), labels[order], digest)


def scored_images(result: SplitResult) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (N,) labels and whether each image counts as right; in a multi-label set (N,) of 0, and None."""
    if result.is_multi_label:
        return np.zeros(len(result.targets), dtype=np.int64), None
    within = min(5, result.logits.shape[1]) if result.metric == TOP5 else 1
    return result.targets.numpy(), ranks(result.logits, result.targets).numpy() <= within


def spread_of(result: SplitResult) -> float | None:
    """Return the standard deviation of a score over images drawn again, where it is no mean over images; else None."""
    if not result.is_multi_label:
        return None
    rng, scores = np.random.default_rng(0), []
    for _ in range(_DRAWN_AGAIN):
        rows = torch.from_numpy(rng.integers(0, len(result.targets), len(result.targets)))
        again = SplitResult(result.split, result.metric, result.logits[rows], result.targets[rows], rows)
        scores.append(again.scores()[result.metric])
    return float(np.std(scores, ddof=1))
