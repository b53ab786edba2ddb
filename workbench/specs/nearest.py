"""Which published architecture a scaling of one's own starts from. No torch: recipes are checked with it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from workbench.specs.architectures import ARCHS, Scaling
from workbench.specs.errors import UserError


def nearest_arch(target: Scaling, among: Iterable[str]) -> Scaling:
    """Return the architecture out of `among` that a custom scaling starts from.

    Growing keeps what a network computes and cutting does not: so it is the nearest of those that are neither wider
    nor deeper than the target, and only where there is none, the nearest of all. Nearness is the ratio of widths plus
    the ratio of depths, as logarithms. Resolution has no part in it: tensors do not depend on it.

    Args:
        target: The scaling wanted.
        among: Names out of `ARCHS` that there are weights for.

    Raises:
        UserError: Nothing to start from.
    """
    known = [ARCHS[name] for name in among if name in ARCHS]
    if not known:
        raise UserError.of(
            "model.weights",
            f"no weights of a named architecture to make {target.name} from",
            "weights of one of " + ", ".join(ARCHS),
            "name other weights, or set model.weights=none",
        )
    inside = [scaling for scaling in known if scaling.width <= target.width and scaling.depth <= target.depth]
    return min(inside or known, key=lambda source: _distance(source, target))


def _distance(source: Scaling, target: Scaling) -> float:
    return abs(math.log(target.width / source.width)) + abs(math.log(target.depth / source.depth))
