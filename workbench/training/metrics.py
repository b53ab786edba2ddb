"""Scores of a split, all from torchmetrics, and the interval beside them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MultilabelAveragePrecision,
)

from workbench.specs.metric_names import LOSS, MEAN_AVERAGE_PRECISION, MEAN_PER_CLASS, TOP1, TOP5


class SplitScores(nn.Module):
    """Collects logits and targets of one split and computes every score.

    Args:
        num_classes: Outputs of the model.
        multi_label: Targets are (N, classes) of 0 and 1 instead of class indices.
    """

    def __init__(self, num_classes: int, multi_label: bool = False):
        super().__init__()
        self.multi_label = multi_label
        self.loss = MeanMetric()
        if multi_label:
            self.precision = MultilabelAveragePrecision(num_classes)
        else:
            self.confusion = MulticlassConfusionMatrix(num_classes)
            self.in_top5 = MeanMetric()
            self.most = min(5, num_classes)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: logits (N, classes); targets (N,) int64, or (N, classes) for multi-label."""
        logits = logits.float()
        if self.multi_label:
            losses = functional.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(1)
            self.precision.update(logits.sigmoid(), targets.long())
        else:
            losses = functional.cross_entropy(logits, targets, reduction="none")
            self.confusion.update(logits.argmax(1), targets)
            # torchmetrics' own top-k breaks ties by chance; ours must agree with predictions.csv
            self.in_top5.update((ranks(logits, targets) <= self.most).float())
        self.loss.update(losses)

    def compute(self) -> dict[str, float]:
        """Return score name -> value."""
        scores = {LOSS: float(self.loss.compute())}
        if self.multi_label:
            scores[MEAN_AVERAGE_PRECISION] = float(self.precision.compute())
        else:
            confusion = self.confusion.compute().double()
            scores[TOP1] = float(confusion.diagonal().sum() / confusion.sum())
            scores[TOP5] = float(self.in_top5.compute())
            scores[MEAN_PER_CLASS] = mean_per_class(confusion)
        return scores

    def reset(self) -> None:
        """Forget everything."""
        for metric in self.children():
            metric.reset()


def mean_per_class(confusion: Tensor) -> float:
    """Return the mean recall over the classes that occur.

    torchmetrics' macro average counts a class that is absent but predicted as 0; here it is left out.

    Args:
        confusion: (classes, classes) counts, rows are the truth.
    """
    totals = confusion.sum(1)
    present = totals > 0
    return float((confusion.diagonal()[present] / totals[present]).mean())


def interval95(metric: str, right: np.ndarray, labels: np.ndarray) -> tuple[float, float] | None:
    """Return a 95 % interval of a score on the images at hand.

    For top1 and top5 it is Wilson's. For mean_per_class it is the normal approximation with the variance of a mean
    of independent class shares, sum of p(1-p)/n over classes, over classes squared: it says nothing of training noise.

    Args:
        metric: `top1`, `top5` or `mean_per_class`; others have no interval here.
        right: (N,) bool, whether each image counts as right.
        labels: (N,) class of each.
    """
    if metric in (TOP1, TOP5):
        from scipy.stats import binomtest

        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)
    if metric == MEAN_PER_CLASS:
        present = np.unique(labels)
        shares = np.array([right[labels == c].mean() for c in present])
        counts = np.array([(labels == c).sum() for c in present])
        spread = 1.96 * math.sqrt((shares * (1 - shares) / counts).sum()) / len(present)
        return max(0.0, float(shares.mean() - spread)), min(1.0, float(shares.mean() + spread))
    return None


def ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """Return each image's rank of its true class among the outputs, 1 for the best; (N,) int64.

    Of equal outputs the one with the lower index comes first, as for `argmax`.
    """
    order = logits.argsort(dim=1, descending=True, stable=True)
    return 1 + (order == targets[:, None]).int().argmax(1)
