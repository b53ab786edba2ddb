"""Groups, optimizers, schedules and averages against formulas written out here."""

import math

import pytest
import timm.optim
import torch
from torch import nn

from workbench.models.efficientnet import EfficientNet
from workbench.specs.architectures import STAGE_NAMES
from workbench.specs.duration import steps_per_epoch, to_steps
from workbench.specs.errors import UserError
from workbench.training.averaging import WeightAverage, half_life_decay
from workbench.training.optimizers import build_optimizer, check_coverage, parameter_groups
from workbench.training.rmsprop_tf import RMSpropTF
from workbench.training.schedules import PhasePlan, phase_at, rate_factor


def test_groups_cover_every_parameter_once_with_the_right_rate_and_decay():
    model = EfficientNet("tiny", 5)
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, head_lr_scale=10)
    grouped = {id(p): group for group in groups for p in group["params"]}
    assert len(grouped) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    conv, norm = model.features[0][0], model.features[0][1]
    assert grouped[id(conv.weight)]["lr"] == 0.5**9
    assert grouped[id(norm.weight)]["weight_decay"] == 0
    head = model.classifier[1]
    assert (grouped[id(head.weight)]["lr"], grouped[id(head.weight)]["weight_decay"]) == (10.0, 0.1)
    assert grouped[id(head.bias)]["weight_decay"] == 0
    squeeze = model.features[1][0].block[1].fc1
    assert grouped[id(squeeze.bias)]["weight_decay"] == 0
    assert grouped[id(squeeze.weight)]["weight_decay"] == 0.1


def test_nothing_excluded_decays_everything():
    groups = parameter_groups(EfficientNet("tiny", 5), lr=1.0, weight_decay=0.1, decay_exclude=())
    assert {group["weight_decay"] for group in groups} == {0.1}
    assert [group["name"] for group in groups] == list(reversed(STAGE_NAMES))


def test_a_parameter_outside_every_group_is_named():
    model = EfficientNet("tiny", 5)
    model.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra\.weight in 0"):
        parameter_groups(model, lr=1.0)
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="bias in 2"):
        check_coverage(layer, [{"params": list(layer.parameters())}, {"params": [layer.bias]}])


def quadratic(parameter):
    return (parameter.square() * torch.tensor([1.0, 3.0], dtype=parameter.dtype)).sum()


def test_rmsprop_tf_equals_the_formula_in_float64():
    start = [0.7, -1.3]
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = RMSpropTF([parameter], lr=0.02, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01)
    p, mean_square, update = list(start), [1.0, 1.0], [0.0, 0.0]
    for _ in range(20):
        optimizer.zero_grad()
        quadratic(parameter).backward()
        optimizer.step()
        for i, factor in enumerate((1.0, 3.0)):
            gradient = 2 * factor * p[i] + 0.01 * p[i]
            mean_square[i] = 0.9 * mean_square[i] + 0.1 * gradient**2
            update[i] = 0.9 * update[i] + 0.02 * gradient / math.sqrt(mean_square[i] + 1e-3)
            p[i] -= update[i]
    assert parameter.tolist() == pytest.approx(p, rel=1e-12)


def test_rmsprop_tf_equals_timms():
    mine, theirs = (nn.Parameter(torch.tensor([0.7, -1.3])) for _ in range(2))
    ours = RMSpropTF([mine], lr=0.02, weight_decay=0.01)
    other = timm.optim.RMSpropTF([theirs], lr=0.02, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01)
    for _ in range(10):
        for parameter, optimizer in ((mine, ours), (theirs, other)):
            optimizer.zero_grad()
            quadratic(parameter).backward()
            optimizer.step()
    torch.testing.assert_close(mine, theirs)


def test_optimizers_by_name_leave_the_groups_rates_alone():
    model = EfficientNet("tiny", 5)
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("rmsprop_tf", RMSpropTF)):
        optimizer = build_optimizer(name, parameter_groups(model, lr=0.3, layer_decay=0.5), 0.9)
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["lr"] == 0.3
        assert optimizer.param_groups[-1]["lr"] == 0.3 * 0.5**9
    assert build_optimizer("sgd", parameter_groups(model, lr=0.3), 0.9).param_groups[0]["nesterov"]
    with pytest.raises(ValueError, match="sgd, adamw, rmsprop_tf"):
        build_optimizer("lamb", [], 0.9)


