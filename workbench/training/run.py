"""`fit(recipe)`: from a recipe to a finished run folder. Command line, sweeps, notebooks and tests all end here."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning
from rich.console import Console

from workbench import card_files, recipe_files
from workbench.atomic import disk_errors
from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.pixel_choice import OFF, Choice
from workbench.data.pixel_use import keep_pixels
from workbench.specs.errors import UserError
from workbench.specs.published import published_for
from workbench.specs.recipe import Recipe
from workbench.training import (
    building,
    continuing,
    faults,
    head_only,
    machine,
    rank_launch,
    rank_steps,
    ranks,
    results,
    run_folder,
    run_page,
    runtime_recipe,
    slurm,
    tracking,
    tracking_artifacts,
    tracking_end,
)
from workbench.training.averaging import BestWeights, WeightAverage
from workbench.training.building import Lengths
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.interrupts import Interrupted, Stop, interruptible
from workbench.training.log_file import logging_to
from workbench.training.metrics_csv import MetricsCsv
from workbench.training.monitor import LastCheckpoint, StepMonitor
from workbench.training.nan_capture import FiniteCheck
from workbench.training.progress import FitProgress
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


def fit(recipe: Recipe, resume: Path | None = None, console: Console | None = None) -> FitOutcome:
    """Train by a recipe, choose by selection, open test once, write the run folder.

    Args:
        recipe: A checked recipe, as `recipe_files.load` returns it in `.recipe`.
        resume: A run folder to go on with; its own recipe should be the one given.
        console: Where progress is shown; standard error if None.

    Returns:
        The run folder and its result.

    Raises:
        UserError: Anything that the user can put right, such as missing files or a loss that is not finite.
        Interrupted: By Ctrl-C or SIGTERM before the result was written; its `folder`, if any, can be resumed.
    """
    train, device = recipe.train, machine.accelerator(recipe.train.device)
    if ranks.must_start(train.devices, train.num_nodes):
        folder = rank_launch.fit_in_processes(recipe_files.to_yaml(recipe), train.devices, resume, device == "cpu")
        return FitOutcome(folder, run_folder.read_json(folder / run_folder.RESULT))
    with ranks.joined(train.devices, train.num_nodes, device):
        return _fit(recipe, resume, console or Console(stderr=True, quiet=not ranks.is_first()))


def _fit(recipe: Recipe, resume: Path | None, console: Console) -> FitOutcome:
    """Fit in this process, one of several that have joined or the only one."""
    tracking.choose_mode(recipe.track.wandb)  # what it refuses should not cost the time to read the data
    name = recipe.about.name or "unnamed"
    folder = ranks.by_first(lambda: ranks.announced(resume or run_folder.create(recipe.track.runs_dir, name)))
    try:
        with interruptible(folder) as stop, disk_errors(folder), logging_to(folder, console):

            def attempt(is_again: bool, through: int | None) -> FitOutcome:
                is_new = resume is None and not is_again and ranks.is_first()
                try:
                    with ranks.in_turn():
                        prepared = _prepare(building.settle(recipe), folder, console, is_new)
                except (UserError, KeyboardInterrupt) as error:
                    can_resume = (folder / run_folder.RECIPE).is_file() and not isinstance(error, UserError)
                    if is_new and not can_resume:
                        shutil.rmtree(folder, ignore_errors=True)  # nothing has begun: an empty one helps nobody
                    raise
                return prepared.run(stop, through)

            batch_size = recipe.data.batch_size if runtime_recipe.micro_batch_is_open(recipe) else None
            return faults.with_second_tries(attempt, folder, stop, batch_size)
    except Interrupted:
        result = run_folder.read_json(folder / run_folder.RESULT)
        if result is None:
            raise
        return FitOutcome(folder, result)  # stopped in the last moment: there is nothing left to go on with


def _prepare(recipe: Recipe, folder: Path, console: Console, is_new: bool) -> _Fit:
    """Write what is known before the first step, read the data's lists, build the model."""
    if is_new:
        run_folder.write_text(folder / run_folder.RECIPE, recipe_files.to_yaml(recipe))
        slurm.note_job(folder)
    if not (folder / run_folder.COMMAND).is_file():  # new, or stopped right after the recipe was written
        run_folder.write_text(folder / run_folder.COMMAND, run_folder.command_line() + "\n")
    if not (folder / run_folder.ENVIRONMENT).is_file():
        run_folder.write_json(folder / run_folder.ENVIRONMENT, machine.describe())
    lightning.seed_everything(recipe.train.seed, verbose=False)
    if machine.accelerator(recipe.train.device) == "cpu":
        machine.keep_freed_memory()
    data = building.build_data(recipe, card_files.card_for(recipe))
    results.write_splits(folder, data)
    lengths = building.lengths_of(recipe, len(data.rows(splits.TRAIN)))
    recipe = runtime_recipe.settle(recipe, data, lengths, folder)
    data.micro_batch_size = building.micro_batch_of(recipe)
    classifier = building.build_classifier(recipe, data, lengths)
    log.info(str(classifier.load_report or "no pretrained weights: training from random initialisation"))
    return _Fit(recipe, folder, data, lengths, classifier, console)


class _Fit:
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
        self.monitor = StepMonitor(recipe.track.log_every_steps, building.micro_batch_of(recipe))
        self.best = BestWeights(checkpoints / run_folder.BEST, metric)
        decay = building.ema_decay(recipe, lengths.total_steps)
        self.average = WeightAverage(decay) if decay is not None else None
        self.progress = FitProgress(console, self.monitor, lengths.total_steps, metric)
        self.picked_step = lengths.total_steps
        self.openings = 0
        self.environment = run_folder.read_json(folder / run_folder.ENVIRONMENT)

    def run(self, stop: Stop, through: int | None) -> FitOutcome:
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
        earlier = run_folder.read_json(path)
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
        settings, made = recipe_files.to_dict(self.recipe), self.environment
        self.classifier.provenance = {"recipe": settings, "result": dict(result), "environment": made}
        self.classifier.calibration = selection and selection.calibration()
        self.classifier.save(self.folder)
        run_page.write_page(self.folder, result, test or selection, self.data, self.classifier)
        result["tracking"] = self.tracking.section()  # after what the model takes along: it says nothing of W&B
        run_folder.write_json(self.folder / run_folder.RESULT, result)  # last: its presence means a finished run
        return FitOutcome(self.folder, result)
