"""Two runs on the same test images, paired image by image, and what chance could make of the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from workbench.analysis.compare_files import TestedRun
from workbench.specs.errors import UserError
from workbench.specs.metric_names import MEAN_PER_CLASS, TOP1, TOP5

RESAMPLES = 10_000
BOOTSTRAP, NORMAL = f"paired bootstrap, {RESAMPLES} resamples", "paired, normal, within classes"
_SEED = 0
_WITHIN = {TOP5: 5}
_Z = 1.959963984540054


@dataclass(frozen=True)
class Paired:
    """What two runs say of the same images; arrays are (N,), in the order of the first run's predictions.

    Args:
        ids: Images.
        classes: Name of each image's true class.
        answers: Of each run, the predicted class's name.
        confidences: Of each run.
        ranks: Of each run, the rank of the true class, from 1.
    """

    ids: tuple[str, ...]
    classes: np.ndarray
    answers: tuple[np.ndarray, np.ndarray]
    confidences: tuple[np.ndarray, np.ndarray]
    ranks: tuple[np.ndarray, np.ndarray]

    def right(self, run: int, within: int = 1) -> np.ndarray:
        """Return whether the true class is among a run's `within` best answers."""
        return self.ranks[run] <= within


def check_same_images(first: TestedRun, second: TestedRun) -> None:
    """Refuse two runs that were not tested on the same images.

    Raises:
        UserError: Other datasets, ids, labels or scores, and how many.
    """
    names = first.result["dataset"], second.result["dataset"]
    remedy = "compare runs of one set, with the same data.path and the same test split"
    if names[0] != names[1]:
        raise UserError.of("compare", f"{names[0]} and {names[1]}", "two runs on the same dataset", remedy)
    labels = [{row["id"]: row.get("class", "") for row in run.rows} for run in (first, second)]
    only = [len(labels[0].keys() - labels[1].keys()), len(labels[1].keys() - labels[0].keys())]
    if any(only):
        both = len(labels[0].keys() & labels[1].keys())
        given = f"{only[0]} test images are only in {first.folder}, {only[1]} only in {second.folder}, {both} in both"
        raise UserError.of("compare", given, "two runs tested on the same images", remedy)
    moved = [name for name, label in labels[0].items() if labels[1][name] != label]
    if moved:
        given = f"{len(moved)} of {len(labels[0])} test images have another class in the second run, such as {moved[0]}"
        given += f": {labels[0][moved[0]]!r} and {labels[1][moved[0]]!r}"
        raise UserError.of("compare", given, "the same classes", "compare runs on the same labels")
    if first.result["metric"] != second.result["metric"]:
        given = f"{first.result['metric']} and {second.result['metric']}"
        raise UserError.of("compare", given, "runs judged by the same score", "use the same dataset card for both")


def pair(first: TestedRun, second: TestedRun) -> Paired:
    """Pair two runs by image.

    Raises:
        UserError: They were not tested on the same images.
    """
    check_same_images(first, second)
    ids = tuple(row["id"] for row in first.rows)
    other = {row["id"]: row for row in second.rows}
    ordered = first.rows, [other[name] for name in ids]
    return Paired(
        ids,
        np.array([row["class"] for row in first.rows]),
        tuple(np.array([row["predicted"] for row in rows]) for rows in ordered),
        tuple(np.array([float(row["confidence"]) for row in rows]) for rows in ordered),
        tuple(np.array([int(row["class_rank"]) for row in rows]) for rows in ordered),
    )


def score(paired: Paired, run: int, metric: str) -> float:
    """Return a run's score on the paired images: `top1`, `top5` or `mean_per_class`."""
    right = paired.right(run, _WITHIN.get(metric, 1))
    if metric == MEAN_PER_CLASS:
        return float(np.mean([right[rows].mean() for rows in _by_class(paired).values()]))
    return float(right.mean())


def _by_class(paired: Paired) -> dict[str, np.ndarray]:
    """Return each class's images, as rows."""
    names, label = np.unique(paired.classes, return_inverse=True)
    rows = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    return dict(zip(map(str, names), rows, strict=True))


