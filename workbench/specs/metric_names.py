"""Every metric's name, in one list. A name in logs is `split/metric`, as in `val/top1`."""

SPLITS = ("train", "val", "test")
"""`val` is the selection split in logs, as Lightning's hooks call it."""

TOP1, TOP5, MEAN_PER_CLASS, LOSS = "top1", "top5", "mean_per_class", "loss"
MEAN_AVERAGE_PRECISION = "mean_average_precision"

SCORES = {
    TOP1: "share of images whose best-scored class is right",
    TOP5: "share of images whose class is among the five best-scored (fewer if there are fewer classes)",
    MEAN_PER_CLASS: "mean over the classes present of each class's share of right images",
    LOSS: "mean cross-entropy (multi-label: binary cross-entropy) without label smoothing",
    MEAN_AVERAGE_PRECISION: "multi-label: mean over classes of average precision",
}
SINGLE_LABEL = (TOP1, TOP5, MEAN_PER_CLASS)
"""Scores that a dataset card can be judged by."""
HIGHER_IS_BETTER = {TOP1: True, TOP5: True, MEAN_PER_CLASS: True, LOSS: False, MEAN_AVERAGE_PRECISION: True}

LOGGED = (
    "epoch",
    "step",
    "phase",
    "train/loss",
    "train/lr",
    *(f"val/{name}" for name in SCORES),
)
"""Columns of metrics.csv, in order. `phase` counts from 0."""


def logged_name(split: str, metric: str) -> str:
    """Join a split and a metric, refusing words that are not in the lists."""
    if split not in SPLITS or metric not in SCORES:
        raise ValueError(f"no such metric: {split}/{metric}")
    return f"{split}/{metric}"
