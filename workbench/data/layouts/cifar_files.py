"""Read CIFAR-10's original pickles without letting a pickle run code: only arrays and plain values are rebuilt."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.layouts.official_files import FETCH_AGAIN, in_card_order, require
from workbench.data.splits import TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError


class CifarFiles(NamedTuple):
    """What one of the two sets calls its files, and the keys inside them."""

    train: tuple[str, ...]
    test: str
    meta: str
    names_key: str
    labels_key: str


CIFAR10 = CifarFiles(
    tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "label_names", "labels"
)
CIFAR100 = CifarFiles(("train",), "test", "meta", "fine_label_names", "fine_labels")
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


def read_cifar(card: DatasetCard, folder: Path) -> ImageTable:
    """Read CIFAR-100 where the card has 100 classes, and CIFAR-10 otherwise.

    Returns:
        A table of (32, 32, 3) images with ids `batch/number`.

    Raises:
        NotThere: Batches are missing.
        UserError: A file that is not a CIFAR batch.
    """
    files = CIFAR100 if card.num_classes == 100 else CIFAR10
    require(card, folder, (*files.train, files.test, files.meta))
    names = [_text(name) for name in _load(folder / files.meta, files.names_key)[0]]
    label_of, classes = in_card_order(card, names, folder / files.meta)
    ids, labels, splits, pictures = [], [], [], []
    for name in (*files.train, files.test):
        pixels, numbers = _batch(folder / name, files.labels_key, len(names))
        pictures.append(pixels)
        ids += [f"{name}/{number:05d}" for number in range(len(numbers))]
        labels += [label_of[names[number]] for number in numbers]
        splits += [TEST if name == files.test else TRAIN] * len(numbers)
    return ImageTable(ids, np.concatenate(pictures), np.array(labels, dtype=np.int64), splits, classes)


def _batch(path: Path, labels_key: str, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """Return (N, 32, 32, 3) uint8 pictures and the N class numbers of one file."""
    pixels, numbers = _load(path, "data", labels_key)
    shape = getattr(pixels, "shape", "no array")
    if shape != (len(numbers), 3072) or pixels.dtype != np.uint8:
        raise _not_cifar(path, f"pixels of shape {shape} for {len(numbers)} labels")
    if odd := [number for number in numbers if number not in range(num_classes)]:
        raise _not_cifar(path, f"class {odd[0]!r}, of 0 to {num_classes - 1}")
    # (N, 3072): red plane, green plane, blue plane -> (N, 32, 32, 3)
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), numbers


def _load(path: Path, *keys: str) -> list[list]:
    """Return some values of a pickled dict, each of which has a length."""
    try:
        with path.open("rb") as file:
            values = _PlainUnpickler(file, encoding="bytes").load()
        found = {_text(key): value for key, value in values.items()}
        picked = [found[key] for key in keys]
        if any(not isinstance(value, list | np.ndarray) for value in picked):
            raise TypeError(f"no list under {' or '.join(keys)}")
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        AttributeError,
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
    ) as error:
        raise _not_cifar(path, error) from error
    return picked


def _not_cifar(path: Path, given: object) -> UserError:
    return UserError.of(path, f"not a CIFAR file: {given}", "the original python batch", FETCH_AGAIN)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
