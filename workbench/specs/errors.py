"""Errors that a user can cause, each in four parts: where, what was given, what is allowed, what to do.

Raise `UserError` for anything that a user can put right; the command line prints it without a traceback and
exits with code 2. Our own faults are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from workbench.specs.confidential import without_secrets


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Args:
        where: File and key, path, or command in which it was found.
        given: What was found there.
        allowed: What would be right.
        remedy: What to do next, as an instruction.
    """

    where: str
    given: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.where}\n  given:    {self.given}\n  allowed:  {self.allowed}\n  do this:  {self.remedy}"
        return without_secrets(text)


class UserError(Exception):
    """One or more mistakes that the user can put right.

    Args:
        problems: All that were found, not only the first.
    """

    def __init__(self, *problems: Problem):
        if not problems:
            raise ValueError("a UserError needs at least one Problem")
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, where: object, given: object, allowed: object, remedy: str) -> UserError:
        """Build an error of one problem from anything printable."""
        return cls(Problem(str(where), str(given), str(allowed), remedy))


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `word`, or None if none is near."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return found[0] if found else None


def suggestion(word: str, choices: Iterable[str], otherwise: str) -> str:
    """Return "did you mean X?" for the nearest choice, or `otherwise` if none is near."""
    choice = nearest(word, choices)
    return f"did you mean '{choice}'?" if choice else otherwise
