"""`probe(recipe)`: the best linear head on an unchanged network, from embeddings, as a finished run folder.

Of the recipe it takes the data, the model and how pictures are prepared for evaluation; the head is solved for, so
length, rates and augmentation do not matter, and the recipe in the run folder says what was done in their place.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from torch import Tensor

from workbench import card_files, recipe_files
from workbench.atomic import disk_errors
from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.specs.errors import UserError
from workbench.specs.metric_names import HIGHER_IS_BETTER, LOSS
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_train import Phase
from workbench.training import building, machine, run_folder
from workbench.training.embeddings import Embedded, autocast, check_stage, embedded_split, join
from workbench.training.few_shot import few_shot
from workbench.training.interrupts import interruptible
from workbench.training.log_file import logging_to
from workbench.training.neighbours import nearest_logits
from workbench.training.probe_folder import write_metrics, write_result
from workbench.training.recipe_numbers import Lengths
from workbench.training.results import SplitResult, write_splits
from workbench.training.run import FitOutcome
from workbench.training.schedules import PhasePlan
from workbench.training.softmax_probe import FEW_STRENGTHS, STRENGTHS, Solution, is_at_rim, solve

log = logging.getLogger("workbench")


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed beyond a recipe.

    Args:
        stage: Whose pooled output is taken; that before the head if None. Of an earlier one no model is written.
        flips: Train on mirrored pictures too.
        strengths: Of the penalty, tried on the selection split; `STRENGTHS`, for shots `FEW_STRENGTHS`, if None.
        neighbours: Numbers of nearest neighbours to classify by, on the selection split.
        shots: Training images per class to solve with, on the selection split.
        draws: Draws of those.
    """

    stage: str | None = None
    flips: bool = False
    strengths: tuple[float, ...] | None = None
    neighbours: tuple[int, ...] = ()
    shots: tuple[int, ...] = ()
    draws: int = 5


def probe(recipe: Recipe, options: ProbeOptions | None = None, console: Console | None = None) -> FitOutcome:
    """Embed every image once, choose the penalty on selection, solve, open test once, write the run folder.

    With `data.train_on=train+selection` the choice is made on train alone, and the head is then solved for on both.

    Args:
        recipe: A checked recipe.
        options: What else; the defaults if None.
        console: Where progress is shown; standard error if None.

    Returns:
        The run folder and its result, which has `probe` besides what a fit's has.

    Raises:
        UserError: Anything that the user can put right.
        Interrupted: By Ctrl-C or SIGTERM; nothing is kept, unless test was opened already.
    """
    recipe = _as_probed(building.settle(recipe), options := options or ProbeOptions())
    folder = run_folder.create(recipe.track.runs_dir, recipe.about.name or "unnamed")
    try:
        with interruptible(), disk_errors(folder), logging_to(folder, console or Console(stderr=True)):
            return _Probe(recipe, options, folder).run()
    except BaseException:
        if not (folder / run_folder.TEST_OPENINGS).is_file():  # that test was opened must stay known
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _as_probed(recipe: Recipe, options: ProbeOptions) -> Recipe:
    """Return the recipe that says what a probe does, as far as a recipe can.

    Raises:
        UserError: Another head than a linear one.
    """
    if recipe.model.head != "linear":
        raise UserError.of("probe: model.head", recipe.model.head, "linear: it is solved for", "add model.head=linear")
    idle = {"policy": "none", "cutout": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0, "label_smoothing": 0.0}
    augment = dataclasses.replace(recipe.augment, crop="center", flip=0.5 if options.flips else 0.0, **idle)
    averaging = {"ema_half_life_fraction": None, "ema_decay": None}
    train = dataclasses.replace(recipe.train, phases=[Phase("head")], pick="last", **averaging)
    track = dataclasses.replace(recipe.track, wandb="off")
    return dataclasses.replace(recipe, augment=augment, train=train, track=track)


