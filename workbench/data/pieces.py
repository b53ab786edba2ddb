"""Files that the `datasets` library reads, one by one: parquet and Arrow, found on a disk or fetched from the hub."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.card import Source


@dataclass(frozen=True)
class Piece:
    """One file of a split.

    Args:
        split: `train`, `selection` or `test`.
        key: Names the file and its content.
        rows: A `datasets` dataset, map-style or streaming, with all columns.
        num_bytes: Size of the file.
    """

    split: str
    key: str
    rows: Any
    num_bytes: int


def is_dataset(path: Path) -> bool:
    """Whether a path is a parquet or Arrow file, or a folder of such, or one that `save_to_disk` wrote."""
    if path.is_file():
        return path.suffix in (".parquet", ".arrow")
    has_state = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return path.is_dir() and (has_state or bool(_parquet_files(path)))


def _parquet_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])


def pieces_in(path: Path, source: Source) -> Iterator[Piece]:
    """Yield the files under a path that `is_dataset`, with their splits.

    Args:
        path: A parquet or Arrow file, a folder of parquet files, or a folder that `save_to_disk` wrote.
        source: Names of the splits; files that name none are all of train.
    """
    import datasets

    names = {source.splits.train: TRAIN, source.splits.selection: SELECTION, source.splits.test: TEST}
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        loaded = datasets.load_from_disk(str(path))
        parts = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [(source.splits.train, loaded)]
        for name, rows in parts:
            if name in names:
                yield Piece(names[name], f"{name} {rows._fingerprint}", rows, rows.data.nbytes)
        return
    files = _parquet_files(path) if path.is_dir() else [path]
    splits = [_split_of(file, names) for file in files]
    if not any(splits):  # files that name no split are all of train
        splits = [TRAIN] * len(files)
    for file, split in zip(files, splits, strict=True):
        if split:
            stat = file.stat()
            kind = "parquet" if file.suffix == ".parquet" else "arrow"
            key = f"{file.name} {stat.st_size} {stat.st_mtime_ns}"
            yield Piece(split, key, stream(kind, [file]), stat.st_size)


def _split_of(file: Path, names: Mapping[str | None, str]) -> str | None:
    """Return the split that a file's name, or its folder's, begins with, as in `train-00000-of-00002.parquet`."""
    for text in (file.stem, file.parent.name):
        word = text.replace("_", "-").replace(".", "-").split("-")[0]
        if word in names:
            return names[word]
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


def image_of(cell: Any) -> bytes | Path:
    """Return a picture cell's bytes or file; what is neither becomes bytes that do not decode."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    return Path(cell) if isinstance(cell, str) else cell or b""
