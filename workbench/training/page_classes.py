"""The classes of a run's page: how each fared, which are confused, and the confusion matrix as a picture."""

from __future__ import annotations

import base64
import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from torch import from_numpy
from torchmetrics.functional.classification import binary_average_precision

FEW_CLASSES = 12
"""Up to so many the matrix is a table of numbers, above it a picture; a choice of this project."""
MOST_PAIRS, MOST_CELLS = 25, 20_000
"""Pairs that are listed, and confusions that the picture can tell of: about 300 kB of the page."""
_OPTIMAL_ORDER = 400
"""Up to so many classes leaves are turned to lie best: the time grows with their cube."""
_RIGHT, _WRONG = (14, 124, 102), (214, 69, 28)
"""Colours of the diagonal and of confusions; both stand out on white and on black."""


@dataclass(frozen=True)
class Outputs:
    """A model's outputs on one split, with names.

    Args:
        split: `selection` or `test`.
        classes: Names.
        ids: Of the N images.
        logits: (N, classes) float32.
        targets: (N,) int64 classes; (N, classes) of 0 and 1 in a multi-label set.
    """

    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    logits: np.ndarray
    targets: np.ndarray

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return self.targets.ndim == 2

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """(N, classes) float32, of a single-label set."""
        return self.tempered(1.0)

    def tempered(self, temperature: float) -> np.ndarray:
        """Return probabilities (N, classes) float32 of the logits divided by a temperature."""
        shifted = (self.logits - self.logits.max(1, keepdims=True)) / np.float32(temperature)
        powers = np.exp(shifted, out=shifted)
        return powers / powers.sum(1, keepdims=True)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """(N,) int64: the answers."""
        return self.logits.argmax(1)

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """(classes, classes) int64 counts; rows are the truth."""
        counts = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(counts, (self.targets, self.predicted), 1)
        return counts

    def worst(self, most: int) -> list[int]:
        """Return the places of the most confident mistakes, most confident first."""
        wrong = np.flatnonzero(self.predicted != self.targets)
        sure = self.probabilities[wrong, self.predicted[wrong]]
        return wrong[np.argsort(-sure, kind="stable")][:most].tolist()


def class_rows(outputs: Outputs) -> list[dict[str, Any]]:
    """Return each class that has images, or was answered: name, n, shares in [0, 1] or None; worst first.

    Of a single-label set `right`, `precision`, `taken_for` and `times`; of a multi-label set `average_precision`.
    """
    if outputs.is_multi_label:
        return _multi_label_rows(outputs)
    counts, rows = outputs.confusion, []
    answered = counts.sum(0)
    for label, name in enumerate(outputs.classes):
        own, right = int(counts[label].sum()), int(counts[label, label])
        others = counts[label].copy()
        others[label] = 0
        if own or answered[label]:
            rows.append(
                {
                    "name": name,
                    "n": own,
                    "right": right / own if own else None,
                    "precision": right / int(answered[label]) if answered[label] else None,
                    "taken_for": outputs.classes[int(others.argmax())] if others.any() else "",
                    "times": int(others.max()),
                }
            )
    return sorted(rows, key=lambda row: (row["right"] is None, row["right"], -row["n"]))


def _multi_label_rows(outputs: Outputs) -> list[dict[str, Any]]:
    scores, truth = from_numpy(outputs.logits).sigmoid(), from_numpy(outputs.targets).long()
    rows = []
    for label, name in enumerate(outputs.classes):
        count = int(truth[:, label].sum())
        share = float(binary_average_precision(scores[:, label], truth[:, label])) if count else None
        rows.append({"name": name, "n": count, "average_precision": share})
    return sorted(rows, key=lambda row: (row["average_precision"] is None, row["average_precision"]))


def confused_pairs(outputs: Outputs) -> list[dict[str, Any]]:
    """Return the classes most often taken for each other, both ways together: `first`, `second`, `times`, counts."""
    counts, classes = outputs.confusion, outputs.classes
    both = np.triu(counts + counts.T, 1)
    places = [divmod(int(i), len(classes)) for i in np.argsort(-both, axis=None, kind="stable")[:MOST_PAIRS]]
    return [
        {
            "first": classes[i],
            "second": classes[j],
            "times": int(both[i, j]),
            "forth": f"{counts[i, j]} of {counts[i].sum()}",
            "back": f"{counts[j, i]} of {counts[j].sum()}",
        }
        for i, j in places
        if both[i, j]
    ]


def similarity_order(outputs: Outputs) -> list[int]:
    """Return the classes in an order in which those that the model finds alike are neighbours.

    Clustered (average linkage) by the Hellinger affinity of the classes' mean probabilities; a class without images
    counts as sure of itself.
    """
    size = len(outputs.classes)
    if size < 3:
        return list(range(size))
    means = np.eye(size)
    for label in np.unique(outputs.targets):
        means[label] = outputs.probabilities[outputs.targets == label].mean(0)
    roots = np.sqrt(means)
    distances = (1 - roots @ roots.T).clip(0, 1)
    np.fill_diagonal(distances, 0)
    near = squareform((distances + distances.T) / 2, checks=False)
    tree = linkage(near, "average")
    return leaves_list(optimal_leaf_ordering(tree, near) if size <= _OPTIMAL_ORDER else tree).tolist()


def matrix(outputs: Outputs) -> dict[str, Any]:
    """Return the confusion matrix as the page draws it.

    Returns:
        `names` in the order drawn, `totals` of the rows; of few classes `rows` of counts, else `picture` (a data URI of
        a PNG with a pixel per cell) and `cells`: (row, column, count) of those that are not 0, the largest first.
    """
    order = similarity_order(outputs)
    counts = outputs.confusion[np.ix_(order, order)]
    made = {"names": [outputs.classes[i] for i in order], "totals": counts.sum(1).tolist()}
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    if len(order) <= FEW_CLASSES:
        return {**made, "rows": counts.tolist(), "shares": shares.round(3).tolist()}
    rows, columns = np.nonzero(counts)
    largest = np.argsort(-counts[rows, columns], kind="stable")[:MOST_CELLS]
    cells = np.stack([rows, columns, counts[rows, columns]], 1)[largest].tolist()
    return {**made, "picture": _picture(shares), "cells": cells}


def _picture(shares: np.ndarray) -> str:
    """Draw a cell per pixel; of the root of its share, so that a single confusion among many is still seen."""
    size = len(shares)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(size, dtype=bool)[..., None], _RIGHT, _WRONG)
    pixels[..., 3] = np.where(shares > 0, 100 + 155 * np.sqrt(shares), 0).astype(np.uint8)
    return data_uri(Image.fromarray(pixels), "PNG", optimize=True)


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """Return a picture as a data: address.

    Args:
        picture: What to encode.
        kind: `PNG` or `JPEG`.
        options: Pillow's, of that kind.
    """
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
