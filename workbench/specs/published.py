"""Published results that a run is put beside. Source: Tan & Le 2019, arXiv 1905.11946 v5, Table 5."""

from __future__ import annotations

from dataclasses import dataclass


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


_TABLE_5 = "Tan & Le 2019 (v5), Table 5"
TRANSFER = tuple(
    Published(card, arch, accuracy, _TABLE_5)
    for card, arch, accuracy in (
        ("cifar10", "b0", 0.981),
        ("cifar10", "b7", 0.989),
        ("cifar100", "b0", 0.881),
        ("cifar100", "b7", 0.917),
        ("birdsnap", "b5", 0.820),
        ("birdsnap", "b7", 0.843),
        ("cars", "b3", 0.936),
        ("cars", "b7", 0.947),
        ("flowers", "b5", 0.985),
        ("flowers", "b7", 0.988),
        ("aircraft", "b3", 0.907),
        ("aircraft", "b7", 0.929),
        ("pets", "b4", 0.948),
        ("pets", "b6", 0.954),
        ("food101", "b4", 0.915),
        ("food101", "b7", 0.930),
    )
)


def published_for(card: str, arch: str) -> Published | None:
    """Return the paper's transfer result for a card and an architecture, or None if it printed none."""
    return next((row for row in TRANSFER if (row.card, row.arch) == (card, arch)), None)
