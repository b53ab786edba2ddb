"""The learning rate as a pure function of the step; each phase of a fit runs its schedule from the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PhasePlan:
    """One phase in steps.

    Args:
        train: First stage that trains (`all` for everything).
        steps: Length.
        lr: Peak rate.
    """

    train: str
    steps: int
    lr: float


def phase_at(step: int, phases: Sequence[PhasePlan]) -> tuple[int, int]:
    """Return (number of the phase that `step` lies in, steps done in it). Steps past the end lie in the last."""
    start = 0
    for number, phase in enumerate(phases):
        if step < start + phase.steps or number == len(phases) - 1:
            return number, step - start
        start += phase.steps
    raise ValueError("a fit needs at least one phase")


def rate_factor(
    step: int,
    length: int,
    name: str,
    *,
    warmup_steps: int = 0,
    final_lr_fraction: float = 0.0,
    decay_rate: float = 0.97,
    decay_steps: float = 1.0,
    milestones: Sequence[float] = (),
) -> float:
    """Return the factor on the peak rate.

    Args:
        step: Steps done in this phase, from 0.
        length: Steps of this phase.
        name: `cosine`, `exponential` (stairs, counted from step 0, as in tensorflow/tpu), `steps` (a drop after each
            milestone, as in BiT's HyperRule) or `constant`.
        warmup_steps: Linear rise; the step numbered `warmup_steps - 1` is the first at full rate.
        final_lr_fraction: cosine's factor at the end.
        decay_rate: exponential's factor per stair; steps' at each milestone.
        decay_steps: exponential's stair length.
        milestones: steps' shares of the phase after which the rate drops.

    Returns:
        A factor in [0, 1].

    Raises:
        ValueError: Unknown name.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if name == "constant":
        return 1.0
    if name == "exponential":
        return decay_rate ** math.floor(step / decay_steps)
    if name == "steps":
        return decay_rate ** sum(round(share * length) < step for share in milestones)
    if name == "cosine":
        progress = min(1.0, (step - warmup_steps) / max(1, length - warmup_steps))
        return final_lr_fraction + (1 - final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2
    raise ValueError(f"no such schedule: {name}; there are cosine, exponential, steps, constant")
