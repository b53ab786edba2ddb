"""The end of a sweep: the chosen settings retrained, test opened once per seed; and one sweep with real fits."""

import json
import os
from pathlib import Path

import pytest
import yaml
from sweeping import RATES, REAL, begun, board, start, sweep, sweep_file_fixture, until  # noqa: F401

from workbench import load_recipe
from workbench.specs.errors import UserError
from workbench.sweeps.final_settings import final_settings

pytest.importorskip("optuna")


def test_final_runs_open_test_once_a_seed_and_are_not_repeated(sweep_file):
    path = sweep_file(RATES)
    output = sweep(path, "--final", "--seeds", 2).stdout
    final = json.loads(Path("sweeps/rates/final.json").read_text())
    assert (final["chosen"]["trial"], final["chosen"]["parameters"]["optim.lr"]) == (1, 0.01)
    assert (final["chosen"]["selection_value"], final["chosen"]["selection_n"]) == (0.9, 12)
    assert [row["test"]["top1"] for row in final["seeds"]] == [0.9, 0.901]
    assert (final["metric"], final["n"], final["mean"]) == ("test/top1", 2, pytest.approx(0.9005))
    # Student's t for 2 values: half their distance times 12.706
    assert final["interval95"] == pytest.approx([0.9005 - 0.0005 * 12.7062, 0.9005 + 0.0005 * 12.7062], abs=1e-6)
    assert "mean 90.05 % of 2 seeds, range 90.00 to 90.10" in output
    for row in final["seeds"]:
        recipe = yaml.safe_load((Path(row["run"]) / "recipe.yaml").read_text())
        assert recipe["data"]["train_on"] == "train+selection"
        train, track = recipe["train"], recipe["track"]
        assert (train["pick"], train["open_test"], train["seed"]) == ("last", True, row["seed"])
        assert (train["total_steps"], train["total_epochs"], track["job_type"]) == (24, None, "final")
    before = begun("sweeps/rates/final")
    sweep(path, "--final", "--seeds", 3)
    after = begun("sweeps/rates/final")
    assert {name: after[name] for name in before} == before
    assert sorted(after) == ["seed0", "seed1", "seed2"]
    with pytest.raises(UserError, match="test was opened with it"):
        sweep(path, "--final", "--final-set", "train.total_steps=48")


def test_a_longer_final_budget_is_recorded(sweep_file):
    output = sweep(
        *(sweep_file(RATES), "--final", "--seeds", 1, "--final-set", "train.total_epochs=9", "--final-set"),
        "optim.momentum=0.8",
    ).stdout
    final = json.loads(Path("sweeps/rates/final.json").read_text())
    assert final["changed_for_final"] == ["train.total_epochs=9", "optim.momentum=0.8"]
    assert final["interval95"] is None
    recipe = yaml.safe_load((Path(final["seeds"][0]["run"]) / "recipe.yaml").read_text())
    assert (recipe["train"]["total_epochs"], recipe["train"]["total_steps"]) == (9, None)
    assert recipe["optim"]["momentum"] == 0.8
    assert "changed for the final runs: train.total_epochs=9 optim.momentum=0.8" in output


def test_final_runs_that_fail_before_test_can_be_made_otherwise(sweep_file):
    path = sweep_file(RATES)
    with pytest.raises(UserError, match="seed 0: RuntimeError: out of memory"):
        sweep(path, "--final", "--seeds", 1, "--final-set", "track.notes=fail-above=0")
    sweep(path, "--final", "--seeds", 1)
    final = json.loads(Path("sweeps/rates/final.json").read_text())
    assert (final["changed_for_final"], final["mean"]) == ([], 0.9)


@pytest.mark.parametrize("text", ["train.seed=3", "--data.train_on=train", "train.open_test=false"])
def test_what_makes_a_final_run_final_cannot_be_changed(sweep_file, text):
    with pytest.raises(UserError, match="the protocol sets it"):
        sweep(sweep_file(RATES), "--final", f"--final-set={text}")


