"""A list of your own: a CSV file with the columns `path`, `label` and, if you like, `split`."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from workbench.data.class_names import match_classes
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import Problem, UserError

SPLIT_WORDS = {
    **dict.fromkeys(("", "train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "selection"), SELECTION),
    "test": TEST,
}
MOST_PROBLEMS = 10
"""Mistakes that one message lists."""


def read_csv(card: DatasetCard, path: Path) -> ImageTable:
    """Read a list of images.

    Paths count from the list's folder; they are the images' ids, as they are written. With
    `card.label_separator` a label cell holds any number of labels, and the table is multi-label.

    Args:
        card: May fix the classes; else they are the labels of the list, sorted.
        path: The file.

    Raises:
        UserError: Not such a list, or mistakes in its lines, each with its number: a missing file, no label, a split
            that is none, a path that is there twice.
    """
    rows = _read_rows(path)
    problems: list[Problem] = []
    lines_of: dict[str, int] = {}
    names = []
    for line, row in rows:
        labels = row["label"].split(card.label_separator) if card.label_separator else [row["label"]]
        names.append([label.strip() for label in labels if label.strip()])
        file = os.path.normpath(path.parent / row["path"])
        mistake = _mistake(path, row, lines_of.get(file), is_unlabelled=not names[-1] and not card.label_separator)
        if mistake:
            problems.append(Problem(f"{path}:{line}", *mistake))
        lines_of.setdefault(file, line)
    if problems:
        more = len(problems) - MOST_PROBLEMS
        if more > 0:
            problems = [*problems[:MOST_PROBLEMS], Problem(str(path), f"{more} more lines like these", "", "see above")]
        raise UserError(*problems)
    found = sorted({name for several in names for name in several})
    classes = tuple(card.classes or found)
    matched = match_classes(found, classes, path).tolist() if card.classes else range(len(found))
    numbers = dict(zip(found, matched, strict=True))
    if card.label_separator:
        labels = np.zeros((len(rows), len(classes)), dtype=bool)
        for i, several in enumerate(names):
            labels[i, [numbers[name] for name in several]] = True
    else:
        labels = np.array([numbers[name] for (name,) in names], dtype=np.int64)
    ids = [row["path"] for _, row in rows]
    splits = [SPLIT_WORDS[row["split"].lower()] for _, row in rows]
    return ImageTable(ids, [path.parent / name for name in ids], labels, splits, classes)


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, path and label and split) of every line that is not empty."""
    wanted = "a header `path,label` or `path,label,split`, and a line per image"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise UserError.of(path, f"the column {twice[0]} twice", wanted, "keep one of them")
            if not {"path", "label"} <= set(header):
                remedy = "name the columns in the first line" + (", separated by commas" if len(header) < 2 else "")
                raise UserError.of(path, f"the header {','.join(header)[:200]!r}", wanted, remedy)
            reader.fieldnames = header
            rows = []
            for row in reader:
                values = {name: (row.get(name) or "").strip() for name in ("path", "label", "split")}
                rows.append((reader.line_num, {**values, "too_long": "yes" if None in row else ""}))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError.of(path, f"not a CSV file in UTF-8: {error}", wanted, "save it as CSV with commas") from error
    if not rows:
        raise UserError.of(path, "no lines below the header", wanted, "list the images")
    return rows


def _mistake(path: Path, row: dict[str, str], earlier: int | None, is_unlabelled: bool) -> tuple[str, str, str] | None:
    """Return (given, allowed, remedy) of the first thing wrong with a line, or None."""
    image = path.parent / row["path"]
    if not row["path"]:
        return "no path", "the image's path", "fill the cell, or take the line out"
    if row["too_long"]:
        return "more cells than the header", "a cell per column", "put quotes around it, or set data.label_separator"
    if not row["label"].isprintable():
        return f"the label {row['label']!r}", "a name in one line", "correct the cell"
    if earlier:
        return f"{row['path']}, as in line {earlier}", "every image once", "take one line out"
    if not os.path.isfile(image):  # unlike Path.is_file, it takes a name too long for the disk as no file
        return f"{image}: no such file", f"a path that counts from {path.parent}", "correct the path, or add the file"
    if not os.access(image, os.R_OK):
        return f"{image}: not readable", "a readable file", "get permission, or take the line out"
    if is_unlabelled:
        return "no label", "a class name", "fill the cell, or take the line out"
    if row["split"].lower() not in SPLIT_WORDS:
        return f"split {row['split']!r}", "train, val, test or empty", "name one of them"
    return None
