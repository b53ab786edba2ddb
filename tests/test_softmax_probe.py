"""The solver against a float64 optimum found another way; neighbours and draws against counting by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from workbench.training import softmax_probe
from workbench.training.few_shot import drawn
from workbench.training.neighbours import TEMPERATURE, nearest_logits
from workbench.training.softmax_probe import STRENGTHS, solve


def rows(num_rows=60, num_features=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(num_rows) % num_classes
    centres = torch.randn(num_classes, num_features, generator=generator)
    features = centres[targets] + 1.5 * torch.randn(num_rows, num_features, generator=generator)
    return features * torch.logspace(-2, 2, num_features) + 3, targets  # of very different size, and not around 0


def objective(parameters, features, targets, num_classes, strength):
    """Return the value and gradient of the definition, by autograd in float64, at (features + 1) x classes."""
    wide = features.double()
    spread = wide.std(0, correction=0)
    standard = (wide - wide.mean(0)) / torch.where(spread > 0, spread, 1)
    point = torch.tensor(parameters, dtype=torch.float64).reshape(-1, num_classes).requires_grad_()
    logits = standard @ point[:-1] + point[-1]
    if targets.ndim == 2:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none").sum(1)
    else:
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    value = loss.mean() + strength / 2 * point[:-1].square().sum()
    value.backward()
    return value.item(), point.grad.numpy().ravel(), standard


def optimum(features, targets, num_classes, strength):
    start = np.zeros((features.shape[1] + 1) * num_classes)
    found = minimize(
        lambda p: objective(p, features, targets, num_classes, strength)[:2],
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 30},
    )
    standard = objective(found.x, features, targets, num_classes, strength)[2]
    weights = torch.from_numpy(found.x).reshape(-1, num_classes)
    return found.fun, (standard @ weights[:-1] + weights[-1]).detach()


@pytest.mark.parametrize("shape", [(60, 7), (20, 33)], ids=["more rows", "more features"])
@pytest.mark.parametrize("several", [False, True])
def test_solutions_are_the_optima(shape, several, monkeypatch):
    monkeypatch.setattr(softmax_probe, "_CHUNK", 64)  # in pieces of 16 rows
    features, targets = rows(*shape)
    features[:, 2] = 5  # says nothing, and must not divide by 0
    if several:
        targets = torch.stack([targets == 0, targets < 2, targets == 3], 1).float()
    num_classes = 3 if several else 4
    strengths = (0.01, 1.0, 0.0001)
    solved = solve(features, targets, num_classes, strengths, tolerance=1e-12, dtype=torch.float64)
    single = solve(features, targets, num_classes, strengths)
    for strength, exact, short in zip(strengths, solved, single, strict=True):
        value, logits = optimum(features, targets, num_classes, strength)
        assert exact.strength == short.strength == strength
        assert exact.objective == pytest.approx(value, rel=1e-8)
        assert short.objective == pytest.approx(value, rel=1e-4)
        assert exact.to_gain <= 1e-12
        found = exact.logits(features).double()
        if not several:  # softmax does not see a shift of all logits
            found, logits = found - found.mean(1, keepdim=True), logits - logits.mean(1, keepdim=True)
        torch.testing.assert_close(found, logits, rtol=2e-3, atol=2e-3)


def test_the_gradient_at_a_solution_is_nearly_zero():
    features, targets = rows(300, 40, 6)
    for solution in solve(features, targets, 6, tolerance=1e-9, dtype=torch.float64):
        wide = features.double()
        mean, spread = wide.mean(0), wide.std(0, correction=0)
        weights = solution.weight.double().T * spread[:, None]
        point = torch.cat([weights, (solution.bias.double() + mean @ solution.weight.double().T)[None]])
        value, gradient, _ = objective(point.numpy().ravel(), features, targets, 6, solution.strength)
        assert value == pytest.approx(solution.objective, rel=1e-5)
        assert np.abs(gradient).max() < 1e-4 * max(1, solution.strength)


def test_warm_starts_change_the_work_and_not_the_solutions():
    features, targets = rows(300, 40, 6)
    together = solve(features, targets, 6, tolerance=1e-9, dtype=torch.float64)
    alone = [solve(features, targets, 6, [s], tolerance=1e-9, dtype=torch.float64)[0] for s in STRENGTHS]
    for a, b in zip(together, alone, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=1e-7)
    assert sum(a.iterations for a in together) < sum(b.iterations for b in alone)


def test_a_class_without_a_row_never_wins():
    features, targets = rows(60, 7, 4)
    (solution,) = solve(features, targets, 5, [0.01])
    assert 4 not in solution.logits(features).argmax(1)


@pytest.mark.parametrize(("count", "strengths"), [(0, [1.0]), (4, []), (4, [0.0])])
def test_what_cannot_be_solved_is_refused(count, strengths):
    with pytest.raises(ValueError, match="there must be some, above 0"):
        solve(torch.zeros(count, 3), torch.zeros(count, dtype=torch.int64), 2, strengths)


def test_nearest_neighbours_vote_by_likeness():
    features, labels = rows(30, 7, 3)
    wanted = rows(9, 7, 3, seed=1)[0]
    found = nearest_logits(features, labels, wanted, 3, [1, 4])
    for number, image in enumerate(wanted):
        likeness = [
            (float(torch.cosine_similarity(image, other, 0)), int(label))
            for other, label in zip(features, labels, strict=True)
        ]
        for k in (1, 4):
            votes = np.zeros(3)
            for similarity, label in sorted(likeness, reverse=True)[:k]:
                votes[label] += np.exp(similarity / TEMPERATURE)
            np.testing.assert_allclose(found[k][number].exp(), votes / votes.sum(), atol=1e-4)


def test_draws_are_nested_balanced_and_their_own():
    targets = torch.tensor([0] * 12 + [2] * 3 + [1] * 7)[torch.randperm(22, generator=torch.Generator().manual_seed(3))]
    one, five = drawn(targets, 1, 0, 0), drawn(targets, 5, 0, 0)
    assert torch.bincount(targets[one]).tolist() == [1, 1, 1]
    assert torch.bincount(targets[five]).tolist() == [5, 5, 3]
    assert set(one.tolist()) < set(five.tolist())
    assert drawn(targets, 5, 0, 0).tolist() == five.tolist()
    assert len({tuple(drawn(targets, 5, seed, draw).tolist()) for seed in (0, 1) for draw in range(5)}) == 10
