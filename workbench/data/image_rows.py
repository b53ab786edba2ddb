"""Items and batches: a row of a table becomes a decoded, transformed image with its target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from workbench.data.images import load_for_crop, load_image
from workbench.data.order import seeded
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
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    epoch: int


class ImageRows(Dataset):
    """Decoded and transformed images of some rows of a table.

    Items are asked for by position, or by (epoch, position) for training: the pair seeds the item's augmentation.

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

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, Tensor, int, int] | Problem:
        epoch, position = item if isinstance(item, tuple) else (0, item)
        row = int(self.rows[position])
        try:
            with seeded(self.seed, "image", epoch, position):
                return self._input(row), self.targets[row], row, epoch
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
    images, targets, rows, epochs = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(targets), torch.tensor(rows), epochs[0])
