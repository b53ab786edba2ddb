"""What Lightning needs for several processes: its strategy, and a callback that keeps their models the same."""

from __future__ import annotations

import gc
from typing import Any

import lightning
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torchvision.models.efficientnet import MBConv

from workbench.training import rank_norms, ranks
from workbench.training.classifier import EfficientNetClassifier


def trainer_options(strategy: str, num_nodes: int) -> dict[str, Any]:
    """Return the Trainer's arguments on processes: those of one where this process is alone.

    Args:
        strategy: `auto`, `ddp` or `fsdp`.
        num_nodes: Machines, where several processes have joined.
    """
    if ranks.size() == 1:
        # Said, as Lightning would take a SLURM job of several tasks, run without srun, for several processes.
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    if strategy == "fsdp":
        made = FSDPStrategy(auto_wrap_policy={MBConv}, use_orig_params=True, state_dict_type="full")
    else:
        # Buffers are not broadcast: `RankSteps` keeps them the same, and an evaluation's batches differ in number.
        made = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    devices = ranks.size() // num_nodes
    return {
        "devices": devices,
        "num_nodes": num_nodes,
        "strategy": made,
        "plugins": [TorchElasticEnvironment()],  # `ranks.joined` has told it, whoever started the processes
    }


def begin(classifier: EfficientNetClassifier, sync_bn: bool) -> list[lightning.Callback]:
    """Make a classifier ready to train on several processes; return the callbacks for that, none where it is alone."""
    if ranks.size() == 1:
        return []
    if sync_bn:
        rank_norms.synchronise(classifier.net)
    return [RankSteps(sync_bn)]


def end(classifier: EfficientNetClassifier) -> None:
    """Undo `begin`."""
    rank_norms.part(classifier.net)


class RankSteps(lightning.Callback):
    """Keeps the model of every process bit-equal at each step; it stands before what reads the model after a step.

    DistributedDataParallel averages the gradients of what could be trained when it was made, and waits for all of
    them. So it is made anew whenever a phase freezes or unfreezes stages.

    Args:
        sync_bn: Whether BatchNorm takes its statistics over all processes. If not, each process normalises by its own
            micro-batch, and the running statistics become their mean after each step.
    """

    def __init__(self, sync_bn: bool):
        self.sync_bn = sync_bn
        self._frozen: frozenset[str] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget what the network was like when it was made: the first step looks."""
        self._frozen = frozenset()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Enter the step's phase, and let gradients be averaged for what it trains."""
        pl_module.enter_phase()
        frozen, strategy = pl_module.net.frozen, trainer.strategy
        if frozen != self._frozen and isinstance(strategy, DDPStrategy):
            strategy.model = pl_module
            gc.collect()  # the former one's hooks on the parameters go with it
            strategy.configure_ddp()
            self._frozen = frozen

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the running statistics after an optimizer step."""
        if not self.sync_bn and not trainer.fit_loop._should_accumulate():
            rank_norms.average_statistics(pl_module.net)