class _Probe:
    """One probe's parts, so that its steps read as a list."""

    def __init__(self, recipe: Recipe, options: ProbeOptions, folder: Path):
        self.recipe, self.options, self.folder = recipe, options, folder
        self.began = time.perf_counter()
        self.seconds = {"embedding": 0.0, "solving": 0.0}
        run_folder.write_text(folder / run_folder.RECIPE, recipe_files.to_yaml(recipe))
        run_folder.write_text(folder / run_folder.COMMAND, run_folder.command_line() + "\n")
        self.environment = machine.describe()
        run_folder.write_json(folder / run_folder.ENVIRONMENT, self.environment)
        lightning.seed_everything(recipe.train.seed, verbose=False)
        self.device = machine.accelerator(recipe.train.device)
        self.precision = machine.choose_precision(recipe.train.precision, self.device)
        self.data = building.build_data(recipe, card := card_files.card_for(recipe))
        write_splits(folder, self.data)
        self.choosing = self.data
        if recipe.data.train_on != "train":
            only_train = dataclasses.replace(recipe.data, train_on="train")
            self.choosing = building.build_data(dataclasses.replace(recipe, data=only_train), card)
        if not len(self.choosing.rows(splits.SELECTION)):
            given, remedy = "no image to choose by", "hold some out: data.holdout_fraction"
            raise UserError.of("probe", given, "a selection split", remedy)
        lengths = Lengths(1, 1, (PhasePlan("head", 1, recipe.optim.lr),), 1)
        self.classifier = building.build_classifier(recipe, self.data, lengths)
        log.info(str(self.classifier.load_report or "no pretrained weights: a probe of random initialisation"))
        self.stage = check_stage(self.classifier, options.stage)
        self.has_model = self.stage == self.classifier.net.stage_names[-2]
        self.classifier.to("cuda" if self.device == "gpu" else "cpu").eval()

    def run(self) -> FitOutcome:
        grid = self.solved(self.choosing)
        held_out = self.embedded(self.choosing, splits.SELECTION)
        scored = [self.result(held_out, solution.logits(held_out.features)) for solution in grid]
        best, rows = self.choose(grid, scored)
        extra = self.without_solving(held_out, scored[best])
        write_metrics(self.folder, rows)
        solution, selection, test, openings = grid[best], None, None, 0
        if self.recipe.data.train_on == "train":
            selection = self.result(held_out, self.logits(solution, held_out))
        else:
            (solution,) = self.solved(self.data, (solution.strength,))
        if self.recipe.train.open_test and (count := len(self.data.rows(splits.TEST))):
            openings = run_folder.record_test_opening(self.folder, "probe", count)
            embedded = self.embedded(self.data, splits.TEST)
            test = self.result(embedded, self.logits(solution, embedded), splits.TEST)
        seconds = {name: round(value, 2) for name, value in self.seconds.items()}
        how = {"stage": self.stage, "flips": self.options.flips, "strength": solution.strength}
        told = {
            "recipe": recipe_files.to_dict(self.recipe),
            "environment": self.environment,
            "steps": solution.iterations,
            "seconds": time.perf_counter() - self.began,
            "openings": openings,
            "probe": {**how, "to_gain": solution.to_gain, "grid": rows, **extra, "seconds": seconds},
        }
        parts = self.folder, self.data, self.classifier.cpu(), (selection, test), told
        return FitOutcome(self.folder, write_result(*parts, device=self.device, has_model=self.has_model))

    def embedded(self, data: ImageDataModule, split: str, mirrored: bool = False) -> Embedded:
        began = time.perf_counter()
        made = embedded_split(
            self.classifier, data, split, stage=self.stage, mirrored=mirrored, precision=self.precision
        )
        self.seconds["embedding"] += time.perf_counter() - began
        return made

    def training(self, data: ImageDataModule) -> Embedded:
        plain = self.embedded(data, splits.TRAIN)
        return join(plain, self.embedded(data, splits.TRAIN, mirrored=True)) if self.options.flips else plain

    def solved(self, data: ImageDataModule, strengths: tuple[float, ...] | None = None) -> list[Solution]:
        train = self.training(data)
        began = time.perf_counter()
        features = train.features.to(next(self.classifier.parameters()).device)
        grid = solve(features, train.targets, data.num_classes, strengths or self.options.strengths or STRENGTHS)
        self.seconds["solving"] += time.perf_counter() - began
        for solution in grid:
            if not math.isfinite(solution.objective):
                given = f"strength {solution.strength:g}: a loss that is not finite"
                raise UserError.of("probe", given, "a finite loss", "give --strengths of at most 1e4")
        return grid

    def result(self, embedded: Embedded, logits: Tensor, split: str = splits.SELECTION) -> SplitResult:
        return SplitResult(split, self.data.metric, logits, embedded.targets, torch.from_numpy(embedded.rows))

    def logits(self, solution: Solution, embedded: Embedded) -> Tensor:
        """Return what the model gives: its head computes in the recipe's precision, as when it is evaluated."""
        if not self.has_model:
            return solution.logits(embedded.features)
        head, linear = self.classifier.net.classifier, self.classifier.net.classifier[-1]
        with torch.no_grad(), autocast(linear.weight.device, self.precision):
            linear.weight.copy_(solution.weight)
            linear.bias.copy_(solution.bias)
            return head(embedded.features.to(linear.weight.device)).float().cpu()

    def choose(self, grid: list[Solution], scored: list[SplitResult]) -> tuple[int, list[dict[str, Any]]]:
        """Return the number of the best strength by the set's metric, of equal ones by the loss; and a row for each."""
        rows = []
        for solution, result in zip(grid, scored, strict=True):
            told = {name: getattr(solution, name) for name in ("strength", "iterations", "objective", "to_gain")}
            rows.append({**told, **{k: v for k, v in result.scores().items() if k not in ("n", "interval95")}})
        metric = self.data.metric
        sign = 1 if HIGHER_IS_BETTER[metric] else -1
        best = max(range(len(rows)), key=lambda number: (sign * rows[number][metric], -rows[number][LOSS]))
        strengths = [row["strength"] for row in rows]
        told = strengths[best], len(rows), metric, rows[best][metric]
        log.info("strength %.3g of %d is best on selection: %s %.4f", *told)
        if is_at_rim(strengths[best], strengths):
            log.warning("the best strength is at the rim of the grid: try --strengths beyond %.3g", strengths[best])
        return best, rows

    def without_solving(self, held_out: Embedded, chosen: SplitResult) -> dict[str, Any]:
        """Return the scores of nearest neighbours and of few images per class, where they are asked for."""
        options, found = self.options, {}
        if not options.neighbours and not options.shots:
            return found
        if chosen.is_multi_label:
            given = f"{self.data.card.name}: images can have several classes"
            raise UserError.of("probe: --knn, --shots", given, "sets with one class an image", "leave them out")
        train = self.embedded(self.choosing, splits.TRAIN)
        if max(options.neighbours, default=0) > len(train.rows):
            raise UserError.of("probe: --knn", max(options.neighbours), f"at most {len(train.rows)}", "ask for fewer")
        if options.neighbours:
            pairs = train.features, train.targets, held_out.features
            votes = nearest_logits(*pairs, self.data.num_classes, options.neighbours)
            scores = {k: self.result(held_out, logits).scores() for k, logits in votes.items()}
            found["nearest"] = [{"neighbours": k, **scores[k]} for k in options.neighbours]
        if options.shots:
            how = {"shots": options.shots, "draws": options.draws, "seed": self.recipe.train.seed}
            found["few_shot"] = few_shot(train, chosen, held_out.features, options.strengths or FEW_STRENGTHS, **how)
        return found
