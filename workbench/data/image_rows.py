"""Items and batches: a row of a table becomes a decoded, transformed image with its target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from workbench.data.images import load_for_crop, load_image
from workbench.data.order import Place, seeded
from workbench.data.pixels import PixelStore
from workbench.data.splits import ImageTable
from workbench.data.transforms import RandomCrop, Transform
from workbench.specs.errors import Problem, UserError


class Batch(NamedTuple):
    """One micro-batch.

    Args:
        images: (N, 3, H, W): uint8 from the loader, normalised float32 once on the device.
        targets: (N,) int64 classes; (N, classes) float32 in a multi-label set, and after mixup or cutmix.
        index: (N,) int64 row of each image in the set's table.
        epoch: The epoch that these images were drawn for.
        first: Row of the first image of the effective batch that this is a part of, while training.
        before: Image (1, 3, H, W), target and row of the image before these in that batch, if they are mixed with it.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    epoch: int
    first: int = -1
    before: tuple[Tensor, Tensor, int] | None = None


class Item(NamedTuple):
    """One image on its way into a batch: see `Batch` and `Place`."""

    image: Tensor
    target: Tensor
    row: int
    epoch: int
    first: int
    is_before: bool


class ImageRows(Dataset):
    """Decoded and transformed images of some rows of a table.

    Items are asked for by position, or by `Place` for training: epoch and position seed the item's augmentation.

    Args:
        table: The set.
        rows: Which of it.
        transform: What is made of each picture.
        seed: The recipe's seed.
        pixels: The pictures kept smaller, or as the transform's crop leaves them.
    """

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        transform: Transform,
        seed: int,
        pixels: PixelStore | None = None,
    ):
        self.table, self.rows, self.transform, self.seed, self.pixels = table, rows, transform, seed, pixels
        labels = torch.from_numpy(table.labels)
        self.targets = labels.float() if table.is_multi_label else labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | Place) -> Item | Problem:
        epoch, position, first, is_before = item if isinstance(item, Place) else Place(0, item, item)
        row = int(self.rows[position])
        try:
            with seeded(self.seed, "image", epoch, position):
                return Item(self._input(row), self.targets[row], row, epoch, int(self.rows[first]), is_before)
        except UserError as error:
            if get_worker_info() is None:
                raise
            return error.problems[0]  # exceptions lose their parts between processes, so it travels as an item

    def empty(self) -> Batch:
        """Return a batch of no images, of the shapes that batches have."""
        images = self._input(int(self.rows[0]))[None][:0]
        return Batch(images, self.targets[:0], torch.zeros(0, dtype=torch.int64), 0)

    def _input(self, row: int) -> Tensor:
        crop, after = self.transform.crop, self.transform.after
        if not isinstance(crop, RandomCrop):
            return after(crop(load_image(self.table.images[row])) if self.pixels is None else self.pixels[row][0])
        if self.pixels is None:
            image, box, size = load_for_crop(self.table.images[row], crop.side, crop.choose)
        else:
            image, size = self.pixels[row]
            box = crop.choose(*size)
        return after(crop.cut(image, box, size))


def collate(items: list) -> Batch | Problem:
    """Stack items, or hand on the first problem among them."""
    for item in items:
        if isinstance(item, Problem):
            return item
    own = [item for item in items if not item.is_before]
    images, targets = (torch.stack([getattr(item, name) for item in own]) for name in ("image", "target"))
    before = None
    if len(own) < len(items):
        before = items[0].image[None], items[0].target[None], items[0].row
    return Batch(images, targets, torch.tensor([item.row for item in own]), own[0].epoch, own[0].first, before)
