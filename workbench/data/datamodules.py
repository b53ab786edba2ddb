"""LightningDataModules: a set as train, selection and test loaders, usable in anyone's Trainer.

Batches are `Batch(images, targets, index, epoch)`; `images, targets = batch[:2]` is enough for most uses. The test
split cannot be opened while a Trainer is fitting.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

from workbench import card_files
from workbench.data import splits
from workbench.data.images import load_image
from workbench.data.layouts import read_layout
from workbench.data.order import EpochBatches, seeded
from workbench.data.splits import ImageTable
from workbench.data.transforms import eval_transform, normalise, train_transform
from workbench.specs.card import DatasetCard
from workbench.specs.errors import Problem, UserError
from workbench.specs.weights import EVAL_CROP_SHARE, Preprocessing

EVAL_BATCH = 64


class Batch(NamedTuple):
    """One micro-batch.

    Args:
        images: (N, 3, H, W): uint8 from the loader, normalised float32 once on the device.
        targets: (N,) int64 classes, or (N, classes) float32 after mixup or cutmix.
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
    """

    def __init__(self, table: ImageTable, rows: np.ndarray, transform: nn.Module, seed: int):
        self.table, self.rows, self.transform, self.seed = table, rows, transform, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int, int, int] | Problem:
        epoch, position = item if isinstance(item, tuple) else (0, item)
        row = int(self.rows[position])
        try:
            image = load_image(self.table.images[row])
        except UserError as error:
            if get_worker_info() is None:
                raise
            return error.problems[0]  # exceptions lose their parts between processes, so it travels as an item
        with seeded(self.seed, "image", epoch, position):
            return self.transform(image), int(self.table.labels[row]), row, epoch


def collate(items: list) -> Batch | Problem:
    """Stack items, or hand on the first problem among them."""
    for item in items:
        if isinstance(item, Problem):
            return item
    images, labels, rows, epochs = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), torch.tensor(rows), epochs[0])


class ImageDataModule(lightning.LightningDataModule):
    """Any set that has a card.

    Args:
        root: Folder of all sets.
        card: A card's name or file, or the card itself; the named modules below know theirs.
        path: The image folder, for cards without a fixed one.
        preprocessing: Evaluation preprocessing of the weights that are fine-tuned; ImageNet's at `resolution` if None.
        resolution: Side of training crops, pixels.
        batch_size: Effective batch: images per optimizer step.
        micro_batch_size: Images per loaded batch; `batch_size` if None.
        augment: Options of `train_transform`, and `mixup_alpha`, `cutmix_alpha`, `mix_probability`.
        options: `train_on`, `holdout_fraction`, `allow_partial`, `download`, `num_workers`, `seed`.
    """

    card_name = ""
    predict_split = splits.SELECTION

    def __init__(
        self,
        root: str | Path = "data",
        *,
        card: str | DatasetCard | None = None,
        path: str | Path | None = None,
        preprocessing: Preprocessing | None = None,
        resolution: int = 224,
        batch_size: int = 32,
        micro_batch_size: int | None = None,
        augment: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__()
        card = card or self.card_name
        self.card = card if isinstance(card, DatasetCard) else card_files.load_card(card)
        self.root, self.path = Path(root), Path(path) if path else None
        self.resolution = resolution
        self.preprocessing = preprocessing or Preprocessing(round(resolution / EVAL_CROP_SHARE), resolution)
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size or batch_size
        augment = dict(augment or {})
        self.mixup_alpha = augment.pop("mixup_alpha", 0.0)
        self.cutmix_alpha = augment.pop("cutmix_alpha", 0.0)
        self.mix_probability = augment.pop("mix_probability", 1.0)
        self.augment = augment
        self.train_on = options.pop("train_on", "train")
        self.holdout_fraction = options.pop("holdout_fraction", 0.1)
        self.allow_partial = options.pop("allow_partial", False)
        self.download = options.pop("download", True)
        self.num_workers = options.pop("num_workers", 0)
        self.seed = options.pop("seed", 0)
        if options:
            raise TypeError(f"unknown options: {', '.join(options)}")
        self._table: ImageTable | None = None

    @property
    def table(self) -> ImageTable:
        """The set's images with complete splits; read on first use."""
        if self._table is None:
            table = read_layout(self.card, self.root, self.path, self.download)
            table = splits.check_table(table, self.card, self.allow_partial)
            self._table = splits.complete_splits(table, self.holdout_fraction)
        return self._table

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the label."""
        return self.table.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def rows(self, split: str) -> np.ndarray:
        """Return the table rows of `train` (as `train_on` says), `selection` or `test`."""
        if split == splits.TRAIN and self.train_on == "train+selection":
            return self.table.indices(splits.TRAIN, splits.SELECTION)
        if split == splits.SELECTION and self.train_on == "train+selection":
            return np.array([], dtype=np.int64)
        return self.table.indices(split)

    def setup(self, stage: str | None = None) -> None:
        """Read the set's lists; Lightning calls this."""
        _ = self.table

    def train_dataloader(self) -> DataLoader:
        """Return augmented training batches in the epoch's own order."""
        interpolation = self.preprocessing.interpolation
        transform = train_transform(self.resolution, interpolation, **self.augment)
        rows = self.rows(splits.TRAIN)
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        batches = EpochBatches(len(rows), self.batch_size, self.micro_batch_size, self.seed, *ranks)
        if (trainer := self.trainer) is not None:
            batches.follow(lambda: trainer.global_step, trainer.accumulate_grad_batches)
        dataset = ImageRows(self.table, rows, transform, self.seed)
        return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, **self._loading())

    def val_dataloader(self) -> DataLoader | list:
        """Return the selection split, or nothing if it is trained on."""
        return self.eval_dataloader(splits.SELECTION) if len(self.rows(splits.SELECTION)) else []

    def test_dataloader(self) -> DataLoader:
        """Return the test split.

        Raises:
            RuntimeError: A Trainer is fitting: nothing may be chosen by test.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit":
            raise RuntimeError("the test split stays closed while fitting; use trainer.test() afterwards")
        return self.eval_dataloader(splits.TEST)

    def predict_dataloader(self) -> DataLoader:
        """Return the split that `predict_split` names."""
        return self.eval_dataloader(self.predict_split)

    def eval_dataloader(self, split: str) -> DataLoader:
        """Return every image of a split once, in table order, with evaluation preprocessing."""
        dataset = ImageRows(self.table, self.rows(split), eval_transform(self.preprocessing), self.seed)
        return DataLoader(dataset, batch_size=EVAL_BATCH, collate_fn=collate, **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": False,
            "pin_memory": torch.cuda.is_available(),
        }

    def on_before_batch_transfer(self, batch: Batch | Problem, dataloader_idx: int) -> Batch:
        """Raise what a worker found, in the process that can say so."""
        if isinstance(batch, Problem):
            raise UserError(batch)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device; while training, mix."""
        images, targets = normalise(batch.images, self.preprocessing), batch.targets
        if self.trainer is not None and self.trainer.training and (self.mixup_alpha or self.cutmix_alpha):
            images, targets = self._mixed(images, batch)
        return batch._replace(images=images, targets=targets)

    def _mixed(self, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mix each image with its neighbour; the random numbers depend on seed, epoch and images only."""
        kinds = [
            kind(alpha=float(alpha), num_classes=self.num_classes)
            for kind, alpha in ((v2.MixUp, self.mixup_alpha), (v2.CutMix, self.cutmix_alpha))
            if alpha
        ]
        with seeded(self.seed, "mix", batch.epoch, int(batch.index[0])):
            if float(torch.rand(())) >= self.mix_probability:
                return images, batch.targets
            return v2.RandomChoice(kinds)(images, batch.targets)


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 in its original layout (`cifar-10-batches-py/` under `root`)."""

    card_name = "cifar10"


class Flowers102DataModule(ImageDataModule):
    """Oxford Flowers-102 in its original layout (`flowers-102/` under `root`)."""

    card_name = "flowers"


class StanfordCarsDataModule(ImageDataModule):
    """Stanford Cars in its original layout (`stanford_cars/` under `root`)."""

    card_name = "cars"


class ImageFolderDataModule(ImageDataModule):
    """Any folder of one folder per class; give `path`."""

    card_name = "folder"
