"""Which part of a fit trains the head alone on unchanging images, so that each needs to pass the network only once."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

from workbench.data import splits
from workbench.data.embedded_rows import EmbeddedDataModule
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.pixel_choice import group_memory
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.embeddings import embedded_split
from workbench.training.recipe_numbers import Lengths

log = logging.getLogger("workbench")


@dataclasses.dataclass(frozen=True)
class HeadOnly:
    """The leading phases of a fit that train the head alone.

    Args:
        steps: Their length, 0 if the first phase trains more.
        obstacles: Why they cannot be trained on features, with the setting that would let them; empty if they can.
    """

    steps: int
    obstacles: tuple[str, ...]


def head_only_part(data: ImageDataModule, lengths: Lengths, num_features: int) -> HeadOnly:
    """Find the leading phases that train the head alone, and what stands in the way of embedding images for them.

    Args:
        data: The set with its augmentation.
        lengths: The fit in steps.
        num_features: Of the pooled features.
    """
    steps = 0
    for phase in lengths.phases:
        if phase.train != "head":
            break
        steps += phase.steps
    told = {
        "augment.crop": (data.crop, "center"),
        "augment.policy": (data.augment.get("policy", "none"), "none"),
        "augment.cutout": (data.augment.get("cutout", 0.0), 0.0),
        "augment.mixup_alpha": (data.mixup_alpha, 0.0),
        "augment.cutmix_alpha": (data.cutmix_alpha, 0.0),
    }
    obstacles = [f"{key}={given}, not {needed}" for key, (given, needed) in told.items() if given != needed]
    if steps % lengths.epoch_steps and steps != lengths.total_steps:
        obstacles.append(f"its end at step {steps} is not the end of an epoch of {lengths.epoch_steps}")
    passes = 1 + bool(data.augment.get("flip", 0.5))
    if steps < passes * lengths.epoch_steps:
        obstacles.append(f"it is shorter than the {passes} epochs that embedding takes")
    train, *others = (len(data.rows(split)) for split in (splits.TRAIN, splits.SELECTION, splits.TEST))
    copied = max(train, *others)  # its parts and the whole are there at once while it is embedded
    size = 4 * num_features * (passes * train + sum(others) + copied)
    if size > _memory() // 2:
        obstacles.append(f"its features take {size / 2**30:.1f} GiB, over half of this machine's memory")
    return HeadOnly(steps, tuple(obstacles))


def _memory() -> int:
    """Return the bytes that this process may have at most: of what is free a restart would find another number."""
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), group_memory())


def feed(classifier: EfficientNetClassifier, data: ImageDataModule, lengths: Lengths, precision: str, done: int) -> Any:
    """Return what a fit is fed from: the set's datamodule, or one that hands out features where that gives the same.

    Args:
        classifier: The network with the weights that the fit begins with.
        data: The set.
        lengths: The fit in steps.
        precision: Lightning's word for what the fit computes in.
        done: Steps done before a restart.
    """
    part = head_only_part(data, lengths, classifier.net.num_features)
    is_whole = part.steps == lengths.total_steps
    if not part.steps or (done >= part.steps and not is_whole):
        return data
    if part.obstacles:
        if len(part.obstacles) == 1:
            log.info("the head-only phase passes every image each epoch: %s", part.obstacles[0])
        return data
    epochs = part.steps / lengths.epoch_steps
    log.info("the head-only phase of %g epochs trains on embeddings: each image passes the frozen part once", epochs)
    kept: dict[tuple[str, bool], tuple] = {}

    def features_of(split: str, mirrored: bool) -> tuple:
        if (split, mirrored) not in kept:
            made = embedded_split(classifier, data, split, mirrored=mirrored, precision=precision)
            kept[split, mirrored] = (made.features, made.targets, made.rows)
        return kept[split, mirrored]

    return EmbeddedDataModule(data, features_of, part.steps, is_whole)
