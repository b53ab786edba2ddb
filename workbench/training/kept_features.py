"""Features of images in files of their own: named by all that decides them, whole or not there, checked when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from workbench.data.image_datamodule import ImageDataModule
from workbench.models.tensor_files import read_tensors, save_tensors
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")
FOLDER = "embeddings"


class KeptFeatures:
    """The file of some rows' features; where it cannot be written, the features are made anew each time.

    Args:
        folder: Where such files are.
        data: The set.
        split: Of the set, for the file's name.
        rows: Table rows, in the features' order.
        key: All else that decides a feature, as plain values.
    """

    def __init__(self, folder: Path, data: ImageDataModule, split: str, rows: np.ndarray, key: dict[str, object]):
        ids = hashlib.sha256("\0".join(data.table.ids[row] for row in rows).encode()).hexdigest()
        text = json.dumps({**key, "ids": ids}, sort_keys=True, default=str)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder / f"{data.card.name}-{split}-{self.digest[:20]}.safetensors"
        self.count = len(rows)

    def read(self, tell: bool = True) -> Tensor | None:
        """Return the features, or None if there are none, or others, or damaged ones."""
        if not self.path.is_file():
            return None
        try:
            tensors = read_tensors(self.path, FOLDER)
        except UserError:
            tensors = {}
        features = tensors.get("features")
        is_sound = features is not None and features.ndim == 2 and len(features) == self.count
        if is_sound and tensors.get("digest", features[:0]).tolist() == list(self._digest(features)):
            return features
        if tell:
            log.info("%s is damaged: its features are computed again", self.path)
        return None

    def write(self, features: Tensor) -> None:
        """Keep the features."""
        digest = torch.tensor(list(self._digest(features)), dtype=torch.uint8)
        try:
            save_tensors(self.path, {"features": features, "digest": digest})
        except OSError as error:
            log.info("embeddings are not kept: %s: %s", self.path, error.strerror or error)

    def _digest(self, features: Tensor) -> bytes:
        made = hashlib.sha256(self.digest.encode())
        made.update(bytes_of(features))
        return made.digest()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock that ends with the process; without one where nothing can be written."""
        lock = FileLock(self.path.with_name(f".{self.path.stem}.lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError:
            yield
            return
        try:
            yield
        finally:
            lock.release()


def bytes_of(tensor: Tensor) -> np.ndarray:
    """Return a tensor's content, (bytes,) uint8."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
