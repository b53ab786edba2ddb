"""How one recipe key is declared: default, meaning, unit, source, what is allowed."""

from __future__ import annotations

from dataclasses import field
from typing import Any

KORNBLITH = "Kornblith et al. 2019, as restated in SimCLR (arXiv 2002.05709) B.8"
PAPER = "Tan & Le 2019 (arXiv 1905.11946) section 5"
TPU = "tensorflow/tpu models/official/efficientnet"
GUESS = "a choice of this project"


def key(default: Any, doc: str, *, unit: str = "", source: str = GUESS, choices: tuple = (), span=None) -> Any:
    """Declare one recipe key.

    Args:
        default: Value if the recipe says nothing; a list becomes a fresh list each time.
        doc: One sentence, meaning and effect of null where null is allowed.
        unit: Unit of the value.
        source: Where the default comes from.
        choices: Allowed words, if the value is one of a closed list.
        span: (lowest, highest) allowed number, inclusive.
    """
    metadata = {"doc": doc, "unit": unit, "source": source, "choices": choices, "span": span}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
