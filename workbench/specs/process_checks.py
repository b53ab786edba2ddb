"""What a recipe for several processes must look like."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.specs.recipe import Recipe


def process_problems(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """Yield what does not fit together as (key, given, allowed, remedy)."""
    train, batch = recipe.train, recipe.data.batch_size
    count, micro = train.devices * train.num_nodes, train.micro_batch_size
    if count == 1:
        if train.strategy == "fsdp":
            yield "train.strategy", "fsdp in one process", "auto", "set train.devices, or train.strategy=auto"
        return
    stated = micro if isinstance(micro, int) and batch % micro == 0 else 1
    if batch % (stated * count):
        of = f"{count} processes" + (f" x train.micro_batch_size={micro}" if isinstance(micro, int) else "")
        allowed = f"a data.batch_size that {of} divide evenly"
        yield "data.batch_size", str(batch), allowed, "change one of them, so that every image counts the same"
    for key, given, needed, is_wrong in (
        ("train.compile", "true", "false", train.compile),
        ("train.runtime", "auto", "stated", train.runtime == "auto"),
    ):
        if is_wrong:
            yield key, f"{given} with {count} processes", needed, f"set {key}={needed}: it was not tried on several"
    if train.strategy == "fsdp":
        yield from _fully_sharded(recipe)


def _fully_sharded(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    train = recipe.train
    for key, given, needed, is_wrong in (
        ("train.device", "cpu", "gpu", train.device == "cpu"),
        ("train.ema_half_life_fraction", train.ema_half_life_fraction, "null", train.ema_half_life_fraction),
        ("train.ema_decay", train.ema_decay, "null", train.ema_decay),
        ("train.pick", "best", "last", train.pick == "best"),
        ("train.phases", f"{len(train.phases)} phases", "[]", len(train.phases) > 1),
        ("model.recompute", "true", "false", recipe.model.recompute),
    ):
        if is_wrong:
            where = "no process has all of the weights: set" if needed != "gpu" else "set"
            yield key, f"{given} with train.strategy=fsdp", needed, f"{where} {key}={needed}, or train.strategy=ddp"
