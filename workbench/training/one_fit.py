"""One fit in this process, step by step: train, choose the weights, open test, write the run folder."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from rich.console import Console

from workbench import recipe_files
from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.pixel_choice import OFF, Choice
from workbench.data.pixel_use import keep_pixels
from workbench.specs.published import published_for
from workbench.specs.recipe import Recipe
from workbench.training import (
    building,
    continuing,
    head_only,
    machine,
    rank_steps,
    ranks,
    recipe_numbers,
    results,
    run_folder,
    run_page,
    tracking_artifacts,
    tracking_end,
)
from workbench.training.averaging import BestWeights, WeightAverage
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.interrupts import Stop
from workbench.training.metrics_csv import MetricsCsv
from workbench.training.monitor import LastCheckpoint, StepMonitor
from workbench.training.nan_capture import FiniteCheck
from workbench.training.progress import FitProgress
from workbench.training.recipe_numbers import Lengths
from workbench.training.results import SplitResult
from workbench.training.stopping import StopAtStep
from workbench.training.tracking import RowPositions, Tracking

log = logging.getLogger("workbench")


@dataclasses.dataclass(frozen=True)
class FitOutcome:
    """What a fit leaves.

    Args:
        folder: The run folder.
        result: The content of its result.json.
    """

    folder: Path
    result: dict[str, Any]


class Fit:
    """One fit's parts, so that its steps below read as a list."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        data: ImageDataModule,
        lengths: Lengths,
        classifier: EfficientNetClassifier,
        console: Console,
    ):
        self.recipe, self.folder, self.data, self.lengths = recipe, folder, data, lengths
        self.feed = data  # or what hands out its features, see head_only.py
        self.classifier, self.console = classifier, console
        metric = data.metric
        checkpoints = folder / run_folder.CHECKPOINTS
        minutes = recipe.train.checkpoint_minutes
        self.checkpoint = LastCheckpoint(checkpoints / run_folder.LAST, lengths.epoch_steps, minutes)
        self.done = continuing.last_step(checkpoints)
        self.monitor = StepMonitor(recipe.track.log_every_steps, recipe_numbers.micro_batch_of(recipe))
        self.best = BestWeights(checkpoints / run_folder.BEST, metric)
        decay = recipe_numbers.ema_decay(recipe, lengths.total_steps)
        self.average = WeightAverage(decay) if decay is not None else None
        self.progress = FitProgress(console, self.monitor, lengths.total_steps, metric)
        self.picked_step = lengths.total_steps
        self.openings = 0
        self.environment = run_folder.read_own(folder / run_folder.ENVIRONMENT, dict)

    def run(self, stop: Stop, through: int | None) -> FitOutcome:
        """Do all of it; an earlier attempt met a loss that was not finite by step `through`."""
        rows = RowPositions(self.lengths.epoch_steps, self.recipe.data.batch_size)
        config = {**recipe_files.to_dict(self.recipe), "environment": self.environment}
        track = self.recipe.track if ranks.is_first() else dataclasses.replace(self.recipe.track, wandb="off")
        self.tracking = Tracking(track, self.folder, self.recipe.about.name, config, rows)
        try:
            self.tracking.attempt("the dataset", tracking_artifacts.log_dataset, self.folder, self.data)
            ids, seed = self.data.table.ids, self.recipe.train.seed
            self.train([FiniteCheck(self.folder, ids, seed, through), StopAtStep(stop, self.checkpoint)])
            selection, test = self.score()
            outcome = ranks.by_first(lambda: self.write(selection, test))
        except BaseException as error:
            self.tracking.close(1 if isinstance(error, Exception) else 130)
            raise
        try:
            try:
                tables = (test or selection, self.data, self.classifier)
                pick, steps = self.recipe.train.pick, self.lengths.epoch_steps
                tracking_end.tell(self.tracking, outcome.result, steps, tables, pick)
            finally:
                self.tracking.close(0)
        except KeyboardInterrupt:
            self.tracking.say_cut_short()
        if ranks.is_first():
            outcome.result["tracking"] = self.tracking.section()
            run_folder.write_json(self.folder / run_folder.RESULT, outcome.result)
        return outcome

    def train(self, watching: list[lightning.Callback]) -> None:
        """Fit, from the last checkpoint if there is one."""
        resuming = self.done is not None
        if resuming:
            log.info("going on from step %d", self.done)
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # it is: by order.EpochBatches
        loggers = []
        if ranks.is_first():
            loggers = [MetricsCsv(self.folder / run_folder.METRICS, self.lengths.epoch_steps, self.done)]
            loggers += [self.tracking.logger] if self.tracking.logger else []
        callbacks = [*rank_steps.begin(self.classifier, self.recipe.train.sync_bn), *watching]
        callbacks += [self.monitor, self.progress, self.best]
        callbacks += [self.average] if self.average else []
        callbacks += [self.tracking.identity, self.checkpoint]
        trainer = building.build_trainer(self.recipe, self.lengths, self.folder, callbacks, loggers)
        self.feed = head_only.feed(self.classifier, self.data, self.lengths, trainer.precision, self.done or 0)
        with ranks.in_turn():
            self.keep_pixels(resuming)
        start = self.checkpoint.path if resuming else None
        trainer.fit(self.classifier, datamodule=self.feed, ckpt_path=start, weights_only=True)
        rank_steps.end(self.classifier)
        if ranks.is_first():
            self.checkpoint.forget_previous()
        if self.average is not None:
            self.average.swap(self.classifier)

    def keep_pixels(self, resuming: bool) -> None:
        """Decide how pictures are kept; a run that goes on keeps to what it began with."""
        path, data = self.folder / run_folder.PIXELS, self.recipe.data
        earlier = run_folder.read_own(path, dict, ("kind", "side", "reason"))
        asked = OFF if resuming and earlier is None else data.prepare
        steps = self.lengths.total_steps - getattr(self.feed, "through_step", 0)  # those that read images
        epochs = steps / self.lengths.epoch_steps
        choice = keep_pixels(self.data, asked, data.prepare_side, epochs, Choice(**earlier) if earlier else None)
        if ranks.is_first():
            run_folder.write_json(path, dataclasses.asdict(choice))

    def score(self) -> tuple[SplitResult | None, SplitResult | None]:
        """Choose the weights by selection, then open test, once."""
        trainer = building.build_trainer(self.recipe, None, self.folder)
        selection = test = None
        if len(self.data.rows(splits.SELECTION)):
            selection = results.run_split(trainer, self.classifier, self.feed, splits.SELECTION)
            earlier = self.best.best is not None and self.best.step != self.lengths.total_steps
            if self.recipe.train.pick == "best" and earlier and self.best.best > self.signed(selection):
                self.best.load_into(self.classifier)
                self.picked_step = self.best.step
                selection = results.run_split(trainer, self.classifier, self.feed, splits.SELECTION)
        if self.recipe.train.open_test and len(self.data.rows(splits.TEST)):
            count = len(self.data.rows(splits.TEST))
            self.openings = ranks.by_first(lambda: run_folder.record_test_opening(self.folder, "fit", count))
            if self.openings > 1:
                log.warning("test is opened for the %d. time: the fit was stopped after opening it", self.openings)
            test = results.run_split(trainer, self.classifier, self.feed, splits.TEST)
        return selection, test

    def signed(self, result: SplitResult) -> float:
        """Return a result's own metric so that more is better."""
        value = result.scores()[result.metric]
        return value if self.best.higher_is_better else -value

    def write(self, selection: SplitResult | None, test: SplitResult | None) -> FitOutcome:
        """Write model, predictions, result and page."""
        scored = {"selection": selection and {**selection.scores(), "step": self.picked_step}}
        scored["test"] = test and {**test.scores(), "openings": self.openings}
        scaling = self.classifier.net.scaling
        published = published_for(self.data.card.name, scaling.name)
        result = {
            "recipe": self.recipe.about.name,
            "arch": scaling.name,
            "weights": self.recipe.model.weights,
            "dataset": self.data.card.name,
            "metric": self.data.metric,
            **scored,
            "published": published and dataclasses.asdict(published),
            "stamps": list(self.data.table.stamps),
            "dropped": len(self.data.dropped),
            "source": self.data.source,
            "steps": self.lengths.total_steps,
            "epochs": round(self.lengths.total_steps / self.lengths.epoch_steps, 3),
            "images_per_second": round(self.monitor.images_per_second, 2),
            "train_seconds": round(self.monitor.seconds, 1),
            "seconds": round(self.monitor.elapsed, 1),
            "peak_memory_bytes": machine.peak_memory_bytes(machine.accelerator(self.recipe.train.device)),
            "seed": self.recipe.train.seed,
        }
        if test is not None:
            results.write_predictions(self.folder / run_folder.PREDICTIONS, test, self.data)
        results.write_logits(self.folder / run_folder.LOGITS, selection, test)
        self.classifier.provenance = {
            "recipe": recipe_files.to_dict(self.recipe),
            "result": dict(result),
            "environment": self.environment,
        }
        self.classifier.calibration = selection and selection.calibration()
        self.classifier.save(self.folder)
        run_page.write_page(self.folder, result, test or selection, self.data, self.classifier)
        result["tracking"] = self.tracking.section()  # after what the model takes along: it says nothing of W&B
        run_folder.write_json(self.folder / run_folder.RESULT, result)  # last: its presence means a finished run
        return FitOutcome(self.folder, result)
