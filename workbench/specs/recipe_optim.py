"""The recipe's sections on the optimizer and the rate."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.specs.recipe_key import KORNBLITH, TPU, key


@dataclass
class Optim:
    """The optimizer and its parameter groups."""

    name: str = key(
        "sgd",
        "sgd (Nesterov), adamw, or rmsprop_tf (epsilon inside the root, mean square starting at one).",
        source=KORNBLITH,
        choices=("sgd", "adamw", "rmsprop_tf"),
    )
    lr: float = key(0.01, "Peak learning rate at the effective batch, of the head's neighbours.", span=(0, 100))
    momentum: float = key(0.9, "Momentum (sgd, rmsprop_tf) or beta1 (adamw).", source=KORNBLITH, span=(0, 0.9999))
    weight_decay: float = key(0.0, "Coupled L2 for sgd and rmsprop_tf, decoupled for adamw.", span=(0, 10))
    weight_decay_times_lr: float | None = key(
        None,
        "weight_decay times lr, in place of weight_decay: the decay is this divided by optim.lr; null: off.",
        source=KORNBLITH,
        span=(0, 10),
    )
    decay_exclude: list[str] = key(
        ["norm", "bias"], "Parameter kinds without weight decay: norm (BatchNorm), bias (all others')."
    )
    layer_decay: float = key(
        1.0, "Factor on the rate for each stage further from the head; 1: one rate for all.", span=(0.01, 1)
    )
    head_lr_scale: float = key(1.0, "Factor on the head's rate.", span=(0, 1000))
    clip_norm: float | None = key(None, "Largest gradient norm; null: no clipping.", span=(1e-6, 1e6))


@dataclass
class Schedule:
    """The rate over each phase, as a factor on `optim.lr`."""

    name: str = key(
        "cosine", "Shape after the warm-up.", source=KORNBLITH, choices=("cosine", "exponential", "steps", "constant")
    )
    warmup_epochs: float | None = key(
        None, "Linear rise from 0; null: none, or by steps.", unit="epochs", span=(0, 1000)
    )
    warmup_steps: int | None = key(None, "The same, in steps.", unit="steps", span=(0, 10_000_000))
    final_lr_fraction: float = key(0.0, "cosine: factor at the end.", span=(0, 1))
    decay_rate: float = key(
        0.97,
        "exponential: factor per decay_epochs, in stairs; steps: factor at each milestone.",
        source=TPU,
        span=(0, 1),
    )
    milestones: list[float] = key([], "steps: where the rate drops, as shares of the phase, rising.", unit="fraction")
    decay_epochs: float = key(2.4, "exponential: length of a stair.", unit="epochs", source=TPU, span=(0.001, 1e6))
