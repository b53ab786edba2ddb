"""SLURM and several processes: whoever hears its signal first, the job is queued again once; `--ntasks` is no error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_RECIPE, fill_in

from workbench import fit, load_recipe
from workbench.training import rank_launch
from workbench.training.interrupts import Interrupted

ROUNDS = [("in order", [0]), ("in order", [1]), ("in order", [0, 1]), ("in order", [1, 0])]
ROUNDS += [("at once", [0]), ("at once", [1]), ("at once", [0, 1]), ("at once", [1, 0])]
"""Whether the processes are in a training loop, and which of them SLURM asks, in which order."""


def stopped(tmp_path, folder_set, rounds):
    """Stop fits of two processes; return what each round found and what was asked of SLURM."""
    queue = tmp_path / "bin" / "scontrol"
    queue.parent.mkdir()
    queue.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    queue.chmod(0o755)
    (tmp_path / "tiny.yaml").write_text(fill_in(TINY_RECIPE, folder_set, tmp_path))
    (tmp_path / "rounds.json").write_text(json.dumps(rounds))
    command = [
        sys.executable,
        str(Path(__file__).with_name("rank_stops.py")),
        str(tmp_path),
        str(tmp_path / "tiny.yaml"),
    ]
    environment = {**os.environ, "PATH": f"{queue.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "found.json").read_text()), (tmp_path / "asked").read_text()


def check(found, asked):
    for one in found:
        assert one["codes"][0] == 130, found
        assert one["codes"][1] in (130, 1), found  # 1: rank 0 was gone in the middle of something
        first, other = one["told"]
        assert first.count("stopped by SIGUSR1; go on with: python -m workbench fit --resume") == 1, found
        assert first.count("job 77: queued again") == 1, found
        assert "go on with" not in other
        assert "Traceback" not in first + other
    assert asked == "requeue 77\n" * len(found)


@pytest.mark.slow
def test_the_job_is_queued_again_once_whoever_hears_slurms_signal_first(tmp_path, folder_set):
    check(*stopped(tmp_path, folder_set, ROUNDS))


@pytest.mark.slow
def test_the_same_many_times_and_with_whole_fits(tmp_path, folder_set):
    check(*stopped(tmp_path, folder_set, ROUNDS * 2 + [("fit", [0]), ("fit", [1]), ("fit", [1, 0])]))


def test_of_several_reports_the_one_that_knows_the_signal_counts(tmp_path):
    rank_launch.Report("interrupted", text="stopped by SIGUSR1", by=signal.SIGUSR1).write(tmp_path, 0)
    rank_launch.Report("interrupted", text="interrupted").write(tmp_path, 1)
    with pytest.raises(Interrupted) as stop:
        rank_launch._outcome(tmp_path, 2, [], None)
    assert (stop.value.how, stop.value.by) == ("stopped by SIGUSR1", signal.SIGUSR1)


def test_a_batch_script_of_several_tasks_without_srun_fits_in_one_process(tiny_recipe, monkeypatch):
    """`#SBATCH --ntasks=2`, which Lightning refuses, and takes for two processes."""
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "78", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    for name, value in {**job, "SLURM_JOB_NAME": "batch"}.items():
        monkeypatch.setenv(name, value)
    recipe = load_recipe(str(tiny_recipe), ["train.total_epochs=1", "train.num_validations=1"]).recipe
    assert fit(recipe).result["test"]["n"] == 12
