"""A fit that was killed at any point goes on to the same bits, from the newest whole checkpoint."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
from conftest import TINY_RECIPE, fill_in

from workbench import atomic, fit, load_recipe, shipped
from workbench.specs.errors import UserError
from workbench.training import averaging, continuing, run_folder
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.metrics_csv import MetricsCsv
from workbench.training.monitor import LastCheckpoint

sys.path.insert(0, str(shipped.RECIPES.parent / "benchmarks"))
import kills  # noqa: E402 - a benchmark, no part of the package

# 36 images in batches of 8: 4 steps an epoch, 12 in all, of 2 micro-batches each; one validation, after step 8
OPTIONS = [
    "train.phases=[{train: head, epochs: 1}, {train: stage5, steps: 3}, {train: all}]",
    "train.ema_half_life_fraction=0.2",
    "train.micro_batch_size=4",
    "train.num_validations=2",
    "augment.mixup_alpha=0.4",
    "model.dropout=0.2",
    "track.log_every_steps=3",
    "train.total_steps=12",
    "train.total_epochs=null",
]


class Place:
    """A recipe with a folder of its own and the run folder of its undisturbed fit."""

    def __init__(self, base: Path, folder_set: Path, *options: str):
        self.base, self.options = base, options
        self.recipe = base / "tiny.yaml"
        self.recipe.write_text(fill_in(TINY_RECIPE, folder_set, base))
        self.undisturbed = fit(self.loaded("undisturbed")).folder

    def loaded(self, runs, *more):
        return load_recipe(str(self.recipe), [*self.options, f"track.runs_dir={self.base / runs}", *more]).recipe

    def killed(self, runs, point, *more):
        """Fit in another process, in which `point` arranges for the kill; return the run folder."""
        recipe, log = self.loaded(runs, *more), self.base / f"{runs}.txt"
        code, _ = kills.forked(lambda: (point(), fit(recipe)), None, log)
        assert code == -signal.SIGKILL, log.read_text()
        (found,) = (self.base / runs).glob("*/*")
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, folder_set):
    return Place(tmp_path_factory.mktemp("exact"), folder_set, *OPTIONS)


def go_on(folder):
    return fit(load_recipe(str(folder / "recipe.yaml")).recipe, resume=folder)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner, name, number, after=False):
    """Die at the nth call of a function, before it does its work or after it."""

    def arrange():
        real, calls = getattr(owner, name), []

        def counted(*given, **named):
            calls.append(None)
            if len(calls) == number and not after:
                die()
            result = real(*given, **named)
            if len(calls) == number:
                die()
            return result

        setattr(owner, name, counted)

    return arrange


def at_file(name, number=1):
    """Die when a file has been written beside its place for the nth time and is not in its place yet."""

    def arrange():
        real, calls = atomic.sync, []

        def counted(path):
            calls.extend([None] * (path.name == f".{name}.part"))
            if len(calls) == number:
                die()
            real(path)

        atomic.sync = counted

    return arrange


def half_a_checkpoint():
    """Die when half of the third checkpoint is written."""
    real, calls = lightning.Trainer.save_checkpoint, []

    def half(trainer, path):
        real(trainer, path)
        calls.append(None)
        if len(calls) == 3:
            os.truncate(path, path.stat().st_size // 2)
            die()

    lightning.Trainer.save_checkpoint = half


STEP = EfficientNetClassifier, "training_step"  # two calls a step
OFTEN, SELDOM = "train.checkpoint_minutes=0", "train.checkpoint_minutes=10"
POINTS = {
    "before the first checkpoint": (at_call(*STEP, 3), SELDOM),
    "in an accumulation, before an unfreeze": (at_call(*STEP, 6), OFTEN),
    "at an unfreeze, at the end of an epoch without validation": (at_call(*STEP, 9), SELDOM),
    "after an unfreeze within an epoch": (at_call(*STEP, 16), OFTEN),
    "in the middle of a later epoch": (at_call(*STEP, 21), SELDOM),
    "in a validation": (at_call(EfficientNetClassifier, "validation_step", 1), OFTEN),
    "while the weights are chosen": (at_call(EfficientNetClassifier, "predict_step", 1), SELDOM),
    "after the best weights were written": (at_call(averaging, "save_tensors", 1, after=True), OFTEN),
    "in the middle of a checkpoint": (half_a_checkpoint, OFTEN),
    "between a checkpoint's two renames": (at_file("last.ckpt", 3), OFTEN),
    "before test is opened": (at_file("test_openings.json"), SELDOM),
    "while test is open": (at_call(run_folder, "record_test_opening", 1, after=True), SELDOM),
    "at predictions.csv": (at_file("predictions.csv"), SELDOM),
    "between the two files of the model": (at_file("model.json"), SELDOM),
    "at the page": (at_file("report.html"), SELDOM),
    "at result.json": (at_file("result.json"), SELDOM),
}
CHEAP = ("in an accumulation, before an unfreeze", "in the middle of a checkpoint", "while test is open")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in CHEAP else [pytest.mark.slow]) for name in POINTS]
)
def test_killed_anywhere_a_run_goes_on_to_the_same_bits(place, name):
    point, minutes = POINTS[name]
    runs = str(list(POINTS).index(name))
    outcome = go_on(place.killed(runs, point, minutes))
    assert kills.differences(place.undisturbed, outcome.folder) == []
    openings = json.loads((outcome.folder / "test_openings.json").read_text())
    was_open = list(POINTS).index(name) >= list(POINTS).index("while test is open")
    assert ["repeated" in opening for opening in openings] == ([False, True] if was_open else [False])
    assert outcome.result["test"]["openings"] == len(openings)
    assert ("test is opened for the 2. time" in (outcome.folder / "log.txt").read_text()) == was_open


@pytest.mark.parametrize("wrong", ["cut", "a bit turned", "missing"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(place, wrong):
    folder = place.killed(wrong, at_call(*STEP, 15), OFTEN)
    last, previous = (folder / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    content = bytearray(last.read_bytes())
    if wrong == "a bit turned":
        content[len(content) // 2] ^= 1  # within a tensor
    last.write_bytes(content[: len(content) // 2] if wrong == "cut" else content)
    if wrong == "missing":
        last.unlink()
    outcome = go_on(folder)
    said = (folder / "log.txt").read_text()
    assert f"{last} is {'missing' if wrong == 'missing' else 'damaged'}" in said
    assert "going on from the one before it, of step 6" in said
    assert "going on from step 6" in said
    assert kills.differences(place.undisturbed, outcome.folder) == []
    assert not previous.exists()


def test_where_all_checkpoints_are_damaged_it_says_how_to_begin_again(place, tmp_path):
    (tmp_path / "last.ckpt").write_bytes((place.undisturbed / "checkpoints" / "last.ckpt").read_bytes()[:-100])
    (tmp_path / "previous.ckpt").touch()
    with pytest.raises(UserError) as error:
        continuing.last_step(tmp_path)
    for part in (
        "last.ckpt: File is not a zip file; previous.ckpt: ",
        f"remove {tmp_path / 'last.ckpt'} to begin again",
    ):
        assert part in str(error.value)
    assert continuing.last_step(tmp_path / "none") is None


@pytest.mark.parametrize(("minutes", "steps"), [(0, list(range(1, 13))), (10, [4, 12])])
def test_checkpoints_come_by_time_at_step_boundaries(place, monkeypatch, minutes, steps):
    written, real = [], LastCheckpoint.write

    def note(self, trainer):
        real(self, trainer)
        written.append(torch.load(self.path, weights_only=True)["global_step"])
        self._cost = 100.0  # as if writing took long

    monkeypatch.setattr(LastCheckpoint, "write", note)
    outcome = fit(place.loaded(f"every {minutes}", f"train.checkpoint_minutes={minutes}"))
    assert written == steps
    assert kills.differences(place.undisturbed, outcome.folder) == []


def test_a_stop_that_is_asked_for_waits_for_the_end_of_the_step_and_loses_nothing(place, monkeypatch):
    step, asked = EfficientNetClassifier.training_step, []

    def ask(self, batch, batch_idx):
        (last,) = (callback for callback in self.trainer.callbacks if isinstance(callback, LastCheckpoint))
        last.stop_requested |= len(asked) == 12  # in the first micro-batch of step 7
        asked.append(None)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as stopping:
        stopping.setattr(EfficientNetClassifier, "training_step", ask)
        with pytest.raises(KeyboardInterrupt) as stop:
            fit(place.loaded("asked", "train.checkpoint_minutes=10"))
    folder = stop.value.folder
    assert continuing.last_step(folder / "checkpoints") == 7
    assert len(asked) == 14
    assert kills.differences(place.undisturbed, go_on(folder).folder) == []


def test_weights_that_are_not_finite_never_take_a_checkpoints_place(place, monkeypatch):
    real = LastCheckpoint.on_train_batch_end

    def spoil(self, trainer, pl_module, *given):
        if trainer.global_step == 6:
            next(pl_module.parameters()).data.fill_(float("nan"))
        real(self, trainer, pl_module, *given)

    with monkeypatch.context() as spoiling:
        spoiling.setattr(LastCheckpoint, "on_train_batch_end", spoil)
        with pytest.raises(UserError, match="nan somewhere within steps 6 to 6"):
            fit(place.loaded("spoilt", OFTEN))
    (folder,) = (place.base / "spoilt").glob("*/*")
    assert continuing.last_step(folder / "checkpoints") == 5
    assert kills.differences(place.undisturbed, go_on(folder).folder) == []


def test_best_weights_go_back_with_a_checkpoint(tmp_path):
    best = averaging.BestWeights(tmp_path / "best.safetensors", "top1")
    best.best, best.step = 0.5, 4
    averaging.save_tensors(best.path, {"w": torch.ones(2)})
    state = best.state_dict()
    averaging.save_tensors(best.path, {"w": torch.zeros(2)})  # of a later step, which the checkpoint knows nothing of
    best.load_state_dict(state)
    assert averaging.read_tensors(best.path)["w"].tolist() == [1, 1]


def test_a_row_that_was_cut_is_written_again(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = MetricsCsv(path, 4)
    for step in (2, 4, 12):
        rows.log_metrics({"train/loss": step / 8}, step)
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("12") + 1])  # "2,1" of the row of step 12
    MetricsCsv(path, 4, keep_through=4).log_metrics({"train/loss": 1.5}, 12)
    assert path.read_text() == whole


VARIANTS = {name: options for name, options in kills.VARIANTS.items() if "accumulation" not in name}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_other_fits_go_on_to_the_same_bits(name, tmp_path, folder_set):
    place = Place(tmp_path, folder_set, *VARIANTS[name], "track.log_every_steps=3")
    for number in (3, 6, 9):
        outcome = go_on(place.killed(str(number), at_call(*STEP, number), OFTEN))
        assert kills.differences(place.undisturbed, outcome.folder) == []


def test_a_run_is_fitted_by_one_process_at_a_time(place):
    holder = "import sys, time; from pathlib import Path; from workbench.training import run_folder\n"
    holder += "with run_folder.alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", holder, str(place.undisturbed)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is fitting this run"):
            go_on(place.undisturbed)
    finally:
        other.kill()
        other.wait()
    with run_folder.alone(place.undisturbed):  # a lock goes with its process
        pass
