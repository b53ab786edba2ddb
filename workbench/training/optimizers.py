"""Parameter groups and optimizers: which rate and which decay each parameter gets, and that none is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from workbench.models.staged import StagedNet
from workbench.training.rmsprop_tf import RMSpropTF

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: StagedNet,
    *,
    lr: float,
    weight_decay: float = 0.0,
    decay_exclude: Sequence[str] = ("norm", "bias"),
    layer_decay: float = 1.0,
    head_lr_scale: float = 1.0,
) -> list[dict[str, Any]]:
    """Divide a model's parameters by stage and by whether they decay.

    Args:
        model: The network; frozen parameters are grouped too, so that unfreezing adds nothing.
        lr: Peak learning rate.
        weight_decay: For all kinds that are not excluded.
        decay_exclude: Out of `norm` (normalisation layers) and `bias` (biases of all others).
        layer_decay: Factor on the rate per stage of distance from the head.
        head_lr_scale: Factor on the head's rate.

    Returns:
        Groups with `name` (as in `stage3` or `stage3, no decay`), `lr`, `weight_decay`, `params`.

    Raises:
        ValueError: A parameter belongs to no stage, or to two.
    """
    groups, stages = [], model.stages
    for distance, stage in enumerate(reversed(model.stage_names)):
        scale = layer_decay**distance * (head_lr_scale if stage == "head" else 1.0)
        decayed, spared = [], []
        for module in stages[stage].modules():
            for name, parameter in module.named_parameters(recurse=False):
                kind = "norm" if isinstance(module, _NORMS) else "bias" if name == "bias" else "weight"
                (spared if kind in decay_exclude else decayed).append(parameter)
        groups.append({"name": stage, "params": decayed, "lr": lr * scale, "weight_decay": weight_decay})
        groups.append({"name": f"{stage}, no decay", "params": spared, "lr": lr * scale, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    check_coverage(model, groups)
    return groups


def check_coverage(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Check that every parameter is in exactly one group.

    Raises:
        ValueError: Names those that are in none or in several.
    """
    counts: dict[int, int] = {}
    for group in groups:
        for parameter in group["params"]:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    wrong = {n: counts.get(id(p), 0) for n, p in model.named_parameters() if counts.get(id(p), 0) != 1}
    if wrong:
        listed = ", ".join(f"{name} in {count}" for name, count in list(wrong.items())[:5])
        raise ValueError(f"every parameter must be in exactly one group: {listed}")


def build_optimizer(name: str, groups: Sequence[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """Build an optimizer over groups that carry their own `lr` and `weight_decay`.

    Args:
        name: `sgd` (Nesterov), `adamw` or `rmsprop_tf`.
        groups: From `parameter_groups`.
        momentum: Momentum, or adamw's beta1.

    Raises:
        ValueError: Unknown name.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(momentum, 0.999))
    if name == "rmsprop_tf":
        return RMSpropTF(groups, lr=0.0, momentum=momentum)
    raise ValueError(f"no such optimizer: {name}; there are sgd, adamw, rmsprop_tf")
