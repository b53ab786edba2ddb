"""Let a datamodule keep its training and selection pictures decoded and scaled, where that pays."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np

from workbench.data import splits
from workbench.data.pixel_choice import OFF, RAW, Choice, Wanted, choose, keep
from workbench.data.pixels import Kept
from workbench.data.prepared import PreparedImages

if TYPE_CHECKING:
    from workbench.data.image_datamodule import ImageDataModule

log = logging.getLogger("workbench")
SIDE_SHARE = 8 / 7
"""Kept shorter side over the crop's: what evaluation commonly resizes to over what it crops, 256 / 224."""


def keep_pixels(
    data: ImageDataModule, asked: str, side: int | None, epochs: float, earlier: Choice | None = None
) -> Choice:
    """Make or open the stores that a fit reads from, and let its loaders use them.

    The test split is read once in a run and stays in the set.

    Args:
        data: The datamodule; its prepared set is found or made first.
        asked: `off`, `auto`, `jpeg` or `raw`.
        side: Shorter side of training pictures, pixels; None: the larger of the evaluation resize and `SIDE_SHARE` of
            the training crop.
        epochs: How often each picture will be seen.
        earlier: What the fit began with, if it is resumed.

    Raises:
        UserError: What was asked for does not fit the disk.
    """
    choice = Choice(OFF, 0, "the set's pictures are not files")
    if isinstance(data.table.images, PreparedImages):
        preprocessing, facts = data.preprocessing, data.facts
        side = side or max(preprocessing.resize, math.ceil(SIDE_SHARE * data.resolution))
        side = earlier.side if earlier else side
        evaluation = Kept(RAW, preprocessing.resize, preprocessing.interpolation, preprocessing)
        training = evaluation if data.crop == "center" else Kept(RAW, side, preprocessing.interpolation)
        rows, selection = data.rows(splits.TRAIN), data.rows(splits.SELECTION)
        shared = np.union1d(rows, selection) if data.train_fraction == 1 else rows  # train+selection reads them too
        sizes = np.stack([facts["height"], facts["width"]], axis=1)
        place = data.table.images.folder
        wanted = Wanted(place, data.table.images, sizes, training, shared, evaluation, selection)
        choice = earlier or choose(wanted, asked, epochs)
        choice, stores = keep(wanted, choice, asked, earlier is not None)
        data.pixels = dict(zip((splits.TRAIN, splits.SELECTION), stores, strict=True))
    kept = f", shorter side {choice.side} px" if choice.kind != OFF else ""
    log.info("prepared pixels: %s%s: %s", choice.kind, kept, choice.reason)
    return choice
