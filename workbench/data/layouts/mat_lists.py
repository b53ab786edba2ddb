"""Sets whose lists are MATLAB files, with classes that count from 1: Oxford Flowers-102 and Stanford Cars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.layouts.official_files import FETCH_AGAIN, in_card_order, listed, only_there, require
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

FLOWERS_LISTS = ("imagelabels.mat", "setid.mat")
FLOWERS_SPLITS = {"trnid": TRAIN, "valid": SELECTION, "tstid": TEST}
CARS_META, CARS_TRAIN = "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"
CARS_TEST = ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")


def read_flowers(card: DatasetCard, folder: Path) -> ImageTable:
    """Read Oxford Flowers-102: `jpg/`, `imagelabels.mat` and `setid.mat`."""
    require(card, folder, ("jpg", *FLOWERS_LISTS))
    return only_there(list_flowers(card, folder))


def list_flowers(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Flowers name, there or not, by number. The files hold no class names."""
    label_file, split_file = (folder / name for name in FLOWERS_LISTS)
    flowers = _whole_numbers(label_file, "labels")
    classes = tuple(card.classes) or tuple(f"flower {number:03d}" for number in range(1, max(flowers, default=0) + 1))
    _check_classes(flowers, len(classes), label_file)
    rows = []
    for name, split in FLOWERS_SPLITS.items():
        for number in _whole_numbers(split_file, name):
            if not 1 <= number <= len(flowers):
                allowed = f"1 to {len(flowers)}, as many as imagelabels.mat has"
                raise UserError.of(split_file, f"image {number} in {name}", allowed, FETCH_AGAIN)
            rows.append((f"jpg/image_{number:05d}.jpg", flowers[number - 1] - 1, split))
    return listed(folder, sorted(rows), classes)


def read_cars(card: DatasetCard, folder: Path) -> ImageTable:
    """Read Stanford Cars: `devkit/`, `cars_train/`, `cars_test/` and the labelled test list here or in `devkit/`."""
    require(card, folder, (CARS_META, CARS_TRAIN, " or ".join(CARS_TEST), "cars_train"))
    return only_there(list_cars(card, folder))


def list_cars(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Cars name, there or not, in the lists' order."""
    meta = folder / CARS_META
    names = [str(_only(name, meta)) for name in _array(meta, "class_names").ravel()]
    label_of, classes = in_card_order(card, names, meta)
    test = folder / CARS_TEST[0]
    if not test.exists():
        test = folder / CARS_TEST[1]
    rows = []
    for split, path, images in ((TRAIN, folder / CARS_TRAIN, "cars_train"), (TEST, test, "cars_test")):
        annotations = _array(path, "annotations")
        if not {"class", "fname"} <= set(annotations.dtype.names or ()):
            given = f"annotations of {annotations.dtype.names or 'no named fields'}"
            remedy = "take the file that holds labels; the devkit's cars_test_annos.mat has none"
            raise UserError.of(path, given, "annotations with class and fname", remedy)
        files = [str(_only(cell, path)) for cell in annotations["fname"].ravel()]
        numbers = [_whole(_only(cell, path), path) for cell in annotations["class"].ravel()]
        _check_classes(numbers, len(names), path)
        if odd := [file for file in files if "/" in file or "\\" in file]:
            raise UserError.of(path, odd[0], "file names such as 00001.jpg", FETCH_AGAIN)
        rows += [
            (f"{images}/{file}", label_of[names[number - 1]], split)
            for file, number in zip(files, numbers, strict=True)
        ]
    return listed(folder, rows, classes)


def _array(path: Path, name: str) -> np.ndarray:
    """Read one array of a MATLAB file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(path)[name]
    except FileNotFoundError:
        raise
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError, KeyError) as error:
        raise UserError.of(path, f"not a readable .mat file: {error}", "the original file", FETCH_AGAIN) from error


def _only(cell: np.ndarray, path: Path) -> Any:
    """Return the one value of a MATLAB cell."""
    if getattr(cell, "size", 0) != 1:
        raise UserError.of(path, f"a cell of {cell!r:.60}", "one value a cell", FETCH_AGAIN)
    return cell.item()


def _whole_numbers(path: Path, name: str) -> list[int]:
    return [_whole(value, path) for value in _array(path, name).ravel().tolist()]


def _whole(value: Any, path: Path) -> int:
    """Return a MATLAB number, which may be stored as a fraction, as the whole number that it is."""
    if not isinstance(value, int | float) or not float(value).is_integer():
        raise UserError.of(path, f"{value!r:.60}", "whole numbers", FETCH_AGAIN)
    return int(value)


def _check_classes(numbers: list[int], count: int, path: Path) -> None:
    for row, number in enumerate(numbers, 1):
        if not 1 <= number <= count:
            raise UserError.of(path, f"class {number} in row {row}", f"1 to {count}", FETCH_AGAIN)
