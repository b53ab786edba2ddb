"""The LightningDataModule of every set: train, selection and test loaders, usable in anyone's Trainer.

Batches are `image_rows.Batch`; `images, targets = batch[:2]` is enough for most uses. The test
split cannot be opened while a Trainer is fitting.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from workbench import card_files
from workbench.data import sources, splits
from workbench.data.found import listed
from workbench.data.fractions import rows_of_part, stamped
from workbench.data.image_rows import Batch, ImageRows, collate
from workbench.data.layouts.reading import read_layout
from workbench.data.mixing import mixed
from workbench.data.order import EpochBatches
from workbench.data.pixels import PixelStore
from workbench.data.prepared import needs_no_look, place_name, read_facts, read_manifest, read_table
from workbench.data.preparing import prepare
from workbench.data.rank_rows import evaluation_loader
from workbench.data.splits import ImageTable
from workbench.data.transforms import eval_transform, normalise, train_transform
from workbench.specs.card import DatasetCard
from workbench.specs.duration import steps_per_epoch
from workbench.specs.errors import Problem, UserError
from workbench.specs.metric_names import MEAN_AVERAGE_PRECISION
from workbench.specs.weights import EVAL_CROP_SHARE, Preprocessing

EVAL_BATCH = 64


class ImageDataModule(lightning.LightningDataModule):
    """Any set that has a card.

    Args:
        root: Folder of all sets.
        card: A card's name or file, or the card itself; those of `datamodules.py` know theirs.
        path: Your own folder, .csv list, or parquet or Arrow files, in place of what is under `root`.
        preprocessing: Evaluation preprocessing of the weights that are fine-tuned; ImageNet's at `resolution` if None.
        resolution: Side of training crops, pixels.
        batch_size: Effective batch: images per optimizer step.
        micro_batch_size: Images per loaded batch; `batch_size` if None.
        augment: Options of `train_transform`, and `crop`, `mixup_alpha`, `cutmix_alpha`, `mix_probability`.
        options: `train_on`, `holdout_fraction`, `train_fraction`, `allow_partial`, `on_bad_image`, `download`,
            `prepared_root`, `num_workers`, `seed`, as the recipe keys of these names; `worker_init`, called in each
            loader process.

    Raises:
        UserError: No such card; on first use of the images: a set that is found nowhere, or is not as it should be.
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
        self.crop = augment.pop("crop", "random")
        self.augment = augment
        self.train_on = options.pop("train_on", "train")
        self.holdout_fraction = options.pop("holdout_fraction", 0.1)
        self.train_fraction = options.pop("train_fraction", 1.0)
        self.allow_partial = options.pop("allow_partial", False)
        self.on_bad_image = options.pop("on_bad_image", "fail")
        self.download = options.pop("download", True)
        prepared_root = options.pop("prepared_root", None)
        self.prepared_root = Path(prepared_root) if prepared_root else None
        self.num_workers = options.pop("num_workers", 0)
        self.seed = options.pop("seed", 0)
        self.worker_init = options.pop("worker_init", None)
        if options:
            raise TypeError(f"unknown options: {', '.join(options)}")
        self._table: ImageTable | None = None
        self._prepared: Path | None = None
        self.pixels: dict[str, PixelStore | None] = {}
        self.dropped: tuple[str, ...] = ()

    def prepare_data(self) -> None:
        """Find the set and prepare it, if that is not done; Lightning calls this in one process."""
        if self.card.layout != "blossoms" and self._prepared is None:
            options = {"prepared_root": self.prepared_root, "download": self.download}
            self._prepared = prepare(self.card, self.root, self.path, **options)

    @property
    def table(self) -> ImageTable:
        """The set's images with complete splits; prepared and read on first use."""
        if self._table is None:
            self._table = self._read()
        return self._table

    def _read(self) -> ImageTable:
        if self.card.layout == "blossoms":
            table = splits.check_table(read_layout(self.card, self.root), self.card, self.allow_partial)
        else:
            self.prepare_data()
            whole, problems = read_table(self._prepared)
            whole = splits.check_table(whole, self.card, self.allow_partial)
            where = f"dataset {self.card.name}"
            table, bad = splits.drop_bad(whole, problems, self.on_bad_image, where)
            splits.check_training(table, where, self.allow_partial)
            self.dropped = tuple(whole.ids[row] for row in bad)
        return self._complete(table)

    def _complete(self, table: ImageTable) -> ImageTable:
        whole = splits.complete_splits(table, self.holdout_fraction, self.card.test_share)
        return stamped(whole, self.train_fraction)

    def list_only(self) -> None:
        """Read the set's lists without preparing or fetching it: enough for sizes and splits, not for images.

        Raises:
            UserError: It is neither prepared nor on this disk, or is not as its card says.
        """
        place = (self.prepared_root or self.root / "prepared") / place_name(self.card, self.path)
        manifest = read_manifest(place)
        if self.card.layout == "blossoms" or (manifest and needs_no_look(manifest, self.card, self.root, self.path)):
            return
        table = listed(sources.find(self.card, self.root, self.path, False, place))
        table = splits.check_table(table, self.card, self.allow_partial)
        self._table = self._complete(table)

    @property
    def facts(self) -> dict[str, Any]:
        """What was seen of each image of the table, by column of `prepared.FACTS`; empty for a rendered set."""
        table = self.table
        return read_facts(self._prepared, table.images.rows) if self._prepared else {}

    @property
    def source(self) -> str:
        """Where the images came from."""
        _ = self.table
        return read_manifest(self._prepared).source if self._prepared else self.card.source

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return self.table.is_multi_label

    @property
    def metric(self) -> str:
        """The score that this set is judged by."""
        return MEAN_AVERAGE_PRECISION if self.is_multi_label else self.card.metric

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the label."""
        return self.table.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def rows(self, split: str) -> np.ndarray:
        """Return the table rows of `train` (as `train_on` and `train_fraction` say), `selection` or `test`."""
        if split == splits.TRAIN:
            return self._trained
        if split == splits.SELECTION and self.train_on == "train+selection":
            return np.array([], dtype=np.int64)
        return self.table.indices(split)

    @functools.cached_property
    def _trained(self) -> np.ndarray:
        both = (splits.TRAIN, splits.SELECTION) if self.train_on == "train+selection" else (splits.TRAIN,)
        return rows_of_part(self.table, self.table.indices(*both), self.train_fraction)

    def setup(self, stage: str | None = None) -> None:
        """Read the set's lists; Lightning calls this."""
        _ = self.table

    def train_dataloader(self) -> DataLoader:
        """Return augmented training batches in the epoch's own order.

        Raises:
            UserError: Fewer images than one batch.
        """
        interpolation = self.preprocessing.interpolation
        center = self.preprocessing if self.crop == "center" else None
        transform = train_transform(self.resolution, interpolation, **self.augment, center=center)
        rows = self.rows(splits.TRAIN)
        steps_per_epoch(len(rows), self.batch_size)  # refuses a fit of none, which a Trainer would end without a word
        sizes = (self.batch_size, self.micro_batch_size)
        batches = EpochBatches(len(rows), *sizes, self.seed, *self.ranks, is_mixed=self.is_mixed)
        if (trainer := self.trainer) is not None:
            batches.follow(lambda: (trainer.global_step, trainer.num_training_batches, trainer.accumulate_grad_batches))
        dataset = ImageRows(self.table, rows, transform, self.seed, self.pixels.get(splits.TRAIN))
        return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, **self._loading())

    def val_dataloader(self) -> DataLoader | list:
        """Return the selection split, or nothing if it is trained on."""
        return self.eval_dataloader(splits.SELECTION, ranks=self.ranks) if len(self.rows(splits.SELECTION)) else []

    def test_dataloader(self) -> DataLoader:
        """Return the test split.

        Raises:
            RuntimeError: A Trainer is fitting: nothing may be chosen by test.
        """
        if self.trainer is not None and self.trainer.state.fn == "fit":
            raise RuntimeError("the test split stays closed while fitting; use trainer.test() afterwards")
        return self.eval_dataloader(splits.TEST, ranks=self.ranks)

    def predict_dataloader(self) -> DataLoader:
        """Return the split that `predict_split` names."""
        return self.eval_dataloader(self.predict_split, ranks=self.ranks)

    @property
    def ranks(self) -> tuple[int, int]:
        """(this process, number of processes) of the Trainer that is followed."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def eval_dataloader(
        self, split: str, rows: np.ndarray | None = None, ranks: tuple[int, int] = (0, 1)
    ) -> DataLoader:
        """Return every image of a split, or of some rows, once, in table order, with evaluation preprocessing.

        Args:
            split: `train`, `selection` or `test`.
            rows: Only these of its rows.
            ranks: (process, number of processes): only this process's part, see `rank_rows.py`.
        """
        rows = self.rows(split) if rows is None else rows
        pixels = self.pixels.get(split) if split == splits.SELECTION else None
        dataset = ImageRows(self.table, rows, eval_transform(self.preprocessing), self.seed, pixels)
        return evaluation_loader(
            dataset, ranks, dataset.empty, batch_size=EVAL_BATCH, collate_fn=collate, **self._loading()
        )

    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "worker_init_fn": self.worker_init,
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
        if self.trainer is not None and self.trainer.training and self.is_mixed:
            before = None if batch.before is None else normalise(batch.before[0], self.preprocessing)
            alphas = (self.mixup_alpha, self.cutmix_alpha)
            images, targets = mixed(images, before, batch, alphas, self.mix_probability, self.num_classes, self.seed)
        return batch._replace(images=images, targets=targets)

    @property
    def is_mixed(self) -> bool:
        """Whether training images are mixed with others."""
        return bool(self.mixup_alpha or self.cutmix_alpha)
