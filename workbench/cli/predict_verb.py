"""`workbench predict`: classify pictures with a finished run or model."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

TOLD_SECONDS = 2.0
"""What takes longer also says how fast it was; on standard error, so that the answers can be piped."""
FORMATS = ("table", "csv", "jsonl")
VIEWS = ("none", "flip", "five-crop", "ten-crop")
NOT_READ = 3
"""Exit code if some pictures could not be read; all others are answered."""


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes per picture.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Table; if --out is given, as its name ends, or CSV."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a file instead of printing.")
@click.option("--tta", type=click.Choice(VIEWS), default="none", show_default=True, help="Mean over several views.")
@click.option("--raw", is_flag=True, help="Probabilities as they come, though the model has a temperature.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Inputs per forward pass.")
def command(
    model: str, paths: tuple[str, ...], top: int, form: str | None, out: Path | None, tta: str, raw: bool, batch: int
) -> None:
    """Classify pictures: files, folders, quoted patterns, a CSV of paths, or - for a path a line.

    Answers are in the order of the pictures. What cannot be read is listed at the end, with exit code 3.

    \b
    workbench predict RUN photo.jpg more/ --top 1
    workbench predict RUN list.csv --out answers.csv
    find photos -name '*.jpg' | workbench predict RUN - --format jsonl
    workbench predict RUN 'photos/*.jpg' --tta flip
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.cli.answer_lines import LINES, write_answers
    from workbench.specs.errors import UserError
    from workbench.training import answers, machine
    from workbench.training.classifier import EfficientNetClassifier
    from workbench.training.picture_paths import wanted_pictures

    pictures = wanted_pictures(paths, sys.stdin.buffer)
    if out is not None and not out.parent.is_dir():
        raise UserError.of("predict --out", out, "a file in an existing folder", f"make {out.parent} first")
    form = form or ("table" if out is None else "jsonl" if out.suffix == ".jsonl" else "csv")
    classifier = EfficientNetClassifier.load(model)
    if raw:
        classifier.calibration = None
    device = machine.accelerator("auto")
    answers.set_to_answer(classifier, device)
    classifier.to("cuda" if device == "gpu" else "cpu")
    refused: dict[int, UserError] = {}
    began = time.perf_counter()
    batches = answers.answered_batches(
        classifier, [p.path for p in pictures], batch, top=top, views=tta, refuse=refused.__setitem__
    )
    write_answers(LINES[form](pictures, classifier, batches), out, len(pictures))
    seconds = time.perf_counter() - began
    if out is not None:
        print(out)
    answered = len(pictures) - len(refused)
    if seconds > TOLD_SECONDS:
        print(f"{answered} pictures in {seconds:.1f} s: {answered / seconds:.1f} images/s", file=sys.stderr)
    if classifier.calibration:
        found = classifier.calibration
        told = f"temperature {found['temperature']:.3g}, fitted on {found['n']} selection images"
        print(f"probabilities are calibrated: {told}; --raw leaves it out", file=sys.stderr)
    if refused:
        _say_refused(refused, len(pictures))
        sys.exit(NOT_READ)


def _say_refused(refused: dict[int, Exception], count: int) -> None:
    from workbench.specs.printable import printable

    print(f"{len(refused)} of {count} pictures could not be read, and have no answer:", file=sys.stderr)
    for error in refused.values():
        problem = error.problems[0]
        print(printable(f"  {problem.where}: {problem.given}", keep=""), file=sys.stderr)
