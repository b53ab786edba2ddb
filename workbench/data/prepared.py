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

from workbench.data.splits import ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 1
"""Number of the layout below; another one is prepared again."""
NET_SOURCES = ("hub ", "torchvision ")
"""How `Found.where` begins for sources that cost a download to look at."""
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
    return f"{card.name}-{_short_hash(card_digest(card))}" if card.layout == "rows" else card.name


def needs_no_look(manifest: Manifest, card: DatasetCard, path: Path | None) -> bool:
    """Whether a prepared set is sure to be right: its bytes are inside, and no picture is missing."""
    sizes = {split: size for split, size in dataclasses.asdict(card.sizes).items() if size is not None}
    is_whole = bool(sizes) and all(manifest.counts.get(split, 0) == size for split, size in sizes.items())
    is_from_net = manifest.source.startswith(NET_SOURCES)
    return path is None and manifest.card_digest == card_digest(card) and (is_whole or is_from_net)


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
    """

    def __init__(self, folder: Path, rows: np.ndarray):
        self.folder, self.rows = folder, rows
        self._column: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> bytes | Path:
        if self._column is None:
            self._column = open_arrow(self.folder).column("image")
        image = self._column[int(self.rows[position])].as_py()
        return Path(image["path"]) if image["bytes"] is None else image["bytes"]

    def kept(self, rows: np.ndarray) -> PreparedImages:
        """Return the pictures of some rows."""
        return PreparedImages(self.folder, self.rows[rows])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_column": None}


def open_arrow(folder: Path) -> Any:
    """Return the set as one memory-mapped Arrow table.

    Raises:
        UserError: A part does not read.
    """
    import pyarrow

    manifest = read_manifest(folder)
    try:
        parts = [pyarrow.ipc.open_stream(pyarrow.memory_map(str(folder / part))).read_all() for part in manifest.parts]
    except (OSError, pyarrow.ArrowException, AttributeError) as error:
        raise UserError.of(
            folder,
            f"a damaged prepared set: {error}",
            "the files that `data prepare` wrote",
            f"remove {folder}: it is prepared again",
        ) from error
    return pyarrow.concat_tables(parts)


def read_table(folder: Path) -> tuple[ImageTable, list[str]]:
    """Read a prepared set.

    Returns:
        Its table, with every row, and what is wrong with each image; empty if nothing is.
    """
    arrow, manifest = open_arrow(folder), read_manifest(folder)
    if manifest.is_multi_label:
        labels = np.zeros((arrow.num_rows, len(manifest.classes)), dtype=bool)
        for row, found in enumerate(arrow.column("labels").to_pylist()):
            labels[row, found] = True
    else:
        labels = arrow.column("label").to_numpy().astype(np.int64)
    table = ImageTable(
        ids=arrow.column("id").to_pylist(),
        images=PreparedImages(folder, np.arange(arrow.num_rows)),
        labels=labels,
        splits=arrow.column("split").to_pylist(),
        classes=tuple(manifest.classes),
        stamps=tuple(manifest.stamps),
    )
    return table, arrow.column("problem").to_pylist()


def read_facts(folder: Path, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Return what was seen of some rows' images, or of all: a column of `FACTS` -> (N,) array, or list of bytes."""
    arrow = open_arrow(folder).select(FACTS)
    columns = {name: arrow.column(name) if rows is None else arrow.column(name).take(rows) for name in FACTS}
    is_number = {"width", "height", "orientation", "grey"}
    return {name: c.to_numpy() if name in is_number else c.to_pylist() for name, c in columns.items()}
