"""Read CIFAR-10's original pickles without letting a pickle run code: only arrays and plain values are rebuilt."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.splits import TEST, TRAIN, ImageTable
from workbench.specs.errors import UserError

TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_BATCH, META = "test_batch", "batches.meta"
_HARMLESS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _PlainUnpickler(pickle.Unpickler):
    """Rebuilds arrays and builtins; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
        return super().find_class(module, name)


def read(folder: Path) -> ImageTable:
    """Read the five training batches, the test batch and the class names.

    Returns:
        A table of (32, 32, 3) images with ids `batch/number`.

    Raises:
        UserError: A file that is not a CIFAR batch.
    """
    classes = tuple(_text(name) for name in _load(folder / META, "label_names"))
    ids, labels, splits, pictures = [], [], [], []
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        batch = _load(folder / name, "data", "labels")
        pixels, batch_labels = np.asarray(batch[0], dtype=np.uint8), batch[1]
        # (N, 3072): red plane, green plane, blue plane -> (N, 32, 32, 3)
        pictures.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        ids += [f"{name}/{number:05d}" for number in range(len(batch_labels))]
        labels += list(batch_labels)
        splits += [TEST if name == TEST_BATCH else TRAIN] * len(batch_labels)
    return ImageTable(ids, np.concatenate(pictures), np.array(labels, dtype=np.int64), splits, classes)


def _load(path: Path, *keys: str) -> Any:
    try:
        with path.open("rb") as file:
            values = _PlainUnpickler(file, encoding="bytes").load()
        found = {_text(key): value for key, value in values.items()}
        picked = [found[key] for key in keys]
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        AttributeError,
        ValueError,
        TypeError,
        IndexError,
    ) as error:
        raise UserError.of(path, f"not a CIFAR file: {error}", "the original python batch", "fetch it again") from error
    return picked if len(keys) > 1 else picked[0]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
