"""The real `wandb sweep` and `wandb agent` processes, against a stand-in for W&B's server, run a sweep of real fits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb_stub import WandbStub

from workbench.sweeps.parameters import grid
from workbench.sweeps.sweep_files import read_sweep

EPOCHS = [1, 0.25, 3000, 2, 3, 4]
FAILS, STOPPED = 1, 2
"""Places in EPOCHS: too short for its phases, and so long that the server stops it."""


def wandb(*arguments, timeout=500, **environment):
    """Run W&B's own command; `${interpreter}` is the `python` on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "WANDB_AGENT_DISABLE_FLAPPING": "true", **environment}
    command = [sys.executable, "-m", "wandb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=variables)


@pytest.fixture
def sweep_file(tiny_recipe, tmp_path):
    command = ["${env}", "${interpreter}", "-m", "workbench", "fit", "--recipe", str(tiny_recipe), "${args_no_hyphens}"]
    phases = "[{train: head, steps: 2}, {train: all}]"
    fixed = {"train.phases": phases, "train.num_validations": 3000, "track.wandb": "auto", "train.open_test": False}
    sweep = {
        "program": "workbench/__main__.py",
        "command": command,
        "method": "grid",
        "metric": {"name": "val/top1", "goal": "maximize"},
        "parameters": {
            "train.total_epochs": {"values": EPOCHS},
            "optim.lr": {"values": [0.003]},
            **{name: {"value": value} for name, value in fixed.items()},
        },
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)  # seven processes that load torch or wandb, on a machine that may be busy
def test_an_agent_runs_a_sweep_with_a_failing_and_a_stopped_trial(sweep_file, tmp_path):
    with WandbStub() as server:
        server.at_once, server.stop_trials = 2, {STOPPED}
        made = wandb("sweep", "--project", "tests", sweep_file, **server.environment())
        assert made.returncode == 0, made.stderr
        (sweep,) = server.sweeps.values()
        done = wandb("agent", f"tester/tests/{sweep.name}", **server.environment())
    assert done.returncode == 0, done.stderr
    assert not server.unknown
    assert len(sweep.given) == 6

    # every trial got its own settings, and the same file gives the same trials without an account
    ours = grid(read_sweep(str(sweep_file)).parameters)
    assert [{name: trial[name] for name in ours[0]} for trial in sweep.trials] == ours

    folders = {}
    for folder in (tmp_path / "runs" / "tiny").iterdir():
        kept = json.loads((folder / "wandb.json").read_text())
        folders[kept["run_id"]] = folder
        assert (kept["mode"], kept["project"], kept["group"]) == ("online", "tests", sweep.name)
    finished = [name for place, name in enumerate(sweep.given) if place not in (FAILS, STOPPED)]
    assert set(folders) == {*finished, sweep.given[STOPPED]}, "a start that fails leaves no folder"
    for name in finished:
        run, folder = server.runs[name], folders[name]
        result = json.loads((folder / "result.json").read_text())
        wanted = dict(zip(sweep.given, EPOCHS, strict=True))[name]
        assert (result["epochs"], result["steps"]) == (wanted, 4 * wanted)
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["optim"]["lr"] == 0.003
        assert (folder / "model.safetensors").is_file()
        assert (run.exit_code, run.sweep, run.group, run.job_type) == (0, sweep.name, sweep.name, "trial")
        assert run.summary["val/top1"] == pytest.approx(result["selection"]["top1"])
        assert result["tracking"]["run_id"] == name
        assert result["tracking"]["failed"] is None
        assert run.config["optim.lr"]["value"] == run.config["optim"]["value"]["lr"] == 0.003

    assert "train.phases\n  given:    phases of 2" in done.stderr
    assert sweep.given[FAILS] not in server.runs

    stopped, folder = server.runs[sweep.given[STOPPED]], folders[sweep.given[STOPPED]]
    assert stopped.exit_code == 130
    assert f"stopped by SIGTERM; go on with: python -m workbench fit --resume {folder}" in done.stderr
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert not (folder / "result.json").exists()
