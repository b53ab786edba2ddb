"""A prepared set on disk: Arrow files that `datasets.load_from_disk` reads, and a manifest that says what they hold.

The manifest is part of the folder that is put in place whole, so a folder that has one is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench import card_files
from workbench.data.splits import ImageTable, marks
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 1
"""Number of the layout below; another one is prepared again."""
FACTS = ("width", "height", "mode", "orientation", "grey", "phash", "thumb", "sha256", "problem")
"""Columns that say what each picture is like; see `looking.py`."""


@dataclass(frozen=True)
class Manifest:
    """What a prepared set holds.

    Args:
        format: `FORMAT` at the time.
        card: Name of the card.
        card_digest: Of what the card says about reading the set.
        source: Where the pictures came from.
        fingerprint: Of the source's content, as `Found.fingerprint`.
        holds_bytes: The pictures are inside; else the files stay where they are and are listed.
        classes: Class names.
        is_multi_label: Rows have lists of labels.
        counts: Pictures per split.
        num_bad: Pictures that do not decode.
        num_bytes: Size of the pictures.
        stamps: What a reader of any figure must know.
        parts: The Arrow files, in order.
        made: When, and by which version.
    """

    format: int
    card: str
    card_digest: str
    source: str
    fingerprint: str
    holds_bytes: bool
    classes: list[str]
    is_multi_label: bool
    counts: dict[str, int]
    num_bad: int
    num_bytes: int
    stamps: list[str]
    parts: list[str]
    made: str

    def to_json(self) -> str:
        """Return the manifest as text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None if it has none of this format or a part is gone; without torch."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**values) if values.get("format") == FORMAT else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return manifest if manifest and all((folder / part).is_file() for part in manifest.parts) else None


def place_name(card: DatasetCard, path: Path | None) -> str:
    """Return the folder name of a prepared set: the card's, with a hash of what else decides what is in it."""
    if path is not None:
        return f"{card.name}-{_short_hash(str(path.resolve()))}"
    is_shipped = card.name in card_files.list_cards() and card.sources == card_files.load_card(card.name).sources
    return card.name if is_shipped and card.layout != "rows" else f"{card.name}-{_short_hash(card_digest(card))}"


def needs_no_look(manifest: Manifest, card: DatasetCard, root: Path, path: Path | None) -> bool:
    """Whether a prepared set of this card is sure to be right without a look at its source.

    That is so if the source is not there, or the set is whole and its labels follow from the creators' own lists.
    """
    sizes = {split: size for split, size in dataclasses.asdict(card.sizes).items() if size is not None}
    is_whole = bool(sizes) and all(manifest.counts.get(split, 0) == size for split, size in sizes.items())
    if path is not None or not manifest.holds_bytes or manifest.card_digest != card_digest(card):
        return False
    has_source = any((root / name).exists() for name in (card.folder, card.name) if name)
    return not has_source or (is_whole and card.layout not in ("image_folder", "csv"))


def card_digest(card: DatasetCard) -> str:
    """Return a hash of what a card says about reading the set."""
    told = {name: getattr(card, name) for name in ("layout", "folder", "classes", "label_separator")}
    told["sources"] = [dataclasses.asdict(source) for source in card.sources]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class PreparedImages:
    """The pictures of a prepared set by row; opened on first use in each process, so that loader workers share files.

    Args:
        folder: The prepared set.
        rows: Its rows that are kept.
        fingerprint: Of the set that the rows were counted in.
    """

    def __init__(self, folder: Path, rows: np.ndarray, fingerprint: str):
        self.folder, self.rows, self.fingerprint = folder, rows, fingerprint
        self._column: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> bytes | Path:
        if self._column is None:
            self._column = open_arrow(self.folder, self.fingerprint)[0].column("image")
        image = self._column[int(self.rows[position])].as_py()
        return Path(image["path"]) if image["bytes"] is None else image["bytes"]

    def kept(self, rows: np.ndarray) -> PreparedImages:
        """Return the pictures of some rows."""
        return PreparedImages(self.folder, self.rows[rows], self.fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_column": None}


def open_arrow(folder: Path, fingerprint: str | None = None) -> tuple[Any, Manifest]:
    """Return the set as one memory-mapped Arrow table, and its manifest.

    Args:
        folder: A prepared set.
        fingerprint: Of the set that is meant; None: of whatever is there.

    Raises:
        UserError: It is not there or another one by now, or a part does not read.
    """
    import pyarrow

    manifest = read_manifest(folder)
    if manifest is None or fingerprint not in (None, manifest.fingerprint):
        told = "no prepared set" if manifest is None else "another prepared set than at the beginning"
        raise UserError.of(folder, told, "the set as it was", "its source was changed meanwhile: start again")
    try:
        parts = [pyarrow.ipc.open_stream(pyarrow.memory_map(str(folder / part))).read_all() for part in manifest.parts]
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError.of(
            folder,
            f"a damaged prepared set: {error}",
            "the files that `data prepare` wrote",
            f"remove {folder}: it is prepared again",
        ) from error
    return pyarrow.concat_tables(parts), manifest


def read_table(folder: Path) -> tuple[ImageTable, list[str]]:
    """Read a prepared set.

    Returns:
        Its table, with every row, and what is wrong with each image; empty if nothing is.
    """
    arrow, manifest = open_arrow(folder)
    if manifest.is_multi_label:
        labels = marks(arrow.column("labels").to_pylist(), len(manifest.classes))
    else:
        labels = arrow.column("label").to_numpy().astype(np.int64)
    table = ImageTable(
        ids=arrow.column("id").to_pylist(),
        images=PreparedImages(folder, np.arange(arrow.num_rows), manifest.fingerprint),
        labels=labels,
        splits=arrow.column("split").to_pylist(),
        classes=tuple(manifest.classes),
        stamps=tuple(manifest.stamps),
    )
    return table, arrow.column("problem").to_pylist()


def read_facts(folder: Path, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Return what was seen of some rows' images, or of all: a column of `FACTS` -> (N,) array, or list of bytes."""
    arrow = open_arrow(folder)[0].select(FACTS)
    columns = {name: arrow.column(name) if rows is None else arrow.column(name).take(rows) for name in FACTS}
    is_number = {"width", "height", "orientation", "grey"}
    return {name: c.to_numpy() if name in is_number else c.to_pylist() for name, c in columns.items()}
