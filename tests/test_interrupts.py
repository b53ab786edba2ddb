"""SIGTERM and Ctrl-C: what a stopped fit leaves and says."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from wandb_files import wandb_read

from workbench import fit, load_recipe
from workbench.cli import app
from workbench.training import building, machine, one_fit
from workbench.training.interrupts import Interrupted, interruptible


@pytest.mark.slow
def test_sigterm_exits_130_with_a_checkpoint_and_the_run_goes_on_to_the_same_bits(tiny_recipe, tmp_path):
    options = ["train.total_epochs=16", "train.num_validations=16", "track.wandb=offline", "train.pick=last"]
    command = [sys.executable, "-m", "workbench", "fit", "--recipe", str(tiny_recipe), *options]
    # Where the tests run in a shell's background, Ctrl-C is ignored by them and all that they start.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    seen = 0
    for line in process.stderr:
        seen += line.startswith("step")
        if seen == 2:
            break
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert f"stopped by SIGTERM; go on with: python -m workbench fit --resume {run}\n" in errors
    assert not (run / "result.json").exists()
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] >= 4
    (path,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    assert [r.exit.exit_code for r in wandb_read(path) if r.HasField("exit")] == [130]
    resumed = fit(load_recipe(str(run / "recipe.yaml")).recipe, resume=run)
    straight = fit(load_recipe(str(tiny_recipe), [*options, "track.wandb=off"]).recipe)
    assert json.loads((run / "result.json").read_text())["steps"] == 64
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (resumed, straight))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "interrupted")])
def test_a_signal_outside_the_training_loop_ends_the_same_way(number, how, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted) as stop, interruptible(tmp_path):
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, old)
    assert (stop.value.how, stop.value.folder) == (how, tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


def terminated(*_):
    signal.raise_signal(signal.SIGTERM)


def fit_verb(monkeypatch, capfd, *arguments):
    """Run `fit` as the command line does; return its exit code and what it said."""
    monkeypatch.setattr(sys, "argv", ["workbench", "fit", *map(str, arguments)])
    try:
        app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, capfd.readouterr()


def test_a_stop_while_the_settings_are_made_leaves_nothing_and_promises_nothing(
    tiny_recipe, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(building, "settle", terminated)
    code, said = fit_verb(monkeypatch, capfd, "--recipe", tiny_recipe)
    assert code == 130
    assert "stopped by SIGTERM; nothing had begun, nothing is kept\n" in said.err
    assert "--resume" not in said.err
    assert not list((tmp_path / "runs" / "tiny").iterdir())


def test_a_stop_after_the_result_is_a_finished_fit(tiny_recipe, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(one_fit.tracking_end, "tell", terminated)
    options = ["train.total_epochs=1", "train.num_validations=1", "track.wandb=offline"]
    code, said = fit_verb(monkeypatch, capfd, "--recipe", tiny_recipe, *options)
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert code == 0, said.err
    assert said.out.splitlines()[-1] == str(run)
    assert "the fit is finished" in said.err
    assert f"`wandb sync {run / 'wandb'}/*run-*` sends what it had been given by then" in said.err
    assert "--resume" not in said.err
    assert "stopped" in json.loads((run / "result.json").read_text())["tracking"]["failed"]
    (path,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    assert [r.exit.exit_code for r in wandb_read(path) if r.HasField("exit")] == [0]
    monkeypatch.setattr(one_fit.Fit, "run", terminated)  # as late as can be
    assert fit(load_recipe(str(run / "recipe.yaml")).recipe, resume=run).folder == run


def test_a_run_stopped_at_its_very_beginning_gets_its_environment_when_it_goes_on(tiny_recipe, monkeypatch):
    recipe = load_recipe(str(tiny_recipe), ["train.total_epochs=1", "train.num_validations=1"]).recipe
    with monkeypatch.context() as stopping:
        stopping.setattr(machine, "describe", terminated)
        with pytest.raises(Interrupted) as stop:
            fit(recipe)
    folder = stop.value.folder
    (folder / "command.txt").unlink()
    fit(load_recipe(str(folder / "recipe.yaml")).recipe, resume=folder)
    assert (folder / "command.txt").read_text().strip()
    environment = json.loads((folder / "environment.json").read_text())
    assert json.loads((folder / "model.json").read_text())["provenance"]["environment"] == environment
    assert environment["python"]


def test_a_second_sigterm_does_not_disturb_the_tidying_up():
    tidied = []

    def stopped():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            tidied.append(True)

    with pytest.raises(Interrupted), interruptible():
        stopped()
    assert tidied
