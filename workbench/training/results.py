"""Scores of one split of one trained model, and the files that hold them.

Every score of a finished run comes from `SplitResult.scores`, and predictions.csv holds what they are made of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from workbench.data.image_datamodule import ImageDataModule
from workbench.models.tensor_files import save_tensors
from workbench.specs.errors import UserError
from workbench.specs.metric_names import MEAN_PER_CLASS, TOP1, TOP5
from workbench.training import run_folder
from workbench.training.calibration import calibration_of
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.metrics import SplitScores, interval95, ranks
from workbench.training.ranks import gathered, is_first

log = logging.getLogger("workbench")

PREDICTION_COLUMNS = ("id", "class", "predicted", "confidence", "class_probability", "class_rank")


@dataclass(frozen=True)
class SplitResult:
    """A model's outputs on one split.

    Args:
        split: `selection` or `test`.
        metric: The dataset's own metric, which the interval is of.
        logits: (N, classes) float32.
        targets: (N,) int64; (N, classes) of 0 and 1 in a multi-label set.
        rows: (N,) row of each image in the set's table.
    """

    split: str
    metric: str
    logits: Tensor
    targets: Tensor
    rows: Tensor

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return self.targets.ndim == 2

    def without(self, rows: np.ndarray) -> SplitResult:
        """Return the outputs on all images but those of some rows of the set's table."""
        kept = ~torch.isin(self.rows, torch.from_numpy(rows))
        return dataclasses.replace(self, logits=self.logits[kept], targets=self.targets[kept], rows=self.rows[kept])

    def scores(self) -> dict[str, Any]:
        """Return every score, `n`, and `interval95` of the dataset's metric, as plain values."""
        collected = SplitScores(self.logits.shape[1], self.is_multi_label, over_ranks=False)
        collected.update(self.logits, self.targets)
        if self.is_multi_label:
            return {**collected.compute(), "n": len(self.targets), "interval95": None}
        right = ranks(self.logits, self.targets).numpy() <= (min(5, self.logits.shape[1]) if self.metric == TOP5 else 1)
        interval = interval95(self.metric, right, self.targets.numpy())
        return {**collected.compute(), "n": len(self.targets), "interval95": interval and list(interval)}

    def confusion(self) -> np.ndarray:
        """Return (classes, classes) counts; rows are the truth."""
        counts = np.zeros((self.logits.shape[1],) * 2, dtype=np.int64)
        np.add.at(counts, (self.targets.numpy(), self.logits.argmax(1).numpy()), 1)
        return counts

    def calibration(self) -> dict[str, Any] | None:
        """Return what model.json says of these outputs' temperature, or None if there is none to speak of."""
        return calibration_of(self.logits.numpy(), self.targets.numpy())

    def mistakes(self, most: int) -> list[tuple[int, int, int, float]]:
        """Return the most confident mistakes: (row, class, predicted, confidence), worst first."""
        confidence, predicted = self.logits.softmax(1).max(1)
        wrong = torch.nonzero(predicted != self.targets).ravel()
        worst = wrong[confidence[wrong].argsort(descending=True)][:most]
        return [(int(self.rows[i]), int(self.targets[i]), int(predicted[i]), float(confidence[i])) for i in worst]


def run_split(
    trainer: lightning.Trainer, classifier: EfficientNetClassifier, data: ImageDataModule, split: str
) -> SplitResult:
    """Run a model over a split once, without gradients; every process returns all of it, in table order."""
    data.predict_split = split
    outputs = trainer.predict(classifier, datamodule=data)
    logits, targets, rows = (gathered(torch.cat(parts)) for parts in zip(*outputs, strict=True))
    return SplitResult(split, data.metric, logits, targets, rows)


def split_ids(data: ImageDataModule) -> dict[str, Any]:
    """Return the content of splits.json: the ids of every split and what must be known of them."""
    ids = {split: [data.table.ids[row] for row in data.rows(split)] for split in ("train", "selection", "test")}
    counts = {split: len(listed) for split, listed in ids.items()}
    trained = {"train_on": data.train_on, "train_fraction": data.train_fraction}
    content = {"dataset": data.card.name, **trained, "counts": counts, **ids}
    labelled = "".join(f"{name}\0{label}\n" for name, label in sorted(zip(data.table.ids, _labels(data), strict=True)))
    content["labels_sha256"] = hashlib.sha256(labelled.encode()).hexdigest()
    return {**content, "dropped": list(data.dropped), "source": data.source, "stamps": list(data.table.stamps)}


def _labels(data: ImageDataModule) -> list[str]:
    return [str(label.tolist()) for label in data.table.labels]


