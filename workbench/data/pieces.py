"""Files that the `datasets` library reads, one by one: parquet and Arrow, found on a disk or fetched from the hub."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.images import IMAGE_ENDINGS
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.card import Source
from workbench.specs.errors import UserError

DATASET_ENDINGS = (".parquet", ".arrow")
SPLIT_WORDS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""Words in a file's name that say its split, besides those that are asked for."""


@dataclass(frozen=True)
class Piece:
    """One file of a split.

    Args:
        split: `train`, `selection` or `test`.
        key: Names the file and its content.
        rows: A `datasets` dataset, map-style or streaming, with all columns.
        num_bytes: Size of the file.
        file: The file itself, if it is one and on this disk.
        inside: Folder that its pictures' paths must not leave; None where the user chose the files.
    """

    split: str
    key: str
    rows: Any
    num_bytes: int
    file: Path | None = None
    inside: Path | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows.features or next(iter(self.rows), {}))

    def column(self, name: str) -> list[Any]:
        """Return one column, without reading the others where the format allows that."""
        if self.file is not None and self.file.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(self.file, columns=[name]).column(name).to_pylist()
        return [row[name] for row in self.rows.select_columns([name])]


def is_dataset(path: Path) -> bool:
    """Whether a path is a parquet or Arrow file, a folder of such and no pictures, or what `save_to_disk` wrote."""
    if not path.is_dir():
        return path.suffix in DATASET_ENDINGS
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return True
    # Two levels tell: an original set can have a million files below them, which are not listed here.
    has_pictures = any(f.suffix.lower() in IMAGE_ENDINGS for f in itertools.chain(path.glob("*"), path.glob("*/*")))
    return not has_pictures and any(
        f.suffix in DATASET_ENDINGS for f in itertools.chain(path.glob("*"), path.glob("*/*"))
    )


def _dataset_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in DATASET_ENDINGS and file.is_file())


def pieces_in(path: Path, source: Source) -> tuple[list[Piece], list[str]]:
    """Open the files under a path that `is_dataset`.

    Args:
        path: A parquet or Arrow file, a folder of such, or a folder that `save_to_disk` wrote.
        source: Names of the splits; files that name none are all of train.

    Returns:
        The files with their splits, and the names of splits that are there but not asked for.

    Raises:
        UserError: Only some files name a split.
    """
    import datasets

    names = {source.splits.train: TRAIN, source.splits.selection: SELECTION, source.splits.test: TEST}
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        loaded = datasets.load_from_disk(str(path))
        parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {source.splits.train: loaded}
        pieces = [
            Piece(names[name], f"{name} {rows._fingerprint}", rows, rows.data.nbytes)
            for name, rows in parts.items()
            if name in names
        ]
        return pieces, [name for name in parts if name not in names]
    files = _dataset_files(path) if path.is_dir() else [path]
    stated = [_split_word(file, path, {*filter(None, names), *SPLIT_WORDS}) for file in files]
    if not any(stated):
        stated = [source.splits.train] * len(files)  # files that name no split are all of train
    elif not all(stated):
        odd = files[stated.index(None)]
        told = f"{odd.name} names no split, others do"
        raise UserError.of(path, told, "names such as train-0.parquet in all files", "rename the files")
    pieces = [
        Piece(names[word], _key_of(file), stream(file.suffix[1:], [file]), file.stat().st_size, file)
        for file, word in zip(files, stated, strict=True)
        if word in names
    ]
    return pieces, sorted({word for word in stated if word not in names})


def _key_of(file: Path) -> str:
    stat = file.stat()
    return f"{file.name} {stat.st_size} {stat.st_mtime_ns}"


def _split_word(file: Path, folder: Path, known: set[str]) -> str | None:
    """Return the split that a file's name, or its folder's, says, as in `train-00000-of-00002.parquet`."""
    plain = {name.lower(): name for name in known}
    for text in (file.stem, *(part for part in file.parent.parts[len(folder.parts) :][::-1])):
        for word in re.split(r"[-_. ]", text.lower()):
            if word in plain:
                return plain[word]
    return None


def stream(kind: str, files: Sequence[Path], features: Any = None) -> Any:
    """Open files as one streaming dataset, without a copy of them.

    Args:
        kind: A format of `datasets`, such as `parquet` or `imagefolder`.
        files: The files.
        features: Their columns, where they do not say themselves.
    """
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell a server of every opened file
    names = [glob.escape(str(file)) for file in files]  # they are taken for patterns
    return datasets.load_dataset(kind, data_files=names, split="train", streaming=True, features=features)


def undecoded(rows: Any, column: str) -> Iterator[Mapping[str, Any]]:
    """Yield rows with their pictures' original bytes, or the paths of their files."""
    import datasets

    feature = (rows.features or {}).get(column)
    is_image = isinstance(feature, datasets.Image)
    yield from rows.cast_column(column, datasets.Image(decode=False)) if is_image else rows


def image_of(cell: Any, inside: Path | None = None) -> bytes | Path:
    """Return a picture cell's bytes or file; what is neither becomes bytes that do not decode.

    Args:
        cell: Bytes, a path, or a mapping with `bytes` and `path`, as `datasets` keeps pictures.
        inside: Folder out of which no path may lead; None: any file of this machine may be meant.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or "\0" in cell:
        return b""
    path = Path(cell)
    try:
        is_allowed = inside is None or path.resolve().is_relative_to(inside.resolve())
        # a device or a pipe has no end; a file that is gone is named when it is read
        return path if is_allowed and (path.is_file() or not path.exists()) else b""
    except OSError:  # such as a name that is too long
        return b""
