"""Mixup and cutmix as a function of the effective batch, whatever parts it comes in."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from workbench.data.image_rows import Batch
from workbench.data.order import seeded


def mixed(
    images: Tensor,
    before: Tensor | None,
    batch: Batch,
    alphas: tuple[float, float],
    probability: float,
    num_classes: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Mix each image with the one before it in the effective batch, the first with the last.

    What is drawn depends on seed, epoch and that batch only: torchvision's transforms draw the same numbers whatever
    the number of images, and take the image before as partner.

    Args:
        images: (N, 3, H, W) float32, normalised.
        before: (1, 3, H, W) of the image before them, or None if they are the whole effective batch.
        batch: What they came in.
        alphas: Of mixup's and cutmix's beta distributions; 0 for without. Of two, each batch takes one at random.
        probability: Of mixing a batch at all.
        num_classes: Classes.
        seed: The recipe's.

    Returns:
        The images, and targets (N, num_classes) float32, or as they were if this batch is not mixed.
    """
    kinds = [
        kind(alpha=float(alpha), num_classes=num_classes)
        for kind, alpha in zip((v2.MixUp, v2.CutMix), alphas, strict=True)
        if alpha
    ]
    with seeded(seed, "mix", batch.epoch, batch.first):
        if float(torch.rand(())) >= probability:
            return images, batch.targets
        if before is None:
            return v2.RandomChoice(kinds)(images, batch.targets)
        targets = torch.cat([batch.before[1], batch.targets])
        images, targets = v2.RandomChoice(kinds)(torch.cat([before, images]), targets)
        return images[1:], targets[1:]
