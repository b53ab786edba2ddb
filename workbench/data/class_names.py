"""Match the class names of one copy of a set to those of its card: by name, never by number alone."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from workbench.specs.errors import UserError, suggestion

ALIKE = 0.8
"""Share of letters in common from which a name counts as another's misspelling; a guess."""


def match_classes(found: Sequence[str], wanted: Sequence[str], where: object) -> np.ndarray:
    """Return, for each name found, the number of the wanted class.

    Case, blanks and signs do not count, nor synonyms after a comma or a remark in brackets (`tench, Tinca tinca`).
    A name that this leaves open, as ImageNet's two cranes or a misspelling, is taken by its place, if it is like the
    name that belongs there and every other name is in its place.

    Args:
        found: Names as a copy writes them, in any order; some of the wanted may be missing.
        wanted: The card's names, whose order gives the labels.
        where: The copy, for the message.

    Returns:
        (len(found),) int64, each number once.

    Raises:
        UserError: A name that is no class of the set, or two names for one class.
    """
    exact = {name: [number] for number, name in enumerate(wanted)}
    whole, short = defaultdict(list), defaultdict(list)
    for number, name in enumerate(wanted):
        whole[_plain(name)].append(number)
        short[_plain(_head(name))].append(number)
    candidates = [exact.get(n) or whole.get(_plain(n)) or short.get(_plain(_head(n)), []) for n in found]
    settled = {place: numbers[0] for place, numbers in enumerate(candidates) if len(numbers) == 1}
    others_in_place = len(found) == len(wanted) and all(place == number for place, number in settled.items())
    left_open = [place for place in range(len(found)) if place not in settled]
    if others_in_place and all(p in candidates[p] or _alike(found[p], wanted[p]) for p in left_open):
        return np.arange(len(wanted))
    odd = [str(name) for place, name in enumerate(found) if place not in settled]
    if not odd and len(set(settled.values())) < len(settled):
        odd = [str(found[place]) for place, number in settled.items() if list(settled.values()).count(number) > 1]
    if odd:
        raise UserError.of(
            where,
            f"{len(odd)} class names that are not the card's: {', '.join(odd[:5])}",
            ", ".join(wanted[:10]) + (f" and {len(wanted) - 10} more" if len(wanted) > 10 else ""),
            suggestion(odd[0], wanted, "take another copy of the set, or correct the card's `classes`"),
        )
    return np.array([settled[place] for place in range(len(found))], dtype=np.int64)


def _alike(found: object, wanted: str) -> bool:
    one, other = _plain(found), _plain(wanted)
    return one in other or other in one or difflib.SequenceMatcher(None, one, other).ratio() > ALIKE


def _plain(name: object) -> str:
    return "".join(letter for letter in str(name).casefold() if letter.isalnum())


def _head(name: object) -> str:
    return str(name).split(",")[0].split("(")[0]
