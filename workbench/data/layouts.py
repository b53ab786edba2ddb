"""Read a set as it lies on disk into an `ImageTable` with its official splits. One function a layout.

Class names come from the set's own lists; labels count from 0 whatever the files do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workbench.data import blossoms, cifar_files
from workbench.data.images import IMAGE_ENDINGS
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

FLOWERS_SPLITS = {"trnid": TRAIN, "valid": SELECTION, "tstid": TEST}


def read_layout(card: DatasetCard, root: Path, path: Path | None, download: bool) -> ImageTable:
    """Read a set.

    Args:
        card: What it is.
        root: Folder of all sets.
        path: For `image_folder`: the folder itself.
        download: Fetch missing files through torchvision where the card says that this still works.

    Raises:
        UserError: Files are missing or not as the layout has them.
    """
    if card.layout == "image_folder" and not card.folder and path is None:
        raise UserError.of(
            "data.path",
            "null",
            f"an image folder, as data.card={card.name} needs one",
            "add data.path=DIR, a folder of one folder per class (or of train/, val/, test/)",
        )
    folder = path or root / card.folder
    try:
        return READERS[card.layout](card, folder, download and card.downloadable)
    except OSError as error:
        raise UserError.of(
            error.filename or folder, error.strerror or error, "readable files", "check the files and their permissions"
        ) from error


def _require(card: DatasetCard, folder: Path, names: tuple[str, ...], download: Callable[[], object] | None) -> None:
    """Check that files are there, after one try to download them."""
    missing = [name for name in names if not (folder / name).exists()]
    reason = "not there"
    if missing and download:
        try:
            download()
        except Exception as error:  # whatever a server, a disk or a checksum can do: it becomes one clear message
            reason = f"download failed: {type(error).__name__}: {error}"
        missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise UserError.of(
            f"dataset {card.name}",
            f"{folder}: {', '.join(missing)} {reason}",
            ", ".join(names),
            card.what_to_put_where or f"put the original files into {folder}, or set data.root",
        )


def read_flowers102(card: DatasetCard, folder: Path, download: bool) -> ImageTable:
    """Read Oxford Flowers-102: `jpg/`, `imagelabels.mat` and `setid.mat`, whose numbers count from 1."""

    def fetch() -> None:
        from torchvision.datasets import Flowers102

        Flowers102(folder.parent, download=True)

    _require(card, folder, ("jpg", "imagelabels.mat", "setid.mat"), fetch if download else None)
    labels = _mat(folder / "imagelabels.mat", "labels").ravel().astype(np.int64) - 1
    numbers = {name: _mat(folder / "setid.mat", name).ravel() for name in FLOWERS_SPLITS}
    split_of = {int(n): FLOWERS_SPLITS[name] for name, listed in numbers.items() for n in listed}
    names_file = folder / "cat_to_name.json"
    try:
        names = json.loads(names_file.read_text(encoding="utf-8")) if names_file.is_file() else {}
    except ValueError as error:
        raise UserError.of(names_file, error, "JSON: number -> name", "fetch it again or remove it") from error
    classes = tuple(names.get(str(i + 1), f"flower {i + 1:03d}") for i in range(int(labels.max()) + 1))
    # A part of the set is recognised as such by `check_table`, so files that are not there are left out here.
    there = {file.name for file in (folder / "jpg").iterdir()}
    kept = [n for n in sorted(split_of) if f"image_{n:05d}.jpg" in there]
    return ImageTable(
        ids=[f"jpg/image_{n:05d}.jpg" for n in kept],
        images=[folder / "jpg" / f"image_{n:05d}.jpg" for n in kept],
        labels=labels[[n - 1 for n in kept]],
        splits=[split_of[n] for n in kept],
        classes=classes,
    )


def read_cifar10(card: DatasetCard, folder: Path, download: bool) -> ImageTable:
    """Read CIFAR-10's python batches."""

    def fetch() -> None:
        from torchvision.datasets import CIFAR10

        CIFAR10(folder.parent, download=True)

    names = (*cifar_files.TRAIN_BATCHES, cifar_files.TEST_BATCH, cifar_files.META)
    _require(card, folder, names, fetch if download else None)
    return cifar_files.read(folder)