def check_splits(folder: Path, data: ImageDataModule) -> None:
    """Compare the splits with those that a run trained on, if it is the same dataset.

    Hold-outs follow from the files that are there: with a file more or less, a training image could become a test one.

    Raises:
        UserError: An image is in another split than it was, or has another label.
    """
    before, now = run_folder.read_json(folder / run_folder.SPLITS), split_ids(data)
    if before is None or before["dataset"] != now["dataset"]:
        return
    for split in ("train", "selection", "test"):
        moved = sorted(set(before[split]) ^ set(now[split]))
        if moved:
            raise UserError.of(
                f"dataset {data.card.name}",
                f"{len(moved)} images are not in the {split} split that this run had, such as {moved[0]}",
                f"the images listed in {folder / run_folder.SPLITS}",
                "restore the files (and data.train_on, data.holdout_fraction), or start a new run",
            )
    if before.get("labels_sha256", now["labels_sha256"]) != now["labels_sha256"]:
        raise UserError.of(
            f"dataset {data.card.name}",
            "images with other labels than this run had",
            f"the labels of the time of {folder / run_folder.SPLITS}",
            "restore the labels, or start a new run",
        )


def write_predictions(path: Path, result: SplitResult, data: ImageDataModule) -> None:
    """Write predictions.csv: a row per image, from which every score can be computed again."""
    if result.is_multi_label:
        _write_probabilities(path, result, data)
        return
    probabilities = result.logits.double().softmax(1)
    predicted = result.logits.argmax(1)
    confidence, own = (probabilities.gather(1, named[:, None]).ravel() for named in (predicted, result.targets))
    columns = result.rows, result.targets, predicted, confidence, own, ranks(result.logits, result.targets)
    rows = [
        (data.table.ids[row], data.classes[target], data.classes[guess], f"{sure:.9g}", f"{true:.9g}", rank)
        for row, target, guess, sure, true, rank in zip(*(column.tolist() for column in columns), strict=True)
    ]
    run_folder.write_rows(path, PREDICTION_COLUMNS, rows)


def _write_probabilities(path: Path, result: SplitResult, data: ImageDataModule) -> None:
    """Write a multi-label row per image: its id, whether it has each class, and each class's probability."""
    header = ["id", *(f"has {name}" for name in data.classes), *(f"probability of {name}" for name in data.classes)]
    probabilities = result.logits.double().sigmoid()
    rows = [
        (data.table.ids[row], *map(int, result.targets[i]), *(f"{p:.9g}" for p in probabilities[i].tolist()))
        for i, row in enumerate(result.rows.tolist())
    ]
    run_folder.write_rows(path, header, rows)


def write_logits(path: Path, *results: SplitResult | None) -> None:
    """Write logits.safetensors: of each split that was scored its logits and targets, in the order of splits.json.

    In float32, as they were computed, so that every score follows from the file to the last digit and no tie is broken
    otherwise; half precision would save little: ImageNet's 50,000 x 1000 take 200 MB, less than a B7's checkpoint.
    """
    tensors = {}
    for result in results:
        if result is not None:
            tensors[result.split] = result.logits.float()
            tensors[f"{result.split}_targets"] = result.targets
    if tensors:
        save_tensors(path, tensors)


def scores_from_predictions(rows: list[dict[str, str]], num_classes: int) -> dict[str, float]:
    """Compute top1, top5, mean_per_class and loss again from the rows of predictions.csv."""
    own_rank = np.array([int(row["class_rank"]) for row in rows])
    names = np.array([row["class"] for row in rows])
    right = own_rank == 1
    return {
        TOP1: float(right.mean()),
        TOP5: float((own_rank <= min(5, num_classes)).mean()),
        MEAN_PER_CLASS: float(np.mean([right[names == name].mean() for name in np.unique(names)])),
        "loss": float(np.mean([-math.log(max(float(row["class_probability"]), 1e-300)) for row in rows])),
    }


def write_splits(folder: Path, data: ImageDataModule) -> None:
    """Write the ids of every split, and what must be known of them; on a restart, check that they are the same.

    Raises:
        UserError: The set has changed since the run began.
    """
    content = split_ids(data)
    check_splits(folder, data)
    if is_first():
        run_folder.write_json(folder / run_folder.SPLITS, content)
    listed = ", ".join(f"{count} {split}" for split, count in content["counts"].items())
    log.info("%s: %s images, %d classes", data.card.title or data.card.name, listed, data.num_classes)
    for stamp in data.table.stamps:
        log.info("note: %s", stamp)
