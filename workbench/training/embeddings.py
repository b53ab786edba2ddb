"""Pooled features of every image of a split, computed once and kept beside the prepared set.

A kept file is named by a hash of all that decides what is in it: the weights' content, the architecture, the
preprocessing, the stage, the precision, and the set with the ids of its rows. It carries that hash and one of its
content, so that a damaged or a foreign file is made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.preparing import progress_bar
from workbench.specs.errors import UserError
from workbench.training import machine
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.kept_features import FOLDER, KeptFeatures, bytes_of

log = logging.getLogger("workbench")
FORMAT = 1
"""Number of the layout of kept files and of how features are computed; another one is computed again."""
PART = 1024
"""Images after which their features are kept, so that a stop loses no more; whole batches; a guess."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Embedded:
    """The features of some images.

    Args:
        features: (N, F) float32, on the CPU.
        targets: (N,) int64 classes; (N, classes) float32 of 0 and 1 in a multi-label set.
        rows: (N,) int64 row of each image in the set's table.
    """

    features: Tensor
    targets: Tensor
    rows: np.ndarray

    def take(self, positions: np.ndarray | Tensor) -> Embedded:
        """Return those at some positions."""
        positions = torch.as_tensor(positions)
        return Embedded(self.features[positions], self.targets[positions], self.rows[positions.numpy()])


def join(*parts: Embedded) -> Embedded:
    """Return several, one after another."""
    if len(parts) == 1:
        return parts[0]
    features, targets = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "targets"))
    return Embedded(features, targets, np.concatenate([part.rows for part in parts]))


def embedded_split(
    classifier: EfficientNetClassifier,
    data: ImageDataModule,
    split: str,
    *,
    stage: str | None = None,
    mirrored: bool = False,
    precision: str = "32-true",
    rows: np.ndarray | None = None,
) -> Embedded:
    """Return the features of a split, from a kept file where there is one; else pass every image through once.

    Args:
        classifier: The network, on the device where it should compute.
        data: The set, with the preprocessing to use.
        split: `train` (as `train_on` says), `selection` or `test`.
        stage: Of which stage the pooled output is taken; that before the head if None.
        mirrored: Of the pictures flipped left to right.
        precision: Lightning's word, as `machine.choose_precision` returns it.
        rows: Only these of the split's rows; in their order.

    Raises:
        UserError: No such stage, or images that do not decode.
    """
    rows = data.rows(split) if rows is None else rows
    stage = check_stage(classifier, stage)
    key = _key(classifier, data, stage, precision)
    parts = []
    for name in (splits.TRAIN, splits.SELECTION, splits.TEST):
        whole = data.table.indices(name)
        wanted = np.intersect1d(rows, whole)
        if len(wanted):
            made = _part(classifier, data, (name, whole, wanted), {**key, "mirrored": mirrored})
            parts.append(
                made if len(made.rows) == len(wanted) else made.take(np.flatnonzero(np.isin(made.rows, wanted)))
            )
    if not parts:
        labels = _targets(data, np.array([], dtype=np.int64))
        return Embedded(torch.zeros(0, classifier.net.num_features), labels, np.array([], dtype=np.int64))
    joined = join(*parts)
    if np.array_equal(joined.rows, rows):
        return joined
    order = np.argsort(joined.rows)
    return joined.take(order[np.searchsorted(joined.rows, rows, sorter=order)])


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context that computes as a Trainer of this precision does."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def check_stage(classifier: EfficientNetClassifier, stage: str | None) -> str:
    """Return the stage that is meant.

    Raises:
        UserError: There is no such stage before the head.
    """
    stages = classifier.net.stage_names[:-1]
    if stage is not None and stage not in stages:
        raise UserError.of("--stage", stage, ", ".join(stages), "name one of them, or leave --stage out")
    return stage or stages[-1]


def _targets(data: ImageDataModule, rows: np.ndarray) -> Tensor:
    labels = torch.from_numpy(data.table.labels[rows])
    return labels.float() if data.is_multi_label else labels


