"""Which pictures are meant: files, folders, patterns, a CSV of paths, lines on standard input, in the order given."""

from __future__ import annotations

import csv
import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from workbench.data.images import IMAGE_ENDINGS
from workbench.specs.errors import Problem, UserError
from workbench.training.csv_cells import restored

PATH_COLUMNS = ("path", "image")
"""Of a CSV: the first of these that it has."""
STDIN = "-"
_WANTED = "a header with the column `path` or `image`, separated by commas, and a line per picture"


@dataclass(frozen=True)
class Wanted:
    """One picture that is asked for.

    Args:
        path: The file to open.
        name: How it was named; a CSV's cell, or the path.
        given: The other cells of its line in a CSV.
    """

    path: Path
    name: str
    given: Mapping[str, str] = field(default_factory=dict)


def wanted_pictures(paths: Sequence[str], stdin: BinaryIO) -> list[Wanted]:
    """Find the pictures that some words on the command line mean.

    A folder means every file in it, however deep, that is named as a picture; a pattern such as `photos/*.jpg` means
    what it matches, sorted; `list.csv` the paths in it; `-` a path a line. Whether a file is there and is a picture is
    for whoever opens it to say.

    Args:
        paths: The words.
        stdin: What `-` reads.

    Raises:
        UserError: Every word that means no picture at all, and every CSV that is none.
    """
    found: list[Wanted] = []
    problems: list[Problem] = []
    for word in paths:
        try:
            meant = list(_from_stdin(stdin) if word == STDIN else _meant(word))
            if not meant:
                raise UserError.of("predict", _words_for_none(word), "at least one picture", "check the path")
            found += meant
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return found


def _meant(word: str) -> Iterator[Wanted]:
    path = Path(word)
    if not os.path.lexists(path) and any(sign in word for sign in "*?["):
        for name in sorted(glob.glob(word, recursive=True)):
            yield from _file_or_folder(Path(name))
    elif path.suffix.lower() == ".csv":
        yield from read_list(path)
    else:
        yield from _file_or_folder(path)


def _file_or_folder(path: Path) -> Iterator[Wanted]:
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0  # whoever opens it will say so
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise UserError.of(path, "a device", "a picture, or a folder of pictures", "name a file")
    if not stat.S_ISDIR(mode):
        yield Wanted(path, str(path))
        return
    closed: list[str] = []
    inside: list[Path] = []
    for folder, _, names in os.walk(path, onerror=lambda error: closed.append(str(error.filename))):
        inside += [Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGE_ENDINGS]
    inside += map(Path, closed)  # cannot be listed: opening it says why
    yield from (Wanted(file, str(file)) for file in sorted(inside))


def _from_stdin(stdin: BinaryIO) -> Iterator[Wanted]:
    for line in stdin.read().split(b"\n"):
        if line.strip():
            yield from _file_or_folder(Path(os.fsdecode(line.removesuffix(b"\r"))))


def read_list(path: Path) -> Iterator[Wanted]:
    """Read a CSV of paths; one counts from the list's folder, or from the current one if it is only there.

    Raises:
        UserError: No CSV file with such a column, a column twice, or a line with more cells than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [restored(name).strip() for name in next(reader, ())]
            rows = [(reader.line_num, [restored(cell) for cell in row]) for row in reader if any(row)]
    except OSError as error:
        raise UserError.of(path, error.strerror or error, "a CSV file", "check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError.of(path, f"not a CSV file in UTF-8: {error}", _WANTED, "save it as CSV with commas") from error
    column = next((name for name in PATH_COLUMNS if name in header), None)
    if column is None:
        raise UserError.of(path, f"the header {','.join(header)[:200]!r}", _WANTED, "name the column in the first line")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UserError.of(path, f"the column {twice[0]!r:.80} twice", _WANTED, "keep one of them")
    place = header.index(column)
    for line, row in rows:
        if len(row) > len(header):
            raise UserError.of(f"{path}:{line}", "more cells than the header", _WANTED, "put quotes around the cell")
        cells = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
        name = cells.pop(column)
        if not name:
            raise UserError.of(f"{path}:{line}", f"no {column}", _WANTED, "fill the cell, or take the line out")
        yield Wanted(_from_list(path.parent, row[place]), name, cells)


def _from_list(folder: Path, name: str) -> Path:
    beside = folder / name
    return beside if os.path.lexists(beside) or not os.path.lexists(name) else Path(name)


def _words_for_none(word: str) -> str:
    if word == STDIN:
        return "nothing on standard input"
    if word.lower().endswith(".csv"):
        return f"{word}: no lines below the header"
    return f"{word}: " + ("no picture in this folder" if os.path.isdir(word) else "no file is named so")
