"""Read a set as it lies on disk into an `ImageTable` with its official splits: one reader a layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from workbench.data import blossoms
from workbench.data.layouts import cifar_files, folders, mat_lists, text_lists
from workbench.data.layouts.official_files import NotThere, require
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

__all__ = ["READERS", "NotThere", "read_layout", "require"]


def read_layout(card: DatasetCard, folder: Path) -> ImageTable:
    """Read a set.

    Args:
        card: What it is.
        folder: Where it lies; for `csv` the list itself.

    Returns:
        Its images that are there, with the creators' splits; labels count from 0, in the order of the card's classes.

    Raises:
        NotThere: Files that the layout needs are missing.
        UserError: Files that are not as the layout has them, or cannot be read.
    """
    try:
        return READERS[card.layout](card, folder)
    except OSError as error:
        raise UserError.of(
            error.filename or folder, error.strerror or error, "readable files", "check the files and their permissions"
        ) from error


def _read_blossoms(card: DatasetCard, folder: Path) -> ImageTable:
    """Render the embedded set; the card's sizes say how much of it."""
    task = "upstream" if card.name.endswith("upstream") else "downstream"
    size = card.native_pixels or 64
    if size % 2 or not 16 <= size <= 2048:
        where, allowed = f"dataset card {card.name}: native_pixels", "an even number of pixels, 16 to 2048"
        raise UserError.of(where, size, allowed, "choose such a size for the rendered set")
    species = blossoms.species(task)
    ids, labels, splits, pictures = [], [], [], []
    for seed, split in enumerate((TRAIN, SELECTION, TEST)):
        for label, kind in enumerate(species):
            for index in range((getattr(card.sizes, split) or 0) // len(species)):
                ids.append(f"{split}/{kind.name}/{index:04d}")
                labels.append(label)
                splits.append(split)
                pictures.append(blossoms.render(kind, seed, index, size))
    names = tuple(kind.name for kind in species)
    return ImageTable(ids, np.stack(pictures), np.array(labels, dtype=np.int64), splits, names)


def _read_csv(card: DatasetCard, folder: Path) -> ImageTable:
    from workbench.data.layouts.csv_list import read_csv

    return read_csv(card, folder)


def _no_files(card: DatasetCard, folder: Path) -> ImageTable:
    raise NotThere.of(
        f"dataset {card.name}",
        "layout: rows, which has no files of its own",
        "a copy on the hub, or local parquet or Arrow files",
        card.what_to_put_where or "name the copy in the card's `sources`",
    )


READERS: dict[str, Callable[[DatasetCard, Path], ImageTable]] = {
    "blossoms": _read_blossoms,
    "cifar": cifar_files.read_cifar,
    "flowers102": mat_lists.read_flowers,
    "stanford_cars": mat_lists.read_cars,
    "fgvc_aircraft": text_lists.read_aircraft,
    "oxford_pets": text_lists.read_pets,
    "food101": text_lists.read_food,
    "birdsnap": text_lists.read_birdsnap,
    "imagenet": folders.read_imagenet,
    "image_folder": folders.read_image_folder,
    "csv": _read_csv,
    "rows": _no_files,
}
