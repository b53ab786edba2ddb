"""Sets whose folders are their classes: ImageNet as its creators unpack it, and anyone's own folder of images."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from pathlib import Path

from workbench.data.images import IMAGE_ENDINGS
from workbench.data.layouts.official_files import NotThere, in_card_order, listed, require
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

SYNSET = r"n\d{8}"
IMAGENET_CLASSES = 1000
SPLIT_FOLDERS = {"train": TRAIN, "val": SELECTION, "test": TEST}
MISNAMED_SPLITS = {"val", "test", "valid", "validation", "training", "testing"}


def read_imagenet(card: DatasetCard, folder: Path) -> ImageTable:
    """Read ImageNet: `train/n########/` and `val/n########/`, whose sorted names are the labels.

    `val` is the test split, as in the literature: the creators keep the labels of their own test images.
    """
    require(card, folder, ("train", "val"))
    classes = tuple(card.classes)
    synsets = _synsets(folder / "train", len(classes) or IMAGENET_CLASSES)
    if _synsets(folder / "val", len(synsets)) != synsets:
        remedy = "unpack both again, or use data.card=folder for a subset"
        raise UserError.of(folder / "val", "other class folders than train/ has", "the same folders", remedy)
    rows = []
    for name, split in (("train", TRAIN), ("val", TEST)):
        for label, synset in enumerate(synsets):
            files = sorted(file for file in os.listdir(folder / name / synset) if _is_image(file))
            rows += [(f"{name}/{synset}/{file}", label, split) for file in files]
    return listed(folder, rows, classes or tuple(synsets))


def _synsets(folder: Path, wanted: int) -> list[str]:
    """Return the names of the class folders, sorted, of which there must be `wanted`."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    synsets = [entry.name for entry in entries if re.fullmatch(SYNSET, entry.name) and entry.is_dir()]
    if not synsets and any(_is_image(entry.name) for entry in entries):
        raise UserError.of(
            folder,
            "images without class folders",
            f"{wanted} folders such as n01440764",
            "move each image into the folder of its class: ILSVRC2012_validation_ground_truth.txt of the devkit gives "
            "each image's number, and its meta.mat the folder of each number",
        )
    if len(synsets) != wanted:
        raise UserError.of(
            folder,
            f"{len(synsets)} folders such as n01440764",
            f"exactly {wanted}, whose order gives the labels",
            "restore the missing ones; for a subset use data.card=folder and data.path",
        )
    return synsets


def read_image_folder(card: DatasetCard, folder: Path) -> ImageTable:
    """Read a folder of one folder per class, or of `train/`, `val/`, `test/` which hold those.

    The class list is that of train: a class that `val/` or `test/` lacks keeps its index, and one that only they
    have is an error.
    """
    if not folder.is_dir():
        raise NotThere.of("data.path", f"{folder}: no such folder", "a folder of images", "check data.path")
    roots = _split_folders(folder)
    files_of = _image_files(folder, depth=len(roots[TRAIN].relative_to(folder).parts) + 1)
    stamps = _unused(files_of, set(roots.values()), folder)
    label_of, classes = in_card_order(card, [group.name for group in _folders(roots[TRAIN])], roots[TRAIN])
    rows = []
    for split, root in roots.items():
        before = len(rows)
        for group in _folders(root):
            if group.name not in label_of:
                raise UserError.of(
                    group,
                    f"class '{group.name}' is not among the {len(label_of)} classes of {roots[TRAIN]}",
                    ", ".join(list(label_of)[:20]),
                    "add training images of this class, or take the folder out",
                )
            files = files_of[group.relative_to(folder).as_posix()]
            if not files and split == TRAIN:
                raise UserError.of(group, "no images", "at least 2 images", "fill the folder or take it out")
            rows += [(file, label_of[group.name], split) for file in sorted(files)]
        if len(rows) == before:
            raise UserError.of(root, "no images", "folders of images, one per class", "fill the folder or take it out")
    return dataclasses.replace(listed(folder, rows, classes), stamps=stamps)


def _unused(files_of: dict[str, list[str]], roots: set[Path], folder: Path) -> tuple[str, ...]:
    """Return a stamp if pictures lie outside the class folders: they belong to no class."""
    outside = {".", "", *(root.relative_to(folder).as_posix() for root in roots)}
    loose = [file for place in outside for file in files_of.get(place, ())]
    return (f"not used: {len(loose)} images outside the class folders, such as {loose[0]}",) if loose else ()


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return split -> folder: the splits' own folders if there is a `train/` of class folders, else all is train.

    A split under another name would become a class or be left out in silence, so it is refused.
    """
    names = {d.name for d in _folders(folder)}
    has_parts = "train" in names and bool(_folders(folder / "train"))
    odd = names - set(SPLIT_FOLDERS) if has_parts else {name for name in names if _is_misnamed(folder / name)}
    if odd:
        raise UserError.of(
            folder,
            f"folders {', '.join(sorted(names))}",
            "a folder per class; or train/ and, if you have them, val/ and test/, each with a folder per class",
            f"rename or take out {', '.join(sorted(odd))}",
        )
    if not has_parts:
        return {TRAIN: folder}
    return {split: folder / name for name, split in SPLIT_FOLDERS.items() if name in names}


def _is_misnamed(folder: Path) -> bool:
    """Whether a folder looks like a split under another name, such as `Train` or `seg_test`: it holds folders only."""
    words = set(re.split(r"[^a-z]+", folder.name.lower()))
    is_named_so = folder.name in MISNAMED_SPLITS or bool(words & {"train", *MISNAMED_SPLITS} and _folders(folder))
    return is_named_so and not (folder.name == "train" and not _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _image_files(folder: Path, depth: int) -> dict[str, list[str]]:
    """Return the images at any depth under each folder of `depth` names, all as paths inside `folder`.

    Raises:
        UserError: A link that leads out of the set, to a folder, or to nothing.
    """
    found = defaultdict(list)
    for root, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]  # such as .ipynb_checkpoints
        files = [name for name in files if not name.startswith(".")]
        for name in (*folders, *files):
            _check_link(folder, Path(root, name))
        inside = Path(root).relative_to(folder)
        found["/".join(inside.parts[:depth])] += [(inside / name).as_posix() for name in files if _is_image(name)]
    return found


def _fail(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be read


def _check_link(folder: Path, path: Path) -> None:
    """Refuse a link unless its target is a file of the set: pictures from elsewhere would come and go unseen."""
    if not path.is_symlink():
        return
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(folder)):
        given, remedy = f"a link out of the set, to {target}", "copy the files in, or give the folder that it points to"
        raise UserError.of(path, given, "files and folders inside data.path", f"{remedy} as data.path")
    if target.is_dir():
        raise UserError.of(path, f"a link to {target}, whose images would count twice", "folders", "take the link out")
    if not target.exists():
        raise UserError.of(path, f"a link to {target}, which does not exist", "files", "take the link out")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_ENDINGS)
