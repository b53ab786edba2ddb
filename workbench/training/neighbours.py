"""Classification of embedded images by those most like them, without solving anything: k nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.07
"""A neighbour of cosine similarity s votes with exp(s / TEMPERATURE): Wu et al. 2018 (arXiv 1805.01978), 3.4."""
_CHUNK = 1 << 25
"""Similarities that are held at once."""


def nearest_logits(
    known: Tensor, labels: Tensor, wanted: Tensor, num_classes: int, neighbours: Sequence[int]
) -> dict[int, Tensor]:
    """Return the logarithm of each class's share of the votes, for several numbers of neighbours.

    Args:
        known: (M, F) features of the images that vote.
        labels: (M,) int64 their classes.
        wanted: (N, F) features of the images to classify.
        num_classes: Classes.
        neighbours: How many vote, each at most M.

    Returns:
        Number of neighbours -> (N, num_classes) float32; a class without a vote has the least finite number.
    """
    known, found = functional.normalize(known), {k: [] for k in neighbours}
    for part in functional.normalize(wanted).split(max(1, _CHUNK // len(known))):
        likeness, places = (part @ known.T).topk(max(neighbours), dim=1)
        votes = ((likeness - likeness[:, :1]) / TEMPERATURE).exp()
        for k in neighbours:
            counted = torch.zeros(len(part), num_classes).scatter_add_(1, labels[places[:, :k]], votes[:, :k])
            shares = counted / counted.sum(1, keepdim=True)
            found[k].append(shares.clamp(min=torch.finfo(torch.float32).tiny).log())
    return {k: torch.cat(parts) for k, parts in found.items()}
