"""Published transfer results that runs are put beside: Table 5 of Tan & Le 2019 (arXiv 1905.11946 v5), and GPipe's own.

`document` holds what the mission's own section document prints instead, where that is known to differ.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Tan & Le 2019 (v5), Table 5"
GPIPE_SOURCE = "GPipe (arXiv 1811.06965), Table 4: mean of 5 fine-tuning runs"
DOCUMENT = "the section document"
DOCUMENT_NOTE = (
    "The section document differs from the paper in most previous-best and B7 cells of Table 5; only the cells given "
    "here are known, for the others: see the document."
)


@dataclass(frozen=True)
class Transfer:
    """One half of a row of Table 5: a previous best, and the EfficientNet beside it.

    Args:
        card: Dataset card.
        against: `public`: best model that is publicly available; `reported`: best reported result.
        other: The previous best's model.
        other_percent: Its accuracy, percent.
        other_params_m: Its parameters, millions, or None where none are printed.
        arch: The EfficientNet.
        percent: Its accuracy, percent.
        params_m: Its parameters without the head, millions, as printed.
        ratio: How many times fewer parameters, as printed, or None.
        document: What the section document prints for `percent`, where that is known to differ.
    """

    card: str
    against: str
    other: str
    other_percent: float
    other_params_m: float | None
    arch: str
    percent: float
    params_m: float
    ratio: float | None
    document: float | None = None


TABLE_5 = (
    Transfer("cifar10", "public", "NASNet-A", 98.0, 85, "b0", 98.1, 4, 21),
    Transfer("cifar10", "reported", "GPipe", 99.0, 556, "b7", 98.9, 64, 8.7),
    Transfer("cifar100", "public", "NASNet-A", 87.5, 85, "b0", 88.1, 4, 21),
    Transfer("cifar100", "reported", "GPipe", 91.3, 556, "b7", 91.7, 64, 8.7),
    Transfer("birdsnap", "public", "Inception-v4", 81.8, 41, "b5", 82.0, 28, 1.5),
    Transfer("birdsnap", "reported", "GPipe", 83.6, 556, "b7", 84.3, 64, 8.7, document=88.3),
    Transfer("cars", "public", "Inception-v4", 93.4, 41, "b3", 93.6, 10, 4.1),
    Transfer("cars", "reported", "DAT", 94.8, None, "b7", 94.7, 64, None),
    Transfer("flowers", "public", "Inception-v4", 98.5, 41, "b5", 98.5, 28, 1.5),
    Transfer("flowers", "reported", "DAT", 97.7, None, "b7", 98.8, 64, None),
    Transfer("aircraft", "public", "Inception-v4", 90.9, 41, "b3", 90.7, 10, 4.1),
    Transfer("aircraft", "reported", "DAT", 92.9, None, "b7", 92.9, 64, None, document=91.4),
    Transfer("pets", "public", "ResNet-152", 94.5, 58, "b4", 94.8, 17, 5.6),
    Transfer("pets", "reported", "GPipe", 95.9, 556, "b6", 95.4, 41, 14),
    Transfer("food101", "public", "Inception-v4", 90.8, 41, "b4", 91.5, 17, 2.4),
    Transfer("food101", "reported", "GPipe", 93.0, 556, "b7", 93.0, 64, 8.7),
)
"""NASNet-A's, Inception-v4's and ResNet-152's numbers are from Kornblith et al. 2019, DAT's from Ngiam et al. 2018.
64M is printed once for B7; here it stands in each of its rows."""

GPIPE_PARAMS_M = 556
GPIPE = {"cifar10": 99.0, "cifar100": 91.3, "cars": 94.6, "pets": 95.9, "food101": 93.0, "aircraft": 92.7} | {
    "birdsnap": 83.6
}
"""GPipe's own accuracies, percent, by card: on Cars and Aircraft Table 5 prints DAT's, which are higher."""


@dataclass(frozen=True)
class Published:
    """One published accuracy.

    Args:
        card: Dataset card.
        arch: Architecture.
        accuracy: Fraction.
        source: Paper and table.
    """

    card: str
    arch: str
    accuracy: float
    source: str


def transfers_of(card: str) -> tuple[Transfer, ...]:
    """Return Table 5's halves of rows for a card: public best, then reported best; none for other sets."""
    return tuple(row for row in TABLE_5 if row.card == card)


def published_for(card: str, arch: str) -> Published | None:
    """Return the paper's transfer result for a card and an architecture, or None if it printed none."""
    row = next((row for row in TABLE_5 if (row.card, row.arch) == (card, arch)), None)
    return row and Published(card, arch, round(row.percent / 100, 6), SOURCE)
