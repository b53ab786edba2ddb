"""The moving average of the weights, and the best weights by selection. Both survive a restart.

Order matters: `BestWeights` stands before `WeightAverage` in the Trainer's callbacks, so that it sees the averaged
weights that were just validated, before they are swapped out again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from workbench.models.tensor_files import read_tensors, save_tensors
from workbench.specs.metric_names import HIGHER_IS_BETTER


def half_life_decay(half_life_steps: float) -> float:
    """Return the decay per step at which an average forgets half in `half_life_steps`."""
    return 0.5 ** (1 / max(1.0, half_life_steps))


class WeightAverage(lightning.Callback):
    """Keeps an exponential moving average of all weights and BatchNorm statistics; validation sees the average.

    After t updates the decay is min(decay, (1 + t) / (10 + t)), TensorFlow's warm-up rule (tensorflow/tpu utils.py),
    so that a short run does not average in its first random steps.

    Args:
        decay: Decay per optimizer step, in [0, 1).
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: dict[str, Tensor] | None = None
        self.updates = 0
        self._swapped = False

    def on_fit_start(self, trainer: Any, pl_module: lightning.LightningModule) -> None:
        """Begin from the model's own weights, or put a restored average on the device."""
        own = pl_module.net.state_dict()
        if self.average is None:
            self.average = {name: tensor.detach().clone() for name, tensor in own.items()}
        else:
            self.average = {name: self.average[name].to(tensor.device) for name, tensor in own.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update once per optimizer step, not once per micro-batch."""
        if trainer.global_step == self.updates:
            return
        self.updates = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own = pl_module.net.state_dict()
        floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
        get_ema_multi_avg_fn(decay)([self.average[name] for name in floats], [own[name] for name in floats], None)
        for name in own.keys() - set(floats):
            self.average[name].copy_(own[name])

    def swap(self, pl_module: lightning.LightningModule) -> None:
        """Exchange the model's weights and the average."""
        own = {name: tensor.detach().clone() for name, tensor in pl_module.net.state_dict().items()}
        pl_module.net.load_state_dict(self.average)
        self.average = own
        self._swapped = not self._swapped

    def on_validation_start(self, trainer: Any, pl_module: lightning.LightningModule) -> None:
        """Validate the average."""
        if self.average is not None and trainer.state.fn == "fit":
            self.swap(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: lightning.LightningModule) -> None:
        """Go on with the weights themselves."""
        if self._swapped:
            self.swap(pl_module)

    def on_exception(self, trainer: Any, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        """Put the weights back if validation was interrupted."""
        if self._swapped:
            self.swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.average, self.updates = state_dict["average"], state_dict["updates"]


class BestWeights(lightning.Callback):
    """Keeps the weights with the best selection score in a file.

    Args:
        path: Where to.
        metric: Score to choose by, such as `top1`.
    """

    def __init__(self, path: Path, metric: str):
        self.path, self.metric = path, metric
        self.higher_is_better = HIGHER_IS_BETTER[metric]
        self.best: float | None = None
        self.step = 0

    def on_validation_end(self, trainer: Any, pl_module: lightning.LightningModule) -> None:
        """Keep the weights that were just validated, if they are the best so far (a tie keeps the earlier)."""
        score = trainer.callback_metrics.get(f"val/{self.metric}")
        if score is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = float(score) if self.higher_is_better else -float(score)
        if self.best is None or value > self.best:
            self.best, self.step = value, trainer.global_step
            if trainer.is_global_zero:
                save_tensors(self.path, pl_module.net.state_dict())

    def load_into(self, pl_module: lightning.LightningModule) -> None:
        """Put the best weights into the model."""
        pl_module.net.load_state_dict(read_tensors(self.path))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; the weights too, for at a stop the file may be of a later step."""
        weights = read_tensors(self.path) if self.best is not None and rank_zero_only.rank == 0 else None
        return {"best": self.best, "step": self.step, "weights": weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.best, self.step = state_dict["best"], state_dict["step"]
        if state_dict.get("weights") is not None and rank_zero_only.rank == 0:
            save_tensors(self.path, state_dict["weights"])
