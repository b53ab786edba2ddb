"""The recipe's section on the fit itself: length, phases, numerics, averaging, choosing, processes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.specs.recipe_key import TPU, key


@dataclass
class Phase:
    """One part of a fit. The last phase may leave its length out and takes what remains."""

    train: str = key(
        "all",
        "What trains: all, head, or the first stage that does (stem, stage1...stage7, top) up to the head.",
    )
    epochs: float | None = key(None, "Length.", unit="epochs", span=(0, 100_000))
    steps: int | None = key(None, "Length, in steps.", unit="steps", span=(0, 100_000_000))
    lr: float | None = key(None, "Peak rate in this phase; null: optim.lr.", span=(0, 100))


@dataclass
class Train:
    """Length, phases, numerics, averaging, choosing."""

    total_epochs: float | None = key(None, "Length of the fit.", unit="epochs", span=(0, 100_000))
    total_steps: int | None = key(None, "Length of the fit, in steps.", unit="steps", span=(0, 100_000_000))
    rule: str = key(
        "none",
        "Settings by the number and size of the images, in place of what earlier layers state (`specs/rules.py`).",
        choices=("none", "any", "bit_hyperrule"),
    )
    rule_keeps: list[str] | None = key(
        None, "Keys that the rule leaves alone; null: those stated by its own layer or a later one."
    )
    phases: list[Phase] = key([], "Parts of the fit, in order; empty: everything trains all the time.")
    micro_batch_size: int | str | None = key(
        None,
        "Images per forward pass, accumulated to data.batch_size; null: the whole batch at once; auto: what fits in "
        "memory. BatchNorm sees one micro-batch at a time.",
        span=(1, 65536),
        choices=("auto",),
    )
    precision: str = key(
        "auto",
        "auto: bf16 autocast where the hardware computes in it, else fp32.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    channels_last: bool = key(True, "Memory layout of activations.")
    compile: bool = key(False, "Train by torch.compile: minutes before the first step, then shorter steps.")
    runtime: str = key(
        "stated",
        "auto: measure layout, precision (if auto), compile and micro-batch (if null) here, take the fastest. Results "
        "then depend on the machine in their last digits, by micro-batches in more.",
        choices=("stated", "auto"),
    )
    seed: int = key(0, "Seed of initialisation, order, augmentation and dropout.", span=(0, 2**31 - 1))
    device: str = key("auto", "Where to train.", choices=("auto", "cpu", "gpu"))
    devices: int = key(1, "Processes of this machine, one GPU (or share of the CPU) each.", span=(1, 1024))
    num_nodes: int = key(1, "Machines, each with `devices` processes; started by torchrun or SLURM.", span=(1, 10_000))
    strategy: str = key(
        "auto",
        "auto: ddp where there are several processes; fsdp shards weights and optimizer over them.",
        choices=("auto", "ddp", "fsdp"),
    )
    sync_bn: bool = key(True, "BatchNorm statistics over the micro-batches of all processes, not of each for itself.")
    checkpoint_minutes: float = key(
        10.0, "Most minutes between checkpoints, within epochs too.", unit="minutes", span=(0, 10_000)
    )
    ema_half_life_fraction: float | None = key(
        None,
        "Half-life of the weights' moving average as a share of all steps (BatchNorm statistics included); null: off.",
        unit="fraction",
        span=(0.0001, 1),
    )
    ema_decay: float | None = key(
        None,
        "The same as a decay per step, for recipes that state one; null: off.",
        source=TPU,
        span=(0, 0.999999),
    )
    num_validations: int = key(
        20, "Evaluations on the selection split over the fit; at most one per epoch.", span=(1, 100_000)
    )
    pick: str = key("best", "Which weights are kept: best on the selection split, or last.", choices=("best", "last"))
    open_test: bool = key(True, "Evaluate the test split once, at the end; false while choosing settings.")