def difference95(paired: Paired, metric: str) -> tuple[float, float]:
    """Return a 95 % interval of (second - first) over images, both answers of each together.

    An image counts +1, 0 or -1. For top1 and top5 it is a paired bootstrap: a resample is a draw of how many of each
    there are. For mean_per_class, where drawing within classes of few images would show too little, see `_by_class95`.

    Args:
        paired: The runs.
        metric: `top1`, `top5` or `mean_per_class`.
    """
    within = _WITHIN.get(metric, 1)
    change = paired.right(1, within).astype(int) - paired.right(0, within).astype(int)
    if metric == MEAN_PER_CLASS:
        return _by_class95([change[rows] for rows in _by_class(paired).values()])
    n = len(change)
    rng = np.random.default_rng(_SEED)
    counts = rng.multinomial(n, [(change == sign).sum() / n for sign in (1, -1, 0)], size=RESAMPLES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975])
    return float(low), float(high)


def _by_class95(changes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return a 95 % interval of the mean over classes of each class's mean change: normal, within classes.

    The variance is as in `metrics.interval95` (a choice of this project): each class's own, and the n-th that its n
    images do not show taken of all together, V = sum of (v + W/n) / n over classes, over classes squared; W counts half
    an image more that changed each way, as Agresti and Min 2005 (Statistics in Medicine 24) add to each cell.

    Simulated coverage, 4,000 draws each, of 50 classes of which the second run wins 20 % and loses 10 %: 94.8, 94.6,
    94.7, 94.8, 95.3 % for 1, 2, 3, 5, 20 images a class;
    wins 2 %, loses 1 %: 93.5 to 99.8; of 10 classes 90.5 to 100.

    Args:
        changes: Per class, +1, 0 or -1 of each image.
    """
    counts = np.array([len(own) for own in changes])
    mean = float(np.mean([own.mean() for own in changes]))
    variances = np.array([own.var() for own in changes])
    moved = np.mean([np.abs(own).mean() for own in changes])
    pooled = (moved * counts.sum() + 1) / (counts.sum() + 2) - mean**2
    half = _Z * float(np.sqrt(((variances + pooled / counts) / counts).sum())) / len(changes)
    return max(-1.0, mean - half), min(1.0, mean + half)


def mcnemar(lost: int, won: int) -> float:
    """Return McNemar's exact two-sided p: whether images that changed sides did so evenly.

    Args:
        lost: Images that only the first run has right.
        won: Images that only the second run has right.
    """
    return float(binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0


def class_rows(paired: Paired) -> list[dict[str, Any]]:
    """Return each class's images, right answers of both runs, wins and losses of the second; biggest change first."""
    rows = []
    for name, own in _by_class(paired).items():
        first, second = paired.right(0)[own], paired.right(1)[own]
        won, lost = int((second & ~first).sum()), int((first & ~second).sum())
        counts = {"n": len(own), "first_right": int(first.sum()), "second_right": int(second.sum())}
        rows.append({"class": name, **counts, "won": won, "lost": lost, "net": won - lost})
    return sorted(rows, key=lambda row: (-abs(row["net"]) / row["n"], row["class"]))


def flips(paired: Paired, won: bool) -> list[dict[str, Any]]:
    """Return the images that changed sides, those of which the second run is most confident first.

    Args:
        paired: The runs.
        won: Those that became right; else those that became wrong.
    """
    first, second = paired.right(0), paired.right(1)
    chosen = np.flatnonzero(second & ~first if won else first & ~second)
    chosen = chosen[np.argsort(-paired.confidences[1][chosen], kind="stable")]
    return [
        {
            "id": paired.ids[i],
            "flip": "wrong to right" if won else "right to wrong",
            "class": str(paired.classes[i]),
            "first_answer": str(paired.answers[0][i]),
            "first_confidence": float(paired.confidences[0][i]),
            "second_answer": str(paired.answers[1][i]),
            "second_confidence": float(paired.confidences[1][i]),
        }
        for i in chosen
    ]


def agreement(paired: Paired) -> dict[str, int]:
    """Count images by what both runs say of them."""
    first, second, same = paired.right(0), paired.right(1), paired.answers[0] == paired.answers[1]
    return {
        "same answer": int(same.sum()),
        "both right": int((first & second).sum()),
        "only first right": int((first & ~second).sum()),
        "only second right": int((second & ~first).sum()),
        "both wrong, same answer": int((~first & ~second & same).sum()),
        "both wrong, different answers": int((~first & ~second & ~same).sum()),
    }


def scores_shown(metric: str, names: Sequence[str] = (TOP1, TOP5, MEAN_PER_CLASS)) -> list[str]:
    """Return the scores of a comparison, the dataset's own first."""
    return [metric, *(name for name in names if name != metric)]
