"""The published cells of AmoebaNet-A, -B and -C (Real et al. 2018, arXiv 1802.01548), as data.

Source: tensorflow/tpu, models/official/amoeba_net/model_specs.py. `models/amoebanet.py` builds networks of them.
"""

from __future__ import annotations

from dataclasses import dataclass

Operation = tuple[str, int]


@dataclass(frozen=True)
class Cell:
    """How a cell computes states 2 to 6 from state 0 (the last cell's output) and state 1 (that of the one before).

    Args:
        sums: Of each new state, the two operations whose results it adds, and the state that each of them takes.
        output: The states that make the cell's output, side by side; some are taken by operations as well.
    """

    sums: tuple[tuple[Operation, Operation], ...]
    output: tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """One network.

    Args:
        filters: Channels of an operation's result in the first stage; they double with each stage ("F").
        repeats: Normal cells in each of the three stages ("N").
        normal: The cell that keeps the size.
        reduction: The cell that halves it.
    """

    filters: int
    repeats: int
    normal: Cell
    reduction: Cell


DESIGNS = {
    # N=6, F=190: 86.7M parameters, 23.1B multiply-adds (Real et al., Table 2)
    "amoebanet_a": Design(
        190,
        6,
        Cell(
            (
                (("avg_3x3", 0), ("max_3x3", 0)),
                (("sep_3x3", 1), ("none", 1)),
                (("none", 0), ("avg_3x3", 1)),
                (("sep_3x3", 0), ("sep_5x5", 2)),
                (("avg_3x3", 5), ("sep_3x3", 0)),
            ),
            (1, 3, 4, 6),
        ),
        Cell(
            (
                (("sep_3x3", 1), ("avg_3x3", 0)),
                (("max_3x3", 0), ("sep_7x7", 2)),
                (("max_3x3", 1), ("max_3x3", 0)),
                (("sep_3x3", 4), ("1x7_7x1", 0)),
                (("avg_3x3", 1), ("sep_7x7", 0)),
            ),
            (2, 3, 4, 5, 6),
        ),
    ),
    # (18, 512), 18 being the normal cells of all stages: 557M parameters (Huang et al. 2018, arXiv 1811.06965)
    "amoebanet_b": Design(
        512,
        6,
        Cell(
            (
                (("1x1", 1), ("max_3x3", 1)),
                (("none", 1), ("sep_3x3", 0)),
                (("1x1", 1), ("sep_3x3", 0)),
                (("1x1", 2), ("none", 2)),
                (("avg_3x3", 1), ("1x1", 5)),
            ),
            (0, 3, 4, 6),
        ),
        Cell(
            (
                (("max_2x2", 0), ("max_3x3", 0)),
                (("none", 2), ("3x3", 1)),
                # named a dilated one, but tensorflow/tpu reads kernel and repeats from the name, and no dilation
                (("sep_5x5", 2), ("max_3x3", 2)),
                (("none", 3), ("sep_3x3", 1)),
                (("avg_3x3", 4), ("1x1", 3)),
            ),
            (5, 6),
        ),
    ),
    # N=6, F=228 give the 155M and 41B that Tan & Le print
    "amoebanet_c": Design(
        228,
        6,
        Cell(
            (
                (("avg_3x3", 0), ("sep_3x3", 0)),
                (("none", 0), ("sep_3x3", 0)),
                (("avg_3x3", 2), ("sep_3x3", 1)),
                (("none", 0), ("sep_3x3", 1)),
                (("avg_3x3", 3), ("sep_3x3", 0)),
            ),
            (1, 2, 4, 5, 6),
        ),
        Cell(
            (
                (("max_3x3", 0), ("max_3x3", 0)),
                (("sep_7x7", 2), ("sep_3x3", 0)),
                (("sep_7x7", 0), ("max_3x3", 1)),
                (("sep_5x5", 4), ("sep_5x5", 4)),
                (("max_3x3", 1), ("sep_3x3", 1)),
            ),
            (0, 2, 3, 4, 5, 6),
        ),
    ),
}
