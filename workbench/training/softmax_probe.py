"""L2-regularised softmax on fixed features: the optimum for a whole grid of strengths, by L-BFGS with warm starts.

The objective is mean cross-entropy plus strength / 2 times the squared norm of the weights on standardised features
(each with mean 0 and variance 1 over the training rows); biases are free. It is convex: a result depends on the
features and the strength, neither on a seed nor on a schedule. In a multi-label set each class is a logistic
regression of its own, by the same strength.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS = tuple(10.0 ** (0.75 * number - 6) for number in range(9))
"""The default grid, 1e-6 to 1: a choice of this project. Below it, float32 rounds away what is left to gain."""
FEW_STRENGTHS = tuple(10.0**number for number in range(-5, 4))
"""For parts of train: of 1 to 10 images a class of blossoms the best was 0.03 to 10 in 320 features."""
PLATEAU = 100.0
"""From here on a head is the nearest class mean, whatever the strength: blossoms' accuracy no longer changed."""
TOLERANCE = 1e-5
"""Of what is still to gain, relative to the objective, at which a solution counts as reached."""
_CHUNK = 1 << 24
"""Logits that are held at once."""
_HISTORY = 10
"""Steps that L-BFGS remembers."""


@dataclass(frozen=True)
class Solution:
    """The optimum at one strength.

    Args:
        strength: Factor of the penalty.
        weight: (classes, F) float32 on the features as they were given: the standardisation is folded in. On the CPU.
        bias: (classes,) float32.
        objective: Its value at the end.
        to_gain: Estimate of how far that lies above the optimum, relative to it.
        iterations: Of L-BFGS, from the next stronger solution.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    objective: float
    to_gain: float
    iterations: int

    def logits(self, features: Tensor) -> Tensor:
        """Return (N, classes) float32 for (N, F)."""
        return features.float() @ self.weight.T + self.bias


def solve(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
    *,
    tolerance: float = TOLERANCE,
    most_iterations: int = 1000,
    dtype: torch.dtype = torch.float32,
) -> list[Solution]:
    """Solve for every strength, the strongest first and each from the one before it.

    Args:
        features: (N, F) of the training rows, on any device.
        targets: (N,) int64 classes; (N, num_classes) of 0 and 1 in a multi-label set.
        num_classes: Classes; one without a row gets a bias that never wins.
        strengths: Above 0.
        tolerance: Where to stop, see `TOLERANCE`.
        most_iterations: Of L-BFGS per strength; a solution that was not reached by then says so in `to_gain`.
        dtype: What is computed in; the rotation always in float64.

    Returns:
        A solution per strength, in the order given.

    Raises:
        ValueError: No rows, or a strength that is not above 0.
    """
    if not len(features) or min(strengths, default=0) <= 0:
        raise ValueError(f"{len(features)} rows and the strengths {list(strengths)}: there must be some, above 0")
    problem = _Problem(features, targets.to(features.device), num_classes, dtype)
    solved, start = {}, problem.zero()
    for strength in sorted(set(strengths), reverse=True):
        start, solved[strength] = _solve_one(problem, strength, start, tolerance, most_iterations)
    return [solved[strength] for strength in strengths]


class _Problem:
    """The objective in coordinates where it is well conditioned: principal axes of the standardised features.

    Directions in which the training rows do not vary are left out: the penalty makes the weights there 0.
    """

    def __init__(self, features: Tensor, targets: Tensor, num_classes: int, dtype: torch.dtype):
        wide = features.double() if features.device.type != "mps" else features
        self.mean, spread = wide.mean(0), wide.std(0, correction=0)
        self.scale = torch.where(spread > 1e-6 * self.mean.abs().clamp(min=1e-6), 1 / spread, 0)
        standard = (wide - self.mean) * self.scale
        values, axes = torch.linalg.eigh(standard.T @ standard / len(wide))
        kept = values > 1e-9 * values[-1].clamp(min=1e-30)
        self.values, self.axes = values[kept].to(dtype), axes[:, kept]
        self.inputs = (standard @ self.axes).to(dtype)
        self.targets, self.num_classes = targets, num_classes
        self.is_multi_label = targets.ndim == 2

    def zero(self) -> Tensor:
        """Return the start: (axes + 1, classes), the last row is the bias."""
        return self.inputs.new_zeros(len(self.values) + 1, self.num_classes)

    def scaling(self, weights: Tensor, strength: float) -> Tensor:
        """Return (axes + 1, classes): how long a step along each axis should be, by the curvature at some weights."""
        curvature = weights.new_zeros(self.num_classes)  # of the loss in each logit: the mean of p (1 - p)
        for inputs in self.inputs.split(max(1, _CHUNK // self.num_classes)):
            logits = torch.addmm(weights[-1], inputs, weights[:-1])
            shares = logits.sigmoid() if self.is_multi_label else logits.softmax(1)
            curvature += (shares - shares.square()).sum(0)
        curvature = (curvature / len(self.inputs)).clamp(min=1e-7)
        return torch.cat([torch.outer(self.values, curvature) + strength, curvature[None]]).rsqrt()

    def objective(self, weights: Tensor, strength: float) -> tuple[float, Tensor]:
        """Return the objective and its gradient at (axes + 1, classes)."""
        gradient, total = torch.zeros_like(weights), 0.0
        rows = max(1, _CHUNK // self.num_classes)
        for inputs, targets in zip(self.inputs.split(rows), self.targets.split(rows), strict=True):
            logits = torch.addmm(weights[-1], inputs, weights[:-1])
            if self.is_multi_label:
                wanted = targets.to(logits.dtype)
                total += float(functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum"))
                error = logits.sigmoid_().sub_(wanted)
            else:
                shares = logits.log_softmax(1)
                total -= float(shares.gather(1, targets[:, None]).sum(dtype=torch.float64))
                error = shares.exp_()
                error[torch.arange(len(error), device=error.device), targets] -= 1
            gradient[:-1].addmm_(inputs.T, error)
            gradient[-1] += error.sum(0)
        gradient /= len(self.inputs)
        gradient[:-1] += strength * weights[:-1]
        return total / len(self.inputs) + strength / 2 * float(weights[:-1].double().square().sum()), gradient

    def on_features(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight (classes, F) and bias (classes,) on the features as they were given, float32."""
        weight = (self.axes @ weights[:-1].double()) * self.scale[:, None]  # (F, classes)
        bias = weights[-1].double() - self.mean @ weight
        return weight.T.float().contiguous().cpu(), bias.float().cpu()


