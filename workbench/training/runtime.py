"""Which layout, precision, compiling and micro-batch a fit computes its steps with, where measuring decides.

`train.runtime: auto` measures all four on this machine, `train.micro_batch_size: auto` only what fits in memory. How a
candidate is measured is in `runtime_trial.py`. Measurements are kept in the user's cache folder; what was chosen is
kept in the run folder, so that a run goes on as it began. The effective batch is never changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.atomic import replacing
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")

TIE = 0.97
"""A candidate replaces what the recipe states if it takes less than this share of its time; a guess at the noise."""
WORSE = 1.15
"""A candidate that takes so many times the best one's time after its first steps is measured no further; a guess."""
COMPILE_FROM_SECONDS = 1800.0
"""Training shorter than this is not compiled for a trial: compiling takes minutes itself; a guess."""
FEWEST_IMAGES = 16
"""Micro-batches are not made smaller than this for speed: BatchNorm takes its statistics from them; a guess."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """How a step is computed.

    Args:
        channels_last: Memory layout.
        precision: `fp32`, `bf16` or `fp16`.
        compiled: By torch.compile.
        micro_batch_size: Images per forward pass.
    """

    channels_last: bool
    precision: str
    compiled: bool
    micro_batch_size: int

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        how = "compiled" if self.compiled else "eager"
        return f"{layout}, {self.precision}, {how}, micro-batch {self.micro_batch_size}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a runtime was measured to take.

    Args:
        runtime: The candidate.
        step_seconds: Per optimizer step, all its micro-batches and the update.
        compile_seconds: Before the first step.
    """

    runtime: Runtime
    step_seconds: float
    compile_seconds: float = 0.0

    def seconds(self, steps: int, compiles: int) -> float:
        """Return the time of a fit of so many steps that compiles so often."""
        return self.step_seconds * steps + self.compile_seconds * compiles


@dataclasses.dataclass(frozen=True)
class Question:
    """What is to be decided, and for how long a fit.

    Args:
        stated: What the recipe states, not compiled; the candidate to beat.
        precisions: Tried; `stated`'s alone if the recipe states one.
        sizes: Smaller micro-batches that are tried for speed, largest first; empty if the recipe states one.
        steps: Optimizer steps of the fit.
        compiles: Parts of the fit that freeze something else, each of which is compiled anew.
    """

    stated: Runtime
    precisions: tuple[str, ...]
    sizes: tuple[int, ...]
    steps: int
    compiles: int

    def allows(self, one: Runtime) -> bool:
        """Whether a runtime has the precision and the micro-batch that are asked for."""
        sizes = (self.stated.micro_batch_size, *self.sizes)
        return one.precision in self.precisions and one.micro_batch_size in sizes


Measure = Callable[[Runtime, float | None], Measured | None]
"""(candidate, seconds per step beyond which to give up, or None) -> what was measured; None: it cannot run here."""


def search(question: Question, measure: Measure, known: Sequence[Measured] = ()) -> list[Measured]:
    """Measure one thing after the other, each time with the best so far.

    Args:
        question: What is to be decided.
        measure: Measures one candidate.
        known: Measured before, perhaps for another question; not measured again.

    Returns:
        Everything measured or known that answers the question, the stated runtime first.

    Raises:
        UserError: The stated runtime does not fit in memory.
    """
    found = {one.runtime: one for one in known if question.allows(one.runtime)}

    def attempt(candidate: Runtime) -> Measured | None:
        if candidate not in found:
            bound = WORSE * min(one.step_seconds for one in found.values()) if found else None
            if (one := measure(candidate, bound)) is not None:
                found[candidate] = one
        return found.get(candidate)

    stated = question.stated
    if attempt(stated) is None:
        raise UserError.of(
            "train.runtime",
            f"{stated}: does not fit in memory",
            "a micro-batch that fits",
            "set train.micro_batch_size=auto, or a smaller data.resolution",
        )
    for channels_last, precision in itertools.product((True, False), question.precisions):
        attempt(dataclasses.replace(stated, channels_last=channels_last, precision=precision))
    best = _fastest(found)
    for size in question.sizes:
        smaller = attempt(dataclasses.replace(best.runtime, micro_batch_size=size))
        if smaller is None or smaller.step_seconds >= best.step_seconds:
            break
        best = smaller
    if best.step_seconds * question.steps >= COMPILE_FROM_SECONDS:
        attempt(dataclasses.replace(best.runtime, compiled=True))
    return [found.pop(stated), *found.values()]


def _fastest(found: Mapping[Runtime, Measured]) -> Measured:
    return min((one for one in found.values() if not one.runtime.compiled), key=lambda one: one.step_seconds)


def choose(measured: Sequence[Measured], question: Question) -> Measured:
    """Return what makes the whole fit shortest, compiling included; the stated runtime wins ties.

    Args:
        measured: As `search` returns it, the stated runtime first.
        question: What is to be decided.
    """
    first = measured[0]
    best = min(measured, key=lambda one: one.seconds(question.steps, question.compiles))
    saves = best.seconds(question.steps, question.compiles) < TIE * first.seconds(question.steps, question.compiles)
    return best if saves else first


def told(chosen: Measured, measured: Sequence[Measured], question: Question, batch_size: int) -> str:
    """Return one line: what was chosen, and how many times its speed the others have."""
    others = [
        f"{one.runtime}: {chosen.step_seconds / one.step_seconds:.2f}x" + _compiling(one, question)
        for one in measured
        if one != chosen
    ]
    return (
        f"runtime: {chosen.runtime} of {batch_size}: {chosen.step_seconds:.3g} s a step{_compiling(chosen, question)}; "
        f"measured beside it: {'; '.join(others) or 'nothing'}"
    )


def _compiling(one: Measured, question: Question) -> str:
    if not one.runtime.compiled:
        return ""
    return f" (compiling takes {question.compiles} x {one.compile_seconds:.0f} s, the fit has {question.steps} steps)"


def divisors(batch_size: int) -> tuple[int, ...]:
    """Return the sizes that divide a batch, largest first."""
    return tuple(size for size in range(batch_size, 0, -1) if batch_size % size == 0)


def smaller_sizes(batch_size: int, largest: int) -> tuple[int, ...]:
    """Return the micro-batches worth trying for speed: a half, a quarter and an eighth of `largest`."""
    halves = (largest // 2, largest // 4, largest // 8)
    return tuple(size for size in halves if size >= FEWEST_IMAGES and batch_size % size == 0)


# ---- kept between runs -------------------------------------------------------------------------------------------


def cache_file(key: Mapping[str, Any]) -> Path:
    """Return where measurements for a machine, network and versions are kept: $XDG_CACHE_HOME, else ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return root / "efficientnet-workbench" / "runtime" / f"{digest}.json"


def read_cache(path: Path, key: Mapping[str, Any]) -> list[Measured]:
    """Return what was measured before; nothing if that cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != dict(key):
            return []
        return list(_read(content["measured"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_cache(path: Path, key: Mapping[str, Any], measured: Sequence[Measured]) -> None:
    """Keep measurements; a folder that cannot be written costs the next run its time, not this one."""
    content = {"key": dict(key), "measured": [dataclasses.asdict(one) for one in measured]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as error:
        log.info("measurements of the runtime are not kept: %s", error)


def _read(measured: Any) -> Iterator[Measured]:
    for one in measured:
        yield Measured(**{**one, "runtime": Runtime(**one["runtime"])})
