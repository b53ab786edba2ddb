"""What comes from outside: signals, full disks, lost processes and files, memory, numbers that are not finite."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY_RECIPE, fill_in
from faulty_fits import HALVES, refused, runs_of, tiny
from rich.console import Console
from safetensors.torch import load_file

from workbench import fit, load_recipe
from workbench.cli import app
from workbench.data import preparing
from workbench.training import interrupts, slurm
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.log_file import logging_to
from workbench.training.monitor import LastCheckpoint

SAME = ("metrics.csv", "predictions.csv")


def go_on(run):
    return fit(load_recipe(str(run / "recipe.yaml")).recipe, resume=run)


def assert_same(run, straight):
    a, b = (load_file(folder / "model.safetensors") for folder in (run, straight))
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name in SAME:
        assert (run / name).read_text() == (straight / name).read_text(), name


# ---- signals -----------------------------------------------------------------------------------------------------

IN_A_GROUP = """
import os, signal, sys
from workbench.training.classifier import EfficientNetClassifier as Net
inner = Net.training_step
def training_step(self, batch, batch_idx):
    if (self.global_step, batch_idx % 2) == (5, 0):
        os.killpg(os.getpgrp(), signal.SIGTERM)
    return inner(self, batch, batch_idx)
Net.training_step = training_step
sys.argv = ["workbench", "fit", *sys.argv[1:]]
from workbench.cli.app import main
main()
"""


def last_step(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def in_step(monkeypatch, step, do, batch_idx=None):
    """Call `do()` before a micro-batch of a step: of its first half if there are two."""
    inner = EfficientNetClassifier.training_step

    def training_step(self, batch, number):
        if self.global_step == step and self.trainer.training and (batch_idx is None or number == batch_idx):
            do()
        return inner(self, batch, number)

    monkeypatch.setattr(EfficientNetClassifier, "training_step", training_step)


def fit_verb(monkeypatch, capfd, *arguments):
    """Run `fit` as the command line does; return its exit code and what it said."""
    monkeypatch.setattr(sys, "argv", ["workbench", "fit", *map(str, arguments)])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        signal.signal(signal.SIGINT, before)
    return code, capfd.readouterr()


@pytest.fixture(scope="module")
def straight(tmp_path_factory, folder_set):
    """An undisturbed fit of `HALVES`."""
    base = tmp_path_factory.mktemp("straight")
    (base / "tiny.yaml").write_text(fill_in(TINY_RECIPE, folder_set, base))
    return fit(tiny(base / "tiny.yaml", *HALVES)).folder


@pytest.mark.slow
def test_a_signal_to_a_whole_group_saves_at_the_end_of_the_step_and_the_run_goes_on(tiny_recipe, tmp_path, straight):
    """As SLURM, timeout and terminals send it: the loader process gets it too."""
    command = [sys.executable, "-c", IN_A_GROUP, "--recipe", str(tiny_recipe), *HALVES, "data.num_workers=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, start_new_session=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    (run,) = runs_of(tmp_path)
    assert "saving at the end of this step; ask once more to stop at once" in done.stderr
    assert f"stopped by SIGTERM; go on with: python -m workbench fit --resume {run}\n" in done.stderr
    assert last_step(run) == 6
    go_on(run)
    assert_same(run, straight)


@pytest.mark.parametrize("how", ["twice", "too long"])
def test_a_step_that_does_not_end_is_not_waited_for(tiny_recipe, tmp_path, monkeypatch, capfd, how):
    monkeypatch.setattr(interrupts, "PATIENCE_SECONDS", 20.0 if how == "twice" else 0.2)

    def stop():
        signal.raise_signal(signal.SIGINT)
        if how == "twice":
            signal.raise_signal(signal.SIGINT)
        time.sleep(5)
        pytest.fail("the step went on")

    in_step(monkeypatch, 5, stop)
    code, said = fit_verb(monkeypatch, capfd, "--recipe", tiny_recipe, *HALVES)
    (run,) = runs_of(tmp_path)
    assert code == 130
    assert f"interrupted; go on with: python -m workbench fit --resume {run}\n" in said.err
    assert last_step(run) == 4


def test_slurms_signal_saves_queues_the_job_again_and_the_job_goes_on_by_itself(
    tiny_recipe, tmp_path, monkeypatch, capfd, straight
):
    queue = tmp_path / "bin" / "scontrol"
    queue.parent.mkdir()
    queue.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    queue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{queue.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    asked = ["--recipe", tiny_recipe, *HALVES]
    with monkeypatch.context() as signalled:
        in_step(signalled, 5, lambda: signal.raise_signal(signal.SIGUSR1), batch_idx=2)
        code, said = fit_verb(signalled, capfd, *asked)
    assert code == 130, said.err
    (run,) = runs_of(tmp_path)
    assert f"stopped by SIGUSR1; go on with: python -m workbench fit --resume {run}\njob 71: queued again" in said.err
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    assert last_step(run) == 6
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert slurm.run_to_go_on_with(str(tmp_path / "runs"), "tiny") is None, "another command"
    code, said = fit_verb(monkeypatch, capfd, *asked)
    assert code == 0, said.err
    assert f"SLURM has started this job again: going on with {run}\n" in said.err
    assert said.out.splitlines()[-1] == str(run)
    assert_same(run, straight)


def test_a_job_that_cannot_be_queued_again_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.requeue(signal.SIGUSR1).startswith("job 5_3 was not queued again: ")
    assert slurm.requeue(signal.SIGTERM) is None


# ---- disks, files and processes ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Leave no byte free."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_full_or_read_only_when_a_checkpoint_is_written_costs_nothing(
    small_disk, tiny_recipe, monkeypatch, capfd, straight
):
    recipe = tiny(tiny_recipe, *HALVES, f"track.runs_dir={small_disk}")
    write = LastCheckpoint.write

    def write_on_a_full_disk(self, trainer):
        if self.path.exists():
            fill(small_disk)
        write(self, trainer)

    with monkeypatch.context() as filling:
        filling.setattr(LastCheckpoint, "write", write_on_a_full_disk)
        filling.setattr(LastCheckpoint, "_since", lambda self: 60.0)
        problem, said = refused(recipe, capfd)
    assert "No space left" in problem.given
    assert "free some space" in problem.remedy
    (run,) = (small_disk / "tiny").iterdir()
    assert f"what is done is kept; once this is mended: python -m workbench fit --resume {run}\n" in said
    assert Path(problem.where) == run
    assert not list(run.rglob("*.part"))
    assert last_step(run) == 4
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    problem, _ = refused(recipe, capfd, resume=run)
    assert "Read-only file system" in problem.given
    assert problem.remedy == "write elsewhere with track.runs_dir=DIR"
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    go_on(run)
    assert_same(run, straight)


def test_a_disk_that_is_full_when_a_row_of_metrics_is_written_costs_nothing(
    tiny_recipe, tmp_path, monkeypatch, capfd, straight
):
    def full():
        (run,) = runs_of(tmp_path)
        (run / "metrics.csv").rename(run / "kept.csv")
        (run / "metrics.csv").symlink_to("/dev/full")

    with monkeypatch.context() as filling:
        filling.setattr(LastCheckpoint, "_since", lambda self: 60.0)
        in_step(filling, 5, full, batch_idx=2)
        problem, _ = refused(tiny(tiny_recipe, *HALVES), capfd)
    assert "No space left" in problem.given
    (run,) = runs_of(tmp_path)
    (run / "kept.csv").replace(run / "metrics.csv")
    go_on(run)
    assert_same(run, straight)


def test_a_log_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path, capfd):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with logging_to(tmp_path, Console(stderr=True)):
        logging.getLogger("workbench").info("first")
        logging.getLogger("workbench").info("second")
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("log.txt is not written any more: [Errno 28] No space left on device") == 1
    assert ("first\n" in said, "second\n" in said) == (True, True)


def test_a_disk_that_is_full_while_a_set_is_prepared_leaves_no_half_set(small_disk, tiny_recipe, monkeypatch, capfd):
    monkeypatch.setattr(preparing, "_check_space", lambda *given: fill(small_disk))  # another process fills it
    problem, _ = refused(tiny(tiny_recipe, f"data.prepared_root={small_disk / 'prepared'}"), capfd)
    assert "No space left" in problem.given
    assert "free some space" in problem.remedy
    assert not list(small_disk.rglob("manifest.json"))
    assert not list(small_disk.rglob("*.part"))
    (small_disk / "filler").unlink()
    monkeypatch.setattr(preparing, "_check_space", lambda *given: None)
    fit(tiny(tiny_recipe, f"data.prepared_root={small_disk / 'prepared'}", "train.total_epochs=1"))


def test_a_loader_process_that_the_system_ends_is_named_and_the_run_goes_on(
    tiny_recipe, tmp_path, monkeypatch, capfd, straight
):
    def end_loader():
        (loader,) = multiprocessing.active_children()
        os.kill(loader.pid, signal.SIGKILL)

    with monkeypatch.context() as ending:
        ending.setattr(LastCheckpoint, "_since", lambda self: 60.0)
        in_step(ending, 4, end_loader)
        problem, said = refused(tiny(tiny_recipe, *HALVES, "data.num_workers=1", "data.prepare=off"), capfd)
    assert problem.where == "a loader process"
    assert problem.given in ("killed by signal: Killed", "exited unexpectedly")  # by who notices first
    assert "lower data.num_workers" in problem.remedy
    (run,) = runs_of(tmp_path)
    assert f"fit --resume {run}" in said
    go_on(run)
    assert_same(run, straight)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_removed_in_the_middle_is_named_and_the_run_goes_on(
    tmp_path, folder_set, monkeypatch, capfd, workers, straight
):
    own = tmp_path / "own"
    shutil.copytree(folder_set, own)
    (tmp_path / "tiny.yaml").write_text(fill_in(TINY_RECIPE, own, tmp_path))
    with monkeypatch.context() as removing:
        removing.setattr(LastCheckpoint, "_since", lambda self: 60.0)
        in_step(removing, 2, lambda: (own / "train").rename(own / "away"), batch_idx=4)
        options = [*HALVES, "data.prepare=off", f"data.num_workers={workers}"]
        problem, said = refused(tiny(tmp_path / "tiny.yaml", *options), capfd)
    assert Path(problem.where).parent.parent == own / "train"
    assert "No such file" in problem.given
    assert "restore the file" in problem.remedy
    (run,) = runs_of(tmp_path)
    assert f"fit --resume {run}" in said
    (own / "away").rename(own / "train")
    go_on(run)
    assert_same(run, straight)