def test_no_trial_is_added_once_test_was_opened(sweep_file):
    keys = {"method": "random", "run_cap": 2}
    sweep(sweep_file(RATES, **keys), "--final", "--seeds", 1)
    with pytest.raises(UserError, match="test has been opened"):
        sweep(sweep_file(RATES, **{**keys, "run_cap": 3}))
    with pytest.raises(UserError, match="test has been opened"):
        sweep(sweep_file(RATES, **keys), "--retry-failed")


def test_lengths_in_epochs_become_steps_of_the_chosen_run(tmp_path, tiny_recipe):
    """36 training images in batches of 8 are 4 steps an epoch; with the 12 of selection, 6."""
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["schedule"] = {"name": "exponential", "decay_epochs": 3.0, "warmup_epochs": 0.5}
    recipe["train"] |= {"phases": [{"train": "head", "epochs": 1.5, "lr": 1e-05}, {"train": "stage3"}]}
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (run / "result.json").write_text('{"steps": 12}')
    (run / "splits.json").write_text('{"counts": {"train": 36, "selection": 12, "test": 12}}')
    made = load_recipe(str(run / "recipe.yaml"), final_settings(run, [])).recipe
    assert (made.train.total_steps, made.train.total_epochs) == (12, None)
    assert (made.schedule.warmup_steps, made.schedule.warmup_epochs) == (2, None)
    assert made.schedule.decay_epochs * 6 == pytest.approx(3.0 * 4)
    first, last = made.train.phases
    assert (first.train, first.steps, first.epochs, first.lr) == ("head", 6, None, 1e-05)
    assert (last.train, last.steps, last.epochs) == ("stage3", None, None)
    changed = load_recipe(str(run / "recipe.yaml"), final_settings(run, ["schedule.warmup_epochs=0.25"])).recipe
    assert (changed.schedule.warmup_epochs, changed.schedule.warmup_steps) == (0.25, None)


@pytest.mark.parametrize("words", [["--seeds", "2"], ["--final-set", "a=b"], ["--devices", "1", "--parallel", "1"]])
def test_options_that_do_not_go_together_are_refused(sweep_file, words):
    with pytest.raises(UserError):
        sweep(sweep_file(RATES), *words)


@pytest.mark.slow
def test_real_fits_from_search_to_test(sweep_file):
    """A trial, killed with its sweep and gone on with, and one final run."""
    rates = {"optim.lr": {"value": 0.003}, "data.train_on": {"value": "train"}}
    path = sweep_file(rates, command=REAL)
    process = start(path, "train.total_epochs=4", "--final", "--seeds", 1)
    until(lambda: list(Path("sweeps/rates/runs").glob("0000/tiny/*/metrics.csv")), 60)
    process.kill()
    process.communicate()
    sweep(path, "train.total_epochs=4", "--final", "--seeds", 1)
    rows = board()
    (row,) = rows
    assert (row["state"], row["n"], row["steps"]) == ("finished", "12", "16")
    assert len(list(Path("sweeps/rates/runs/0000/tiny").iterdir())) == 1
    result = json.loads((Path(row["run"]) / "result.json").read_text())
    assert float(row["val/top1"]) == result["selection"]["top1"]
    assert not (Path(row["run"]) / "test_openings.json").exists()
    final = json.loads(Path("sweeps/rates/final.json").read_text())
    assert final["seeds"][0]["steps"] == 16
    run = Path(final["seeds"][0]["run"])
    assert len(json.loads((run / "test_openings.json").read_text())) == 1
    assert json.loads((run / "splits.json").read_text())["counts"]["train"] == 48
    assert final["seeds"][0]["test"]["n"] == 12
    assert os.path.commonpath([run.resolve(), Path("sweeps/rates/final").resolve()]).endswith("final")
