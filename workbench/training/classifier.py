"""`EfficientNetClassifier`: an ordinary LightningModule around an EfficientNet, usable in anyone's Trainer.

It takes plain values only. What surrounds a fit (data, averaging, tracking, the run folder) is in `run.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.data.order import derive_seed
from workbench.models import portable
from workbench.models.backbones import build_backbone
from workbench.models.staged import stages_before
from workbench.models.weights import LoadReport, facts_of_weights, load_weights
from workbench.specs.compared import arch_of, backbone_from, resolve_backbone
from workbench.specs.metric_names import logged_name
from workbench.specs.weights import Preprocessing
from workbench.training.answers import classify, model_input
from workbench.training.metrics import SplitScores
from workbench.training.optimizers import build_optimizer, parameter_groups
from workbench.training.schedules import PhasePlan, phase_at, rate_factor

OPTIM_DEFAULTS = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "decay_exclude": ["norm", "bias"]}
OPTIM_DEFAULTS |= {"layer_decay": 1.0, "head_lr_scale": 1.0}
SCHEDULE_DEFAULTS = {"name": "cosine", "warmup_steps": 0, "final_lr_fraction": 0.0}


class EfficientNetClassifier(lightning.LightningModule):
    """A classifier on a scaled, usually pretrained EfficientNet.

    Args:
        arch: `b0`...`b8`, `l2`, `tiny`, `{"phi": 1.5}` or `{"width":, "depth":, "resolution":}`; or a network that the
            paper compares with, as `resnet50` or `{"family": "resnet50", "width": 2}`.
        num_classes: Outputs.
        weights: `source/name`, a .pth or .safetensors file, or None for random initialisation.
        head: `linear`, `mlp`, `cosine` or `none`; for a module of your own call `replace_head`.
        task: `single_label` (cross-entropy) or `multi_label` (binary cross-entropy; targets (N, classes)).
        classes: Class names; numbers if None.
        preprocessing: Fields of `Preprocessing`; those that belong to the weights if None.
        label_smoothing: Share of the target spread over all classes.
        network: Further arguments of `EfficientNet`: `dropout`, `drop_path`, `bn_eps`, `bn_momentum`, `padding`.
        optim: Changes to `OPTIM_DEFAULTS`.
        schedule: Changes to `SCHEDULE_DEFAULTS`; keys as in `rate_factor`.
        phases: Parts of a fit as `{"train":, "steps":, "lr":}`; one phase over the whole Trainer run if None.
        frozen_bn: Keep BatchNorm statistics fixed everywhere while the weights train.
        channels_last: Memory layout of the convolutions.
        seed: Seed of dropout and stochastic depth; they depend on (seed, step) only.

    Raises:
        UserError: Unknown architecture, or weights that are unknown, missing or of another architecture.
    """

    def __init__(
        self,
        arch: str | dict[str, float] = "b0",
        num_classes: int = 1000,
        weights: str | None = None,
        head: str = "linear",
        *,
        task: str = "single_label",
        classes: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        network: Mapping[str, Any] | None = None,
        optim: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        phases: Sequence[Mapping[str, Any]] | None = None,
        frozen_bn: bool = False,
        channels_last: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        if task not in ("single_label", "multi_label"):
            raise ValueError(f"no such task: {task}; there are single_label, multi_label")
        self.save_hyperparameters(logger=False)
        facts = facts_of_weights(weights, resolve_backbone(arch))
        network = {**{key: getattr(facts, key) for key in ("bn_eps", "bn_momentum", "padding")}, **(network or {})}
        self.net = build_backbone(arch, num_classes, head, **network)
        self.preprocessing = Preprocessing(**preprocessing) if preprocessing else facts.preprocessing
        self.classes = tuple(classes or map(str, range(num_classes)))
        if len(self.classes) != num_classes:
            raise ValueError(f"{len(self.classes)} class names for {num_classes} classes")
        self.load_report: LoadReport | None = load_weights(self.net, weights) if weights else None
        # A checkpoint restores its own tensors: rebuilding from it must not fetch weights again.
        self.hparams.update(weights=None, network=network, preprocessing=dataclasses.asdict(self.preprocessing))
        self.provenance: dict[str, Any] = {"weights": weights}
        self.calibration: dict[str, Any] | None = None
        self._head_name = head
        self.multi_label = task == "multi_label"
        self._optim, self._schedule = {**OPTIM_DEFAULTS, **(optim or {})}, {**SCHEDULE_DEFAULTS, **(schedule or {})}
        self._stated_phases = [PhasePlan(**{"lr": self._optim["lr"], **phase}) for phase in phases or ()]
        self._phases = self._stated_phases
        self._label_smoothing, self._seed, self._channels_last = label_smoothing, seed, channels_last
        self._scores = SplitScores(num_classes, self.multi_label)
        self._user_frozen: frozenset[str] = frozenset()
        self._phase: int | None = None
        if frozen_bn:
            self.net.freeze((), bn_everywhere=True)
        if channels_last:
            self.net.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) float32, normalised; or (N, num_features) as from `embed` -> (N, num_classes)."""
        return (self.net if self.training else self.net.forward)(self._laid_out(images))  # compiled to train only

    def embed(self, images: Tensor) -> Tensor:
        """Return pooled features: (N, 3, H, W) float32, normalised -> (N, num_features)."""
        return self.net.embed(self._laid_out(images))

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.to(memory_format=torch.channels_last) if self._channels_last and images.ndim == 4 else images

    def replace_head(self, head: nn.Module) -> None:
        """Put a module of your own on the pooled features: (N, num_features) -> (N, num_classes)."""
        self.net.replace_head(head)
        self._head_name, self.calibration = "custom", None

    def freeze(self, up_to: str | None = None) -> None:
        """Freeze every stage before the head, or from the input up to and with stage `up_to`."""
        names = self.net.stage_names
        self._user_frozen = frozenset(names[: names.index(up_to or names[-2]) + 1])
        self.net.freeze(self._user_frozen)

    def unfreeze(self) -> None:
        """Train every stage."""
        self._user_frozen = frozenset()
        self.net.unfreeze()

    # ---- fitting -------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        """Build the optimizer over all parameters, frozen ones too, and the schedule per step; Lightning calls this."""
        o = self._optim
        keys = ("lr", "weight_decay", "decay_exclude", "layer_decay", "head_lr_scale")
        groups = parameter_groups(self.net, **{key: o[key] for key in keys})
        optimizer = build_optimizer(o["name"], groups, o["momentum"])
        whole = [PhasePlan("all", int(self.trainer.estimated_stepping_batches), o["lr"])]
        self._phases = self._stated_phases or whole
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_factor(self, step: int) -> float:
        """Return the factor on every group's rate at a step of the whole fit."""
        number, done = phase_at(step, self._phases)
        phase = self._phases[number]
        return phase.lr / self._optim["lr"] * rate_factor(done, phase.steps, **self._schedule)

    @property
    def base_lr(self) -> float:
        """The peak rate that `lr_factor` multiplies."""
        return self._optim["lr"]

    def phase_number(self, step: int) -> int:
        """Return the number of the phase that a step of the fit lies in."""
        return phase_at(step, self._phases)[0]

    def enter_phase(self) -> None:
        """Freeze what the phase of the current step freezes, if that is not so yet."""
        number = self.phase_number(self.global_step)
        if number != self._phase:
            self.net.freeze(self._user_frozen | set(stages_before(self._phases[number].train, self.net.stage_names)))
            self._phase = number

    def on_fit_start(self) -> None:
        """Take over the preprocessing of the datamodule that it is trained with: that is what travels with it."""
        trained_with = getattr(self.trainer.datamodule, "preprocessing", None)
        if isinstance(trained_with, Preprocessing):
            self.preprocessing = trained_with
            self.hparams["preprocessing"] = dataclasses.asdict(trained_with)

    def on_train_start(self) -> None:
        """Freeze as the step says: after a restart too."""
        self._phase = self.calibration = None  # a temperature is of the weights that it was fitted with
        self.enter_phase()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Enter the phase of this step and seed dropout and stochastic depth for this micro-batch."""
        self.enter_phase()
        torch.manual_seed(derive_seed(self._seed, "step", self.global_step, batch_idx, self.global_rank))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one micro-batch (images, targets, ...)."""
        images, targets = batch[:2]
        logits = self(images)
        if self.multi_label:
            smooth = self._label_smoothing
            targets = targets.float() * (1 - smooth) + smooth / 2
            return functional.binary_cross_entropy_with_logits(logits.float(), targets)
        return functional.cross_entropy(logits.float(), targets, label_smoothing=self._label_smoothing)

    # ---- evaluation ----------------------------------------------------------------------------------------

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Collect one batch of the selection split."""
        self._scores.update(self(batch[0]), batch[1])

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Collect one batch of the test split."""
        self._scores.update(self(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Log `val/...`."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/...`."""
        self._log_scores("test")

    def on_validation_epoch_start(self) -> None:
        """Begin with empty scores."""
        self._scores.reset()

    def on_test_epoch_start(self) -> None:
        """Begin with empty scores."""
        self._scores.reset()

    def _log_scores(self, split: str) -> None:
        scores = {logged_name(split, name): value for name, value in self._scores.compute().items()}
        fitting = self.trainer.state.fn == "fit"
        self.log_dict(scores, logger=not fitting)
        for logger in self.loggers if fitting else ():  # Lightning would log these at a step of its own counting
            logger.log_metrics(scores, step=self.global_step)
        self._scores.reset()

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> tuple[Tensor, ...]:
        """Return (logits, targets, ...): a batch with its images replaced by float32 logits, on the CPU."""
        return (self(batch[0]).float().cpu(), *(part.cpu() for part in batch[1:] if isinstance(part, Tensor)))

    # ---- use -----------------------------------------------------------------------------------------------

    def preprocess(self, picture: str | Path | np.ndarray) -> Tensor:
        """Turn a file or an (H, W, 3) uint8 array into the model's input, (3, crop, crop) float32."""
        return model_input(picture, self.preprocessing)

    def predict(self, pictures: Iterable[str | Path | np.ndarray], batch_size: int = 32) -> list[dict[str, float]]:
        """Classify pictures.

        Args:
            pictures: Files or (H, W, 3) uint8 arrays.
            batch_size: Pictures per forward pass.

        Returns:
            Per picture, class name -> probability in [0, 1], most probable first.
        """
        return classify(self, pictures, batch_size)

    def save(self, folder: str | Path) -> None:
        """Write the portable model (`model.safetensors` and `model.json`) into a folder."""
        portable.save_model(
            Path(folder),
            self.net,
            head=self._head_name,
            task=self.hparams["task"],
            classes=self.classes,
            preprocessing=self.preprocessing,
            provenance=self.provenance,
            calibration=self.calibration,
        )

    @classmethod
    def load(cls, path: str | Path, head: nn.Module | None = None, classes: Any = None) -> EfficientNetClassifier:
        """Load a portable model.

        Args:
            path: A run or model folder, `hub:owner/name[@revision]` or `wandb:entity/project/name[:alias]`.
            head: The module for the head's tensors, if the model was saved with a head of your own.
            classes: Its class names, to be sure of them; or a map from old names to new ones.

        Raises:
            UserError: Missing or damaged files, or classes that are not the model's.
        """
        folder, description = portable.read_description(path)
        net = portable.load_model(folder, head, classes)
        made = cls(
            arch=arch_of(backbone_from(description["arch"])),
            num_classes=description["num_classes"],
            head="none" if head is not None else description["head"],
            task=description["task"],
            classes=net.classes,
            preprocessing=dataclasses.asdict(net.preprocessing),
            network={key: description[key] for key in ("bn_eps", "bn_momentum", "padding", "dropout", "drop_path")},
        )
        made.net, made._head_name = net, description["head"]
        made.provenance, made.calibration = net.provenance, net.calibration
        return made.eval()
