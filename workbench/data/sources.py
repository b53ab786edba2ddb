"""Where a set is looked for: its sources in the card's order, each failure kept as a reason.

Nothing here keeps a picture; `preparing.py` does. What is downloaded lies in the work folder until then.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

from workbench.data import dataset_rows, downloads, hub
from workbench.data.found import Found, found_in_table
from workbench.data.images import IMAGE_ENDINGS
from workbench.data.layouts.reading import NotThere, read_layout
from workbench.data.pieces import is_dataset
from workbench.specs.card import DatasetCard, Source
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")


class FoundNowhere(UserError):  # noqa: N818
    """No source has the set; the text has each one's reason."""


FETCHED = "fetched"
"""Folder of downloads inside the work folder."""


def find(card: DatasetCard, root: Path, path: Path | None, download: bool, work: Path) -> Found:
    """Return a set as the first source has it that has it.

    Args:
        card: The set and its sources.
        root: Folder of all sets.
        path: The user's own folder, list or dataset files: then nothing else is looked at.
        download: Whether sources on the net may be tried.
        work: Where downloads go.

    Raises:
        UserError: Found nowhere, with every source's reason; or found, but not as it should be.
    """
    if card.layout == "blossoms":
        raise UserError.of(f"dataset {card.name}", "nothing to prepare", "a set of files", "use it: it is rendered")
    if path is not None:
        return _local(card, path)
    if not card.folder and card.layout in ("image_folder", "csv"):
        kind = {"image_folder": "a folder of one folder per class (or of train/, val/, test/)", "csv": "a .csv file"}
        raise UserError.of("data.path", "null", kind[card.layout], "add data.path=PATH")
    reasons = []
    for source in card.sources:
        name = _name(source, card, root)
        if source.kind != "original" and not download:
            reasons.append(f"{name}: not tried, as data.download=false")
            continue
        try:
            return _from_source(source, card, root, work, name)
        except (downloads.SourceError, UserError) as error:
            is_no_way_on = source.kind == "original" or len(card.sources) == 1
            if is_no_way_on and isinstance(error, UserError) and not isinstance(error, NotThere):
                raise  # files that are there but broken, or the user's own choice of a copy
            told = "original files" if source.kind == "original" else name  # their reason names the folder
            reasons.append(f"{told}: {_reason(error)}")
            if source.kind != "original":
                log.info("%s; trying the next source", reasons[-1])
    raise FoundNowhere.of(
        f"dataset {card.name}",
        "\n            ".join(["found nowhere", *reasons]),
        "one source that answers",
        card.what_to_put_where or "put the original files under data.root, or give data.path or data.hub.id",
    )


def _name(source: Source, card: DatasetCard, root: Path) -> str:
    kinds = {
        "original": f"original files in {root / card.folder}",
        "torchvision": f"torchvision {source.dataset}",
        "hub": f"hub {source.id}",
    }
    return kinds[source.kind]


def _reason(error: Exception) -> str:
    return error.problems[0].given if isinstance(error, UserError) else str(error).strip()


def _from_source(source: Source, card: DatasetCard, root: Path, work: Path, name: str) -> Found:
    if source.kind == "original":
        return _on_disk(card, root, name)
    if source.kind == "torchvision":
        folder = work / FETCHED / source.dataset
        if card.gigabytes and not (folder / downloads.DONE).is_file():
            told = f"a download of {card.gigabytes:g} GB, unpacked and prepared"
            downloads.check_room(work, 3 * card.gigabytes, told)
        downloads.fetch_torchvision(source.dataset, folder)
        try:
            return found_in_table(read_layout(card, folder / card.folder), name)
        except UserError as error:  # what came is not the set
            shutil.rmtree(folder)
            raise downloads.SourceError(f"downloaded, but {_reason(error)}") from error
    return hub.find_on_hub(source, card, work / FETCHED, root / card.folder)


def _on_disk(card: DatasetCard, root: Path, name: str) -> Found:
    """Look for the creators' files, then for parquet or Arrow files in the same place."""
    for folder in (root / card.folder if card.folder else root / card.name, root / card.name):
        if is_dataset(folder):
            return dataset_rows.find_in_files(folder, _columns(card), card)
    if not card.folder:
        raise NotThere.of(name, "this set has no original files", "a hub copy", "give data.hub.id")
    return found_in_table(read_layout(card, root / card.folder), name)


def _local(card: DatasetCard, path: Path) -> Found:
    """Read what the user points to, by what it is."""
    if not path.exists():
        raise UserError.of("data.path", f"{path}: no such file or folder", "an existing one", "check data.path")
    where = f"files in {path}"
    if is_dataset(path):
        return dataset_rows.find_in_files(path, _columns(card), card)
    if not path.is_dir():
        if path.suffix.lower() in IMAGE_ENDINGS or not path.is_file():
            raise UserError.of("data.path", f"{path}: one picture, or no file", "a folder or a list", "give its folder")
        return found_in_table(read_layout(dataclasses.replace(card, layout="csv"), path), where)
    if card.layout in ("csv", "rows"):
        raise UserError.of(
            "data.path",
            f"{path}: a folder without parquet or Arrow files",
            "a .csv file, or dataset files",
            "name the file itself, or set data.card=folder for a folder of class folders",
        )
    try:
        return found_in_table(read_layout(card, path), where)
    except NotThere:
        return found_in_table(read_layout(dataclasses.replace(card, layout="image_folder"), path), where)


def _columns(card: DatasetCard) -> Source:
    """Return how the card's hub copy names its columns and splits: local copies are mostly taken from there."""
    return next((source for source in card.sources if source.kind == "hub"), Source("hub"))
