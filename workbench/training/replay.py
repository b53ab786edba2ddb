"""Do a captured step again, slowly: which image, weight, layer, gradient is the first that is not finite.

Nothing is written. On a CPU the step is the same bit for bit; where a head was trained on embeddings, its images pass
the whole network here.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn

from workbench import card_files, recipe_files
from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.image_rows import Batch, collate
from workbench.data.order import Place, derive_seed
from workbench.data.pixel_choice import Choice
from workbench.data.pixel_use import keep_pixels
from workbench.models.staged import stages_before
from workbench.models.tensor_files import read_tensors
from workbench.specs.errors import UserError
from workbench.training import building, machine, recipe_numbers, run_folder, runtime_recipe
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.nan_capture import WEIGHTS, read_capture

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a step did when it was done again.

    Args:
        step: Of the fit, from 1.
        epoch: Of the fit, from 0.
        losses: Of its micro-batches, as far as it got.
        first: The first thing that was not finite, in words; None if everything was finite.
        ids: The images of the micro-batch in which that was; all of the step's if it was before or after them.
    """

    step: int
    epoch: int
    losses: tuple[float, ...]
    first: str | None
    ids: tuple[str, ...]


def replay(path: str | Path) -> Replayed:
    """Do a captured step again, from its weights, images and random numbers.

    Args:
        path: A run folder that holds capture/, or that folder.

    Raises:
        UserError: No capture, a damaged one, or a set that is not the run's any more.
    """
    facts = read_capture(Path(path))
    folder = run_folder.existing(facts["place"].parent)
    recipe = recipe_files.load(str(folder / run_folder.RECIPE)).recipe
    data = building.build_data(recipe, card_files.card_for(recipe))
    lengths = recipe_numbers.lengths_of(recipe, len(data.rows(splits.TRAIN)))
    recipe = runtime_recipe.settle(recipe, data, lengths, folder)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compile=False))
    classifier = building.build_classifier(recipe, data, lengths)
    classifier.net.load_state_dict(read_tensors(facts["place"] / WEIGHTS))
    done = facts["step"] - 1
    train = lengths.phases[classifier.phase_number(done)].train
    classifier.train()
    classifier.net.freeze(stages_before(train, classifier.net.stage_names))
    if pixels := run_folder.read_own(folder / run_folder.PIXELS, dict, ("kind", "side", "reason")):
        keep_pixels(data, recipe.data.prepare, None, 1.0, Choice(**pixels))
    device = machine.accelerator(recipe.train.device)
    classifier.to("cuda" if device == "gpu" else "cpu")
    dtype = _AUTOCAST.get(machine.choose_precision(recipe.train.precision, device))
    autocast = torch.autocast(classifier.device.type, dtype, enabled=dtype is not None)
    return _done_again(classifier, data, facts, recipe.train.seed, autocast)


def _done_again(
    classifier: EfficientNetClassifier, data: ImageDataModule, facts: dict[str, Any], seed: int, autocast: Any
) -> Replayed:
    """Pass forward and backward through the step's micro-batches until something is not finite."""
    losses: list[float] = []
    everything = tuple(name for part in facts["micro_batches"] for name in part["ids"])

    def found(first: str | None, ids: Iterable[str] = everything) -> Replayed:
        return Replayed(facts["step"], facts["epoch"], tuple(losses), first, tuple(ids))

    for name, parameter in classifier.net.named_parameters():
        if not _is_finite(parameter):
            return found(f"the weights before this step: {name}")
    for part in facts["micro_batches"]:
        batch = _batch(data, part, facts["epoch"], classifier.device)
        if not (_is_finite(batch.images) and _is_finite(batch.targets)):
            return found("an image, before the network", part["ids"])
        torch.manual_seed(derive_seed(seed, "step", facts["step"] - 1, part["batch_idx"], facts["rank"]))
        with _Watch(classifier.net) as watch, autocast:
            loss = classifier.training_step(batch, part["batch_idx"])
        losses.append(float(loss.detach()))
        if watch.first or not _is_finite(loss):
            return found(f"the output of {watch.first}" if watch.first else "the loss", part["ids"])
        try:
            with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Error detected in")
                (loss / facts["accumulate"]).backward()
        except RuntimeError as error:
            if "returned nan" not in str(error):
                raise
            return found(f"a gradient: {str(error).splitlines()[0]}", part["ids"])
        for name, parameter in reversed(list(classifier.net.named_parameters())):
            if parameter.grad is not None and not _is_finite(parameter.grad):
                return found(f"the gradient of {name}", part["ids"])
    return found(None)


def _batch(data: ImageDataModule, part: dict[str, Any], epoch: int, device: torch.device) -> Batch:
    """Return a micro-batch as the training loop had it: decoded, augmented, normalised and mixed."""
    places = {int(row): place for place, row in enumerate(data.rows(splits.TRAIN))}
    ids = np.asarray(data.table.ids, dtype=object)
    if any(row not in places or ids[row] != name for row, name in zip(part["rows"], part["ids"], strict=True)):
        raise UserError.of("replay", "images that the set does not hold any more", "the run's own set", "restore it")
    rows = data.train_dataloader().dataset
    asked = [Place(epoch, places[row], places[part["first"]]) for row in part["rows"]]
    if part["before"] is not None:
        asked.insert(0, Place(epoch, places[part["before"]], places[part["first"]], True))
    batch = data.on_before_batch_transfer(collate([rows[place] for place in asked]), 0)
    moved = move_data_to_device(batch, device)
    data.trainer = SimpleNamespace(training=True)
    try:
        return data.on_after_batch_transfer(moved, 0)
    finally:
        data.trainer = None


class _Watch:
    """Notes the first module whose output is not finite."""

    def __init__(self, net: nn.Module):
        self.net, self.first = net, ""
        self._hooks: list[Any] = []

    def __enter__(self) -> _Watch:
        for name, module in self.net.named_modules():
            if name:
                self._hooks.append(module.register_forward_hook(self._looking_at(name, module)))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _looking_at(self, name: str, module: nn.Module) -> Any:
        def look(_: nn.Module, given: Any, output: Any) -> None:
            if not self.first and isinstance(output, Tensor) and not _is_finite(output):
                self.first = f"{name} ({type(module).__name__})"

        return look


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())
