"""A datamodule around another one that hands out features in place of images while the network before the head rests.

The order, the mirroring and the batches are those of the images: the same random numbers decide them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workbench.data import splits
from workbench.data.image_datamodule import EVAL_BATCH, ImageDataModule
from workbench.data.image_rows import Batch
from workbench.data.order import derive_seed
from workbench.data.rank_rows import evaluation_loader

FeaturesOf = Callable[[str, bool], tuple[Tensor, Tensor, np.ndarray]]
"""(split, mirrored) -> features (N, F) float32, targets, and rows of the set's table, in the order of `data.rows`."""


class EmbeddedRows(Dataset):
    """Features of some rows; whole batches are asked for by positions, or by (epoch, position) for training.

    Args:
        plain: Features, targets and rows as `FeaturesOf` returns them.
        mirrored: Features of the mirrored pictures, or None if none is mirrored.
        flip: Probability of taking those.
        seed: The recipe's seed.
    """

    def __init__(self, plain: tuple[Tensor, Tensor, np.ndarray], mirrored: Tensor | None, flip: float, seed: int):
        self.features, self.targets, rows = plain
        self.rows = torch.from_numpy(rows)
        self.mirrored, self.flip, self.seed = mirrored, flip, seed
        self._generator = torch.Generator()

    def __len__(self) -> int:
        return len(self.rows)

    def empty(self) -> Batch:
        """Return a batch of no features, of the shapes that batches have."""
        return Batch(self.features[:0], self.targets[:0], self.rows[:0], 0)

    def __getitems__(self, items: list[int] | list[tuple[int, int]]) -> Batch:
        is_training = isinstance(items[0], tuple)
        epoch = items[0][0] if is_training else 0
        places = torch.tensor([item[1] for item in items] if is_training else items)
        features = self.features[places]
        if is_training and self.mirrored is not None:
            turned = torch.tensor([self._is_mirrored(epoch, int(place)) for place in places])
            features[turned] = self.mirrored[places[turned]]
        return Batch(features, self.targets[places], self.rows[places], epoch)

    def _is_mirrored(self, epoch: int, position: int) -> bool:
        """Draw as the flip of this image in this epoch does, which is the first to draw after a centre crop."""
        self._generator.manual_seed(derive_seed(self.seed, "image", epoch, position))
        return bool(torch.rand(1, generator=self._generator) < self.flip)


class EmbeddedDataModule(lightning.LightningDataModule):
    """Hands out features up to a step of a fit, and images after it.

    Args:
        data: The set's own datamodule.
        features_of: Gives features.
        through_step: Steps of the fit for which the network before the head stays as it is.
        is_whole: Whether that is the whole fit: then what is predicted afterwards is embedded too.
    """

    def __init__(self, data: ImageDataModule, features_of: FeaturesOf, through_step: int, is_whole: bool):
        super().__init__()
        self.data, self.features_of = data, features_of
        self.through_step, self.is_whole = through_step, is_whole
        self.flip = data.augment.get("flip", 0.5)
        self.preprocessing = data.preprocessing
        self.predict_split = splits.SELECTION

    @property
    def metric(self) -> str:
        """The score that the set is judged by."""
        return self.data.metric

    def setup(self, stage: str | None = None) -> None:
        """Let the set's own datamodule follow the same Trainer; Lightning calls this."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def train_dataloader(self) -> _ByStep:
        """Return training batches, of features where they are wanted."""
        images = self.data.train_dataloader()
        mirrored = self.features_of(splits.TRAIN, True)[0] if self.flip else None
        rows = EmbeddedRows(self.features_of(splits.TRAIN, False), mirrored, self.flip, self.data.seed)
        features = DataLoader(rows, batch_sampler=images.batch_sampler, collate_fn=_as_it_is)
        return _ByStep(images, features, lambda: self.trainer.global_step < self.through_step)

    def val_dataloader(self) -> _ByStep | list:
        """Return the selection split, or nothing if it is trained on."""
        images = self.data.val_dataloader()
        if not isinstance(images, DataLoader):
            return images
        return _ByStep(images, self._whole(splits.SELECTION), lambda: self.trainer.global_step <= self.through_step)

    def predict_dataloader(self) -> DataLoader:
        """Return the split that `predict_split` names."""
        if self.is_whole:
            return self._whole(self.predict_split)
        return self.data.eval_dataloader(self.predict_split, ranks=self.data.ranks)

    def _whole(self, split: str) -> DataLoader:
        rows = EmbeddedRows(self.features_of(split, False), None, 0.0, self.data.seed)
        return evaluation_loader(rows, self.data.ranks, rows.empty, batch_size=EVAL_BATCH, collate_fn=_as_it_is)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Raise what a worker found."""
        return self.data.on_before_batch_transfer(batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise images; features are what the head takes."""
        return batch if batch.images.ndim == 2 else self.data.on_after_batch_transfer(batch, dataloader_idx)


class _ByStep:
    """Two loaders of the same batches; each pass is one's or the other's."""

    def __init__(self, images: DataLoader, features: DataLoader, is_embedded: Callable[[], bool]):
        self.images, self.features, self.is_embedded = images, features, is_embedded

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.features if self.is_embedded() else self.images)


def _as_it_is(batch: Batch) -> Batch:
    return batch