def _solve_one(
    problem: _Problem, strength: float, start: Tensor, tolerance: float, most_iterations: int
) -> tuple[Tensor, Solution]:
    scaling = problem.scaling(start, strength)

    def function(point: Tensor) -> tuple[float, Tensor]:
        value, gradient = problem.objective(point * scaling, strength)
        return value, gradient * scaling

    point, value, to_gain, iterations = _minimise(function, start / scaling, tolerance, most_iterations)
    weights = point * scaling
    return weights, Solution(strength, *problem.on_features(weights), value, to_gain, iterations)


def _minimise(
    function: Callable[[Tensor], tuple[float, Tensor]], point: Tensor, tolerance: float, most: int
) -> tuple[Tensor, float, float, int]:
    """Minimise a convex function by L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with halved steps.

    torch's own optimizer is left alone: its first use loads torch's compiler, which takes seconds.

    Returns:
        The point, its value, what is left to gain relative to that (half of gradient times step), and the iterations.
    """
    value, gradient = function(point)
    slack = 4 * torch.finfo(point.dtype).eps  # what rounding may add to a value that gets no better
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_HISTORY)
    for iteration in range(most):
        direction = _direction(gradient, pairs)
        slope = _dot(gradient, direction)
        to_gain = -slope / 2 / max(abs(value), 1e-30)
        if to_gain <= tolerance:
            return point, value, to_gain, iteration
        step = 1.0
        while True:
            moved = point + step * direction
            new_value, new_gradient = function(moved)
            if new_value <= value + 1e-4 * step * slope + slack * abs(value):
                break
            step /= 2
            if step < 1e-6:  # rounding hides what is left
                return point, value, to_gain, iteration
        change, bend = moved - point, new_gradient - gradient
        if (product := _dot(change, bend)) > 0:
            pairs.append((change, bend, product))
        point, value, gradient = moved, new_value, new_gradient
    return point, value, -_dot(gradient, _direction(gradient, pairs)) / 2 / max(abs(value), 1e-30), most


def _direction(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Return minus the gradient times the inverse curvature that the last steps tell of."""
    direction, shares = -gradient, []
    for change, bend, product in reversed(pairs):
        shares.append(_dot(change, direction) / product)
        direction.sub_(bend, alpha=shares[-1])
    if pairs:
        change, bend, product = pairs[-1]
        direction *= product / _dot(bend, bend)
    for change, bend, product in pairs:
        direction.add_(change, alpha=shares.pop() - _dot(bend, direction) / product)
    return direction


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))


def is_at_rim(strength: float, strengths: Sequence[float]) -> bool:
    """Whether the best of a grid may lie beyond it: it is the lowest, or the highest and not yet on the plateau."""
    return len(strengths) > 1 and (strength == min(strengths) or strength == max(strengths) < PLATEAU)
