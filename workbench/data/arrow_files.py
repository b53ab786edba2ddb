"""The Arrow files of a prepared set: its columns, a file a unit, and what `datasets.load_from_disk` wants beside."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.atomic import replacing
from workbench.data.found import Found, Row
from workbench.data.images import read_bytes
from workbench.data.looking import look
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.errors import UserError

BATCH_ROWS = 64
"""Pictures held in memory at a time."""


def features_of(found: Found) -> Any:
    """Return the columns of a prepared set as `datasets.Features`."""
    from datasets import ClassLabel, Features, Image, List, Value

    label = ClassLabel(names=list(found.classes))
    return Features(
        {
            "id": Value("string"),
            "image": Image(decode=False),
            **({"labels": List(label)} if found.is_multi_label else {"label": label}),
            "split": Value("string"),
            "width": Value("int32"),
            "height": Value("int32"),
            "mode": Value("string"),
            "orientation": Value("int32"),
            "grey": Value("bool"),
            "phash": Value("binary"),
            "thumb": Value("binary"),
            "sha256": Value("string"),
            "problem": Value("string"),
        }
    )


def write_part(part: Path, rows: Iterator[Row], found: Found, pool: ThreadPoolExecutor, holds_bytes: bool) -> None:
    """Write one unit.

    Args:
        part: The file.
        rows: Its pictures.
        found: The set, for its columns.
        pool: Where pictures are looked at.
        holds_bytes: Keep the pictures' bytes; else the paths of their files.
    """
    import pyarrow
    from datasets.arrow_writer import ArrowWriter

    features = features_of(found)
    with ArrowWriter(features=features, path=str(part)) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            records = list(pool.map(lambda row: _record(row, found.is_multi_label, holds_bytes), batch))
            writer.write_table(pyarrow.Table.from_pylist(records, schema=features.arrow_schema))
        writer.finalize()


def _record(row: Row, is_multi_label: bool, holds_bytes: bool) -> dict[str, Any]:
    """Read and look at one picture; what does not decode is kept, with its problem."""
    path = None if isinstance(row.image, bytes) else str(row.image.absolute())
    try:
        data, problem = (row.image, "") if path is None else (read_bytes(row.image), "")
    except UserError as error:
        data, problem = b"", error.problems[0].given
    image = {"bytes": data, "path": None} if holds_bytes or path is None else {"bytes": None, "path": path}
    label = {"labels" if is_multi_label else "label": row.label}
    return {"id": row.id, "image": image, **label, "split": row.split, **_facts(data, problem)}


def _facts(data: bytes, problem: str) -> dict[str, Any]:
    facts = dataclasses.asdict(look(data))
    return {**facts, "problem": problem or facts["problem"]}


def finish(found: Found, folder: Path, parts: list[Path]) -> tuple[dict[str, int], int]:
    """Write what `datasets.load_from_disk` wants beside the parts.

    Returns:
        Pictures per split, and how many do not decode.
    """
    import pyarrow
    from datasets import DatasetInfo

    counts, num_bad = Counter(), 0
    for part in parts:
        with pyarrow.memory_map(str(part)) as file:
            arrow = pyarrow.ipc.open_stream(file).read_all()
            counts.update(arrow.column("split").to_pylist())
            num_bad += sum(map(bool, arrow.column("problem").to_pylist()))
    DatasetInfo(features=features_of(found)).write_to_directory(str(folder))
    state = {"_data_files": [{"filename": part.name} for part in parts], "_fingerprint": found.fingerprint[:16]}
    state |= {"_format_type": None, "_format_kwargs": {}, "_format_columns": None, "_split": None}
    with replacing(folder / "state.json") as beside:
        beside.write_text(json.dumps({**state, "_output_all_columns": False}, indent=1), encoding="utf-8")
    return {split: counts[split] for split in (TRAIN, SELECTION, TEST) if counts[split]}, num_bad
