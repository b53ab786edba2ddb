"""Accuracy from a few training images per class: drawn several times, so that the spread of the draw is seen too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.data.order import derive_seed
from workbench.training.embeddings import Embedded
from workbench.training.results import SplitResult
from workbench.training.softmax_probe import solve


def drawn(targets: Tensor, shots: int, seed: int, draw: int) -> Tensor:
    """Return the positions of `shots` images of every class, of all where it has fewer; of one draw, each in the next.

    Args:
        targets: (N,) int64 classes.
        shots: Images per class.
        seed: The recipe's seed.
        draw: Number of the draw.

    Returns:
        Rising positions: those of 5 shots are among those of 10 of the same draw.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(derive_seed(seed, "shots", draw)))
    by_class = order[targets[order].argsort(stable=True)]
    counts = torch.bincount(targets)
    place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[targets[by_class]]
    return by_class[place < shots].sort().values


def few_shot(
    train: Embedded,
    selection: SplitResult,
    features: Tensor,
    strengths: Sequence[float],
    *,
    shots: Sequence[int],
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Solve on several draws of a few images per class, and score each on the selection split.

    Args:
        train: Embedded training images.
        selection: Any result on the selection split: gives its targets and the metric.
        features: (N, F) of the selection split.
        strengths: Tried for every number of shots; the one with the best mean over draws is taken.
        shots: Images per class.
        draws: Draws of each.
        seed: The recipe's seed.

    Returns:
        Per number of shots its `images`, `strength`, and the `mean`, `lowest` and `highest` score over the `draws`.
    """
    rows, num_classes = [], selection.logits.shape[1]
    for count in shots:
        scores: dict[float, list[float]] = {strength: [] for strength in strengths}
        for draw in range(draws):
            part = train.take(drawn(train.targets, count, seed, draw))
            for solution in solve(part.features, part.targets, num_classes, strengths):
                logits = solution.logits(features)
                result = SplitResult(selection.split, selection.metric, logits, selection.targets, selection.rows)
                scores[solution.strength].append(result.scores()[selection.metric])
        best = max(strengths, key=lambda strength: sum(scores[strength]))
        found = scores[best]
        row = {"shots": count, "images": len(part.rows), "draws": draws, "strength": best}
        rows.append({**row, "mean": sum(found) / draws, "lowest": min(found), "highest": max(found)})
    return rows