def read_stanford_cars(card: DatasetCard, folder: Path, download: bool) -> ImageTable:
    """Read Stanford Cars: `devkit/`, `cars_train/`, `cars_test/` and the labelled test list; classes count from 1."""
    names = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
        "cars_train",
    )
    _require(card, folder, names, None)
    classes = tuple(str(name[0]) for name in _mat(folder / "devkit/cars_meta.mat", "class_names").ravel())
    ids, labels, splits = [], [], []
    lists = ((TRAIN, "devkit/cars_train_annos.mat", "cars_train"), (TEST, names[2], "cars_test"))
    for split, listing, images in lists:
        there = {file.name for file in (folder / images).iterdir()} if (folder / images).is_dir() else set()
        for row in _mat(folder / listing, "annotations").ravel():
            file = str(row["fname"].item())
            if file in there:
                ids.append(f"{images}/{file}")
                labels.append(int(row["class"].item()) - 1)
                splits.append(split)
    return ImageTable(ids, [folder / name for name in ids], np.array(labels, dtype=np.int64), splits, classes)


def read_image_folder(card: DatasetCard, folder: Path, download: bool) -> ImageTable:
    """Read a folder of one folder per class, or of `train/`, `val/`, `test/` which hold those.

    The class list is that of train: a class that `val/` or `test/` lacks keeps its index, and one that only they
    have is an error.
    """
    if not folder.is_dir():
        raise UserError.of("data.path", f"{folder}: no such folder", "a folder of images", "check data.path")
    roots = _split_folders(folder)
    classes = tuple(sorted(d.name for d in _folders(roots[TRAIN])))
    ids, labels, splits = [], [], []
    for split, root in roots.items():
        for group in _folders(root):
            if group.name not in classes:
                raise UserError.of(
                    group,
                    f"class '{group.name}' is not among the {len(classes)} classes of {roots[TRAIN]}",
                    ", ".join(classes[:20]),
                    "add training images of this class, or take the folder out",
                )
            files = sorted(f for f in group.rglob("*") if f.suffix.lower() in IMAGE_ENDINGS and f.is_file())
            if not files and split == TRAIN:
                raise UserError.of(group, "no images", "at least 2 images", "fill the folder or take it out")
            ids += [file.relative_to(folder).as_posix() for file in files]
            labels += [classes.index(group.name)] * len(files)
            splits += [split] * len(files)
        if split not in splits:
            raise UserError.of(root, "no images", "folders of images, one per class", "fill the folder or take it out")
    return ImageTable(ids, [folder / name for name in ids], np.array(labels, dtype=np.int64), splits, classes)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return split -> folder: the splits' own folders if there is a `train/` of class folders, else all is train.

    A split under another name would become a class or be left out in silence, so it is refused.
    """
    known = {"train": TRAIN, "val": SELECTION, "test": TEST}
    names = {d.name for d in _folders(folder)}
    has_parts = "train" in names and bool(_folders(folder / "train"))
    odd = names - set(known) if has_parts else names & {"val", "test", "valid", "validation", "training", "testing"}
    if odd:
        raise UserError.of(
            folder,
            f"folders {', '.join(sorted(names))}",
            "a folder per class; or train/ and, if you have them, val/ and test/, each with a folder per class",
            f"rename or take out {', '.join(sorted(odd))}",
        )
    return {split: folder / name for name, split in known.items() if name in names} if has_parts else {TRAIN: folder}


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def read_blossoms(card: DatasetCard, folder: Path, download: bool) -> ImageTable:
    """Render the embedded set; the card's sizes say how much of it."""
    task = "upstream" if card.name.endswith("upstream") else "downstream"
    species = blossoms.species(task)
    ids, labels, splits, pictures = [], [], [], []
    for seed, split in enumerate((TRAIN, SELECTION, TEST)):
        for label, kind in enumerate(species):
            for index in range((getattr(card.sizes, split) or 0) // len(species)):
                ids.append(f"{split}/{kind.name}/{index:04d}")
                labels.append(label)
                splits.append(split)
                pictures.append(blossoms.render(kind, seed, index))
    names = tuple(kind.name for kind in species)
    return ImageTable(ids, np.stack(pictures), np.array(labels, dtype=np.int64), splits, names)


def _mat(path: Path, name: str) -> np.ndarray:
    """Read one array of a MATLAB file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(path)[name]
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError, KeyError) as error:
        raise UserError.of(path, f"not a readable .mat file: {error}", "the original file", "fetch it again") from error


READERS: dict[str, Callable[[DatasetCard, Path, bool], ImageTable]] = {
    "blossoms": read_blossoms,
    "cifar10": read_cifar10,
    "flowers102": read_flowers102,
    "stanford_cars": read_stanford_cars,
    "image_folder": read_image_folder,
}
