"""`workbench predict`: classify pictures with a finished run or model."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

BATCH = 32
TOLD_SECONDS = 2.0
"""What takes longer also says how fast it was; on standard error, so that the answers can be piped."""


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a CSV instead of printing.")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes per picture.")
def command(model: str, paths: tuple[str, ...], out: Path | None, top: int) -> None:
    """Classify pictures and folders of pictures.

    \b
    workbench predict runs/quickstart/20261123-101500-a1b2c3 photo.jpg more/ --out answers.csv
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.atomic import disk_errors
    from workbench.data.images import IMAGE_ENDINGS
    from workbench.specs.errors import UserError
    from workbench.specs.printable import printable
    from workbench.training import answers, machine, run_folder
    from workbench.training.classifier import EfficientNetClassifier

    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_ENDINGS)
        else:
            files.append(path)
    if not files:
        raise UserError.of("predict", " ".join(paths), "pictures, or folders that hold some", "check the paths")
    if out is not None and not out.parent.is_dir():
        raise UserError.of("predict --out", out, "a file in an existing folder", f"make {out.parent} first")
    classifier = EfficientNetClassifier.load(model)
    device = machine.accelerator("auto")
    answers.set_to_answer(classifier, device)
    classifier.to("cuda" if device == "gpu" else "cpu")
    began = time.perf_counter()
    probabilities, classes = answers.most_probable(classifier, files, BATCH, top)
    seconds = time.perf_counter() - began
    rows = [
        (os.fsencode(file).decode(errors="backslashreplace"), rank, classifier.classes[number], f"{probability:.6f}")
        for file, shares, numbers in zip(files, probabilities.tolist(), classes.tolist(), strict=True)
        for rank, (probability, number) in enumerate(zip(shares, numbers, strict=True), 1)
    ]
    if out is None:
        for row in rows:
            print(*(printable(str(cell), keep="") for cell in row), sep="\t")
    else:
        with disk_errors(out):
            run_folder.write_rows(out, ("path", "rank", "class", "probability"), rows)
        print(out)
    if seconds > TOLD_SECONDS:
        print(f"{len(files)} pictures in {seconds:.1f} s: {len(files) / seconds:.1f} images/s", file=sys.stderr)