@pytest.mark.parametrize(
    ("step", "name", "options", "expected"),
    [
        (0, "cosine", {}, 1.0),
        (50, "cosine", {}, 0.5),
        (100, "cosine", {}, 0.0),
        (25, "cosine", {}, (1 + math.cos(math.pi / 4)) / 2),
        (100, "cosine", {"final_lr_fraction": 0.1}, 0.1),
        (0, "cosine", {"warmup_steps": 10}, 0.1),
        (9, "cosine", {"warmup_steps": 10}, 1.0),
        (10, "cosine", {"warmup_steps": 10}, 1.0),
        (55, "cosine", {"warmup_steps": 10}, 0.5),
        (70, "constant", {"warmup_steps": 10}, 1.0),
        (4, "constant", {"warmup_steps": 10}, 0.5),
        (23, "exponential", {"decay_steps": 24, "decay_rate": 0.97}, 1.0),
        (24, "exponential", {"decay_steps": 24, "decay_rate": 0.97}, 0.97),
        (71, "exponential", {"decay_steps": 24, "decay_rate": 0.97}, 0.97**2),
        (30, "exponential", {"decay_steps": 24, "decay_rate": 0.97, "warmup_steps": 30}, 0.97),
    ],
)
def test_schedules(step, name, options, expected):
    assert rate_factor(step, 100, name, **options) == pytest.approx(expected)


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(ValueError, match="cosine, exponential, steps, constant"):
        rate_factor(5, 10, "linear")


def test_phases_follow_each_other():
    phases = [PhasePlan("head", 3, 0.1), PhasePlan("stage4", 2, 0.01), PhasePlan("all", 5, 0.001)]
    found = [phase_at(step, phases) for step in range(12)]
    assert [number for number, _ in found] == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    assert [done for _, done in found][:6] == [0, 1, 2, 0, 1, 0]


def test_durations():
    assert steps_per_epoch(2040, 256) == 7
    assert steps_per_epoch(256, 256) == 1
    with pytest.raises(UserError, match="1 to 255"):
        steps_per_epoch(255, 256)
    assert to_steps(2.5, None, 10) == 25
    assert to_steps(None, 7, 10) == 7
    assert to_steps(None, None, 10) == 0
    with pytest.raises(ValueError, match="not both"):
        to_steps(1, 1, 10)


class Module:
    def __init__(self, net):
        self.net = net


class Trainer:
    global_step = 0


def run_average(decay, values):
    """Feed a BatchNorm's running mean and weight with `values`, one optimizer step each."""
    module, trainer, average = Module(nn.BatchNorm1d(1)), Trainer(), WeightAverage(decay)
    average.on_fit_start(trainer, module)
    for value in values:
        with torch.no_grad():
            module.net.weight.fill_(value)
            module.net.running_mean.fill_(-value)
            module.net.num_batches_tracked += 1
        for _micro_batch in range(3):
            average.on_train_batch_end(trainer, module, None, None, 0)
        trainer.global_step += 1
        average.on_train_batch_end(trainer, module, None, None, 0)
    return average, module


def test_average_follows_the_formula_with_warm_up_and_counts_optimizer_steps_only():
    values = [float(v) for v in range(2, 30)]
    average, _ = run_average(0.8, values)
    weight, mean = 1.0, 0.0
    for t, value in enumerate(values, 1):
        decay = min(0.8, (1 + t) / (10 + t))
        weight, mean = decay * weight + (1 - decay) * value, decay * mean - (1 - decay) * value
    assert float(average.average["weight"]) == pytest.approx(weight, rel=1e-5)
    assert float(average.average["running_mean"]) == pytest.approx(mean, rel=1e-5)
    assert int(average.average["num_batches_tracked"]) == len(values)
    assert average.updates == len(values)


def test_average_of_a_constant_is_the_constant_and_swapping_twice_changes_nothing():
    average, module = run_average(0.999, [1.0] * 5)
    assert float(average.average["weight"]) == 1.0
    module.net.weight.data.fill_(7.0)
    average.swap(module)
    assert float(module.net.weight) == 1.0
    average.swap(module)
    assert float(module.net.weight) == 7.0


def test_half_life_halves():
    assert half_life_decay(10) ** 10 == pytest.approx(0.5)
    assert half_life_decay(0.01) == 0.5
