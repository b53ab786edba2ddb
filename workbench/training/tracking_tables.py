"""What a W&B run shows of a scored model: the selected scores, tables with thumbnails, confusions, activation maps."""

from __future__ import annotations

from typing import Any

from PIL import Image

from workbench.data.image_datamodule import ImageDataModule
from workbench.data.images import load_image
from workbench.data.splits import TEST
from workbench.training.cam_pictures import map_sheet
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.results import SplitResult

MOST_MISTAKES, MOST_PREDICTIONS, MOST_MAPS = 25, 100, 8
MOST_SECONDS = 300.0
"""How long the tables may take; the maps of a large network on a CPU are most of that."""
THUMBNAIL = 96
"""Longer side of a picture in a table, pixels."""
COLUMNS = ["image", "id", "actual", "predicted", "confidence", "class_probability"]


def log_scores(run: Any, result: dict[str, Any], epoch_steps: int) -> None:
    """Make the run's summary that of the chosen weights, not of the last validation; add the test scores to the rows.

    Args:
        run: The open run.
        result: result.json's content.
        epoch_steps: Steps of one epoch.
    """
    chosen = _scores("val", result["selection"])
    if chosen:
        step = result["selection"]["step"]
        chosen |= {"selected/step": step, "selected/epoch": step / epoch_steps}
    tested = _scores("test", result["test"])
    if tested:
        run.log(tested)
    run.summary.update({**chosen, **tested, "images_per_second": result["images_per_second"]})


def _scores(split: str, scores: dict[str, Any] | None) -> dict[str, float]:
    """Return a split's scores, and the ends of its interval, by their logged names."""
    found = {f"{split}/{name}": value for name, value in (scores or {}).items() if isinstance(value, float)}
    low, high = (scores or {}).get("interval95") or (None, None)
    return found if low is None else {**found, f"{split}/interval95_low": low, f"{split}/interval95_high": high}


def log_tables(run: Any, shown: SplitResult, data: ImageDataModule, classifier: EfficientNetClassifier) -> None:
    """Log predictions, the most confident mistakes, the confusion table and what the classifier looks at.

    Args:
        run: The open run.
        shown: The split that the tables are of.
        data: Gives names and pictures.
        classifier: As it was scored.
    """
    import wandb

    split = "test" if shown.split == TEST else "val"
    tables = {"predictions": _predictions(shown, data)}
    if not shown.is_multi_label:
        tables |= {"mistakes": _mistakes(shown, data), "confusion": _confusion(shown, data)}
    sheet = wandb.Image(map_sheet(classifier, [data.table.images[row] for row in _spread(shown.rows, MOST_MAPS)]))
    run.log({f"{split}/{name}": table for name, table in tables.items()} | {f"{split}/maps": sheet})


def _spread(rows: Any, most: int) -> list[int]:
    """Return rows from all over a split."""
    step = -(-len(rows) // most)
    return rows[::step].tolist()


def _thumbnail(data: ImageDataModule, row: int) -> Any:
    import wandb

    picture = Image.fromarray(load_image(data.table.images[row]).permute(1, 2, 0).numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return wandb.Image(picture)


def _predictions(shown: SplitResult, data: ImageDataModule) -> Any:
    """Return a table of images from all over the split."""
    import wandb

    names, table = data.classes, wandb.Table(columns=COLUMNS)
    step = -(-len(shown.rows) // MOST_PREDICTIONS)
    chosen = slice(None, None, step)
    for row, logits, target in zip(
        shown.rows[chosen].tolist(), shown.logits[chosen], shown.targets[chosen], strict=True
    ):
        if shown.is_multi_label:
            shares = logits.sigmoid()
            actual, predicted = target.nonzero().ravel().tolist(), (shares >= 0.5).nonzero().ravel().tolist()
        else:
            shares = logits.softmax(0)
            actual, predicted = [int(target)], [int(logits.argmax())]
        own = min((float(shares[i]) for i in actual), default=None)
        texts = (", ".join(names[i] for i in listed) for listed in (actual, predicted))
        table.add_data(_thumbnail(data, row), data.table.ids[row], *texts, float(shares.max()), own)
    return table


def _mistakes(shown: SplitResult, data: ImageDataModule) -> Any:
    """Return the most confident mistakes with their pictures."""
    import wandb

    names, table = data.classes, wandb.Table(columns=COLUMNS[:-1])
    for row, actual, predicted, confidence in shown.mistakes(MOST_MISTAKES):
        table.add_data(_thumbnail(data, row), data.table.ids[row], names[actual], names[predicted], confidence)
    return table


def _confusion(shown: SplitResult, data: ImageDataModule) -> Any:
    """Return who is taken for whom. W&B's own plot cuts off beyond 100 classes: only cells that occur are sent."""
    import wandb

    counts, names = shown.confusion(), data.classes
    table = wandb.Table(columns=["actual", "predicted", "count"])
    for actual, predicted in zip(*counts.nonzero(), strict=True):
        table.add_data(names[actual], names[predicted], int(counts[actual, predicted]))
    return table