def _key(classifier: EfficientNetClassifier, data: ImageDataModule, stage: str, precision: str) -> dict[str, object]:
    """Return all that decides a feature but the image itself, as plain values."""
    net, images = classifier.net, data.table.images
    last = net.stage_names.index(stage)
    weights = hashlib.sha256()
    for name, tensor in net.features[: last + 1].state_dict().items():
        weights.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        weights.update(bytes_of(tensor))
    if isinstance(images, np.ndarray):  # rendered: nothing else tells what is in them
        source = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
    else:
        source = getattr(images, "fingerprint", "")
    return {
        "format": FORMAT,
        "arch": dataclasses.asdict(net.scaling),
        "bn_eps": net.batchnorm.eps,
        "padding": net.padding,
        "weights": weights.hexdigest(),
        "preprocessing": dataclasses.asdict(data.preprocessing),
        "stage": stage,
        "precision": precision,
        "set": data.card.name,
        "source": source,
        "made_by": [torch.__version__, torchvision.__version__, PIL.__version__],
    }


def _part(
    classifier: EfficientNetClassifier,
    data: ImageDataModule,
    part: tuple[str, np.ndarray, np.ndarray],
    key: dict[str, object],
) -> Embedded:
    """Return the features of one of the set's splits, or of the rows wanted if the whole of it is not worth it."""
    split, whole, wanted = part
    folder = (data.prepared_root or data.root / "prepared") / FOLDER
    rows, place = whole, KeptFeatures(folder, data, split, whole, key)
    kept = place.read()
    if kept is None and 2 * len(wanted) < len(whole):
        rows, place = wanted, KeptFeatures(folder, data, split, wanted, key)
        kept = place.read()
    if kept is None:
        with place.alone():
            kept = place.read(tell=False)
            if kept is None:  # still: another process may have made it meanwhile
                kept = _embed_in_parts(classifier, data, split, rows, key, place)
    return Embedded(kept, _targets(data, rows), rows)


def _embed_in_parts(
    classifier: EfficientNetClassifier,
    data: ImageDataModule,
    split: str,
    rows: np.ndarray,
    key: dict[str, object],
    place: KeptFeatures,
) -> Tensor:
    """Return the features of rows and keep them: at first those of every `PART` images, then all in `place`."""
    cuts = range(0, len(rows), PART) if len(rows) > PART else ()
    parts = [KeptFeatures(place.path.parent, data, split, rows[cut : cut + PART], key) for cut in cuts]
    found = list(itertools.takewhile(lambda features: features is not None, (part.read() for part in parts)))
    done = sum(map(len, found))
    after = f" after the {done} that are kept" if done else ""
    log.info("embedding %d %s images%s%s", len(rows) - done, split, ", mirrored" if key["mirrored"] else "", after)
    waiting: list[Tensor] = []
    with progress_bar() as progress:
        task = progress.add_task(f"{data.card.name}: features", total=len(rows), completed=done)
        for features in _embed(classifier, data, split, rows[done:], key):
            progress.advance(task, len(features))
            waiting.append(features)
            if parts and sum(map(len, waiting)) == parts[len(found)].count:
                found.append(torch.cat(waiting))
                parts[len(found) - 1].write(found[-1])
                waiting = []
    whole = torch.cat(found + waiting)
    place.write(whole)
    for part in parts:
        part.path.unlink(missing_ok=True)
    return whole


def _embed(
    classifier: EfficientNetClassifier, data: ImageDataModule, split: str, rows: np.ndarray, key: dict[str, object]
) -> Iterator[Tensor]:
    """Pass images through the network up to a stage; yield (n, F) float32 of each batch, on the CPU."""
    net, device = classifier.net, next(classifier.net.parameters()).device
    if device.type == "cpu":
        machine.keep_freed_memory()
    was_training = net.training
    net.eval()
    try:
        for batch in data.eval_dataloader(split, rows):
            batch = data.on_before_batch_transfer(batch, 0)
            images = batch.images.to(device, non_blocking=True)
            batch = batch._replace(images=images.flip(-1) if key["mirrored"] else images)
            with torch.inference_mode(False), torch.no_grad(), autocast(device, key["precision"]):
                images = data.on_after_batch_transfer(batch, 0).images
                features = net.embed_stage(images, key["stage"]).float().cpu()
            yield features
    finally:
        net.train(was_training)
