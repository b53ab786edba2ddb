"""Classifier heads on pooled features. A head is any module from (N, features) to (N, classes)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

COSINE_SCALE = 30.0
"""Factor on cosine similarities, so that softmax can be confident; a guess, in the range used for faces (16-64)."""


class CosineHead(nn.Module):
    """Cosine similarity of features and class vectors, times a constant.

    Args:
        in_features: Size of the pooled features.
        num_classes: Number of class vectors.
    """

    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_features))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, num_classes) logits in [-COSINE_SCALE, COSINE_SCALE] for (N, in_features)."""
        return COSINE_SCALE * functional.linear(functional.normalize(features), functional.normalize(self.weight))


def build_head(name: str, in_features: int, num_classes: int, dropout: float) -> nn.Module:
    """Build a head by name.

    Args:
        name: `linear` (the paper's), `mlp` (one hidden layer as wide as the features, SiLU), `cosine`, or `none`
            (the features themselves).
        in_features: Size of the pooled features.
        num_classes: Outputs.
        dropout: Dropout on the features, and on the hidden layer of `mlp`.

    Raises:
        ValueError: Unknown name.
    """
    if name == "linear":
        return nn.Sequential(nn.Dropout(dropout), _linear(in_features, num_classes))
    if name == "mlp":
        hidden = _linear(in_features, in_features)
        return nn.Sequential(
            nn.Dropout(dropout), hidden, nn.SiLU(), nn.Dropout(dropout), _linear(in_features, num_classes)
        )
    if name == "cosine":
        return nn.Sequential(nn.Dropout(dropout), CosineHead(in_features, num_classes))
    if name == "none":
        return nn.Identity()
    raise ValueError(f"no such head: {name}; there are linear, mlp, cosine, none")


def _linear(in_features: int, out_features: int) -> nn.Linear:
    """Initialise as tensorflow/tpu does: uniform within 1/sqrt(outputs), bias 0."""
    layer = nn.Linear(in_features, out_features)
    bound = 1 / math.sqrt(out_features)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer
