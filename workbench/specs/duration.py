"""Epochs and steps, converted in one place. A step is one optimizer update of one effective batch."""

from __future__ import annotations

from workbench.specs.errors import UserError


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return full effective batches in one pass; the last, incomplete one is dropped.

    Raises:
        UserError: Fewer images than one batch.
    """
    if num_images < batch_size:
        raise UserError.of(
            "data.batch_size",
            f"{batch_size}, but the training split has {num_images} images",
            f"1 to {num_images}",
            "lower data.batch_size, or add images",
        )
    return num_images // batch_size


def to_steps(epochs: float | None, steps: int | None, epoch_steps: int) -> int:
    """Turn a duration given in epochs or in steps into steps.

    Args:
        epochs: Passes over the training split, or None.
        steps: Optimizer updates, or None.
        epoch_steps: Steps of one epoch.

    Returns:
        Steps, rounded to the nearest; 0 if both are None.
    """
    if epochs is not None and steps is not None:
        raise ValueError("a duration is given in epochs or in steps, not both")
    if steps is not None:
        return steps
    return round(epochs * epoch_steps) if epochs is not None else 0
