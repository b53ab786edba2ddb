"""A loss that is not finite: at which micro-batch, of which images, and what is kept so that the step can be replayed.

Looking at a loss makes a GPU wait, so there it is looked at once per interval only (`StepMonitor`); if something is
wrong the fit goes back to its last checkpoint and looks at every micro-batch from there. On a CPU it always does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from workbench.models.tensor_files import save_tensors
from workbench.specs.errors import Problem, UserError
from workbench.training import run_folder

CAPTURE, FACTS, WEIGHTS = "capture", "capture.json", "weights.safetensors"
REMEDY = "lower optim.lr, lengthen the warm-up, or set optim.clip_norm=1"
_NAMED = 8
"""Images named in the message; the capture names all."""


class NotFinite(UserError):  # noqa: N818 - as `UserError` it is what it says
    """Training left the finite numbers.

    Args:
        problem: What is known of it.
        step: The step of the fit, from 1; of an interval the last.
        is_exact: The step is known, and captured.
    """

    def __init__(self, problem: Problem, step: int, is_exact: bool):
        super().__init__(problem)
        self.step, self.is_exact = step, is_exact

    @classmethod
    def within(cls, value: float, first: int, last: int) -> NotFinite:
        """Say that some step of an interval is to blame."""
        given = f"{value} somewhere within steps {first} to {last}"
        return cls(Problem("train/loss", given, "a finite number", REMEDY), last, False)


class FiniteCheck(lightning.Callback):
    """Stops before a step whose loss or gradients are not finite, and captures it.

    Args:
        folder: The run folder.
        ids: The images' names, by row of the set's table.
        seed: The recipe's.
        through: Look at every step up to this one on a GPU too: an earlier attempt went wrong by then.
    """

    def __init__(self, folder: Path, ids: Sequence[str], seed: int, through: int | None = None):
        self.folder, self.ids, self.seed, self.through = folder, ids, seed, through
        self._step = -1
        self._batches: list[tuple[int, Any]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note what the step is made of."""
        if trainer.global_step != self._step:
            self._step, self._batches = trainer.global_step, []
            if self.through is not None and self._step >= self.through:
                raise _not_again(self.through)
        self._batches.append((batch_idx, batch))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Look at a micro-batch's loss."""
        if self._looks(pl_module) and not bool(torch.isfinite(loss)):
            number = len(self._batches) - 1
            self._stop(trainer, pl_module, float(loss.detach()) * trainer.accumulate_grad_batches, number)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Look at a step's gradients; where fp16's scaler does, it skips such a step itself."""
        if not self._looks(pl_module) or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients and not all(torch.stack(torch._foreach_norm(gradients, float("inf"))).isfinite().tolist()):
            self._stop(trainer, pl_module, None, None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep of a batch what names its images."""
        number, batch = self._batches[-1]
        before = batch.before and (None, None, batch.before[2])
        self._batches[-1] = number, batch._replace(images=None, targets=None, before=before)

    def _looks(self, pl_module: Any) -> bool:
        return self.through is not None or pl_module.device.type == "cpu"

    def _names(self, batch: Any) -> dict[str, Any]:
        """Return what a micro-batch can be made again from: rows of the table, and for mixing its effective batch's."""
        rows = batch.index.tolist()
        mixing = {"first": batch.first, "before": batch.before and batch.before[2]}
        return {"rows": rows, "ids": [self.ids[row] for row in rows], **mixing}

    def _stop(self, trainer: Any, pl_module: Any, loss: float | None, failed: int | None) -> None:
        parts = [{"batch_idx": number, **self._names(batch)} for number, batch in self._batches]
        facts = {
            "step": self._step + 1,
            "epoch": int(self._batches[0][1].epoch),
            "phase": pl_module.phase_number(self._step),
            "loss": None if loss is None else str(loss),
            "what": "gradients" if failed is None else "loss",
            "failed": failed,
            "micro_batches": parts,
            "seed": self.seed,
            "rank": trainer.global_rank,
            "accumulate": trainer.accumulate_grad_batches,
        }
        name = CAPTURE if trainer.global_rank == 0 else f"{CAPTURE}-rank{trainer.global_rank}"
        place = self.folder / name
        place.mkdir(exist_ok=True)
        save_tensors(place / WEIGHTS, pl_module.net.state_dict())
        run_folder.write_json(place / FACTS, facts)
        raise NotFinite(_problem(facts, place), self._step + 1, True)


def _problem(facts: dict[str, Any], place: Path) -> Problem:
    parts, failed = facts["micro_batches"], facts["failed"]
    names = [name for part in (parts if failed is None else [parts[failed]]) for name in part["ids"]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    found = f"{facts['loss']} at" if failed is not None else "finite, but its gradients are not, at"
    which = (
        f", micro-batch {failed + 1} of {facts['accumulate']}" if facts["accumulate"] > 1 and failed is not None else ""
    )
    given = f"{found} step {facts['step']} (epoch {facts['epoch']}{which}), images {', '.join(names[:_NAMED])}{more}"
    remedy = f"{REMEDY}; to see which layer fails first: python -m workbench replay {place}"
    return Problem("train/loss", given, "a finite number", remedy)


def _not_again(step: int) -> NotFinite:
    given = f"not finite by step {step}, but finite when the same steps were done again from the last checkpoint"
    remedy = "go on with fit --resume; if it comes back, lower optim.lr or test the GPU's memory"
    return NotFinite(Problem("train/loss", given, "the same numbers each time", remedy), step, True)


def read_capture(path: Path) -> dict[str, Any]:
    """Return the facts of a capture.

    Args:
        path: A run folder or its capture/.

    Returns:
        The content of capture.json, and `place`, where it lies.

    Raises:
        UserError: There is none, or it is damaged.
    """
    place = path / CAPTURE if (path / CAPTURE).is_dir() else path
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        whole = all(key in facts for key in ("step", "epoch", "micro_batches", "accumulate", "rank"))
        whole = whole and all({"batch_idx", "rows", "ids", "first", "before"} <= {*p} for p in facts["micro_batches"])
    except FileNotFoundError as error:
        allowed = "a run that stopped because its loss was not finite, or its capture/"
        raise UserError.of("replay", f"{place}: no {FACTS} in it", allowed, "give such a run") from error
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(place, error) from error
    if not whole:
        raise _damaged(place, "keys are missing")
    return {**facts, "place": place}


def _damaged(place: Path, why: object) -> UserError:
    return UserError.of(place / FACTS, why, f"a {FACTS} that `fit` wrote", "run the fit again")
