"""What must not pass unseen: test opened by a trial, values other than those named, mistakes that end in tracebacks."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from sweeping import FAKE, RATES, begun, board, sweep, sweep_file_fixture  # noqa: F401

from workbench.specs.errors import UserError
from workbench.sweeps import processes
from workbench.sweeps.final_settings import check_final
from workbench.sweeps.parameters import Parameter, read_parameter
from workbench.sweeps.sweep_files import read_sweep

pytest.importorskip("optuna")
ONE = {"optim.lr": {"value": 0.01}}


def changed_file(path, **keys):
    content = yaml.safe_load(Path(path).read_text())
    Path(path).write_text(yaml.safe_dump(content | keys))
    return path


def said(words, path, *more):
    """The mistakes that a sweep is refused with, as one text."""
    with pytest.raises(UserError) as caught:
        sweep(path, *words, *more)
    assert not Path("sweeps/rates/runs").exists(), "no trial began"
    return str(caught.value)


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    "setting", ["train.open_test=true", "--optim.lr=0.02", "optim={lr: 0.02}", "--plan", "--resume=x"]
)
def test_a_command_has_no_settings_of_its_own_for_what_is_searched(sweep_file, tiny_recipe, setting, after):
    words = ["${args_no_hyphens}", setting] if after else [setting, "${args_no_hyphens}"]
    path = changed_file(sweep_file(RATES), command=[*FAKE, "--recipe", str(tiny_recipe), *words])
    message = said(["--plan"], path)
    assert "command" in message
    assert setting in message


def test_settings_of_a_command_count_in_the_order_of_the_trial(sweep_file, tiny_recipe, monkeypatch):
    monkeypatch.setenv("TEST", "true")
    words = ["${args_no_hyphens}", "train.open_test=${envvar:TEST}", "optim.momentum=0.7"]
    path = changed_file(sweep_file(RATES), command=[*FAKE, "--recipe", str(tiny_recipe), *words])
    content = yaml.safe_load(Path(path).read_text())
    del content["parameters"]["train.open_test"]
    Path(path).write_text(yaml.safe_dump(content))
    assert "no trial sees test" in said([], path)
    monkeypatch.setenv("TEST", "false")
    assert read_sweep(path).base["optim"]["momentum"] == 0.7
    # a parameter within another one is decided by whichever is typed last
    content["parameters"]["optim"] = {"value": {"lr": 0.5}}
    Path(path).write_text(yaml.safe_dump(content))
    assert "write dotted keys" in said([], path)


@pytest.mark.parametrize("text", ["optim={lr: 0.05}", "--train={open_test: false}", "optim.lr.x=1"])
def test_a_whole_section_is_no_override(sweep_file, text):
    assert text in said(["--plan"], sweep_file(RATES), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data={train_on: train}", "write dotted keys"),
        ("train={seed: 3, open_test: false}", "write dotted keys"),
        ("train={total_epochs: 3}", "write dotted keys"),
        ("train.seed=3", "the protocol sets it"),
        ("train.seed.x=3", "the protocol sets it"),
        ("optim.lrr=3", "--final-set"),
        ("optim.lr", "key=value"),
        ("optim.lr=-3", "--final-set"),
    ],
)
@pytest.mark.parametrize("plan", [["--plan"], []])
def test_mistakes_in_final_set_are_found_before_the_search(sweep_file, text, expected, plan):
    assert expected in said([*plan, "--final", f"--final-set={text}"], sweep_file(RATES))


def test_right_final_settings_pass_before_the_search(sweep_file):
    words = ["--final-set=train.total_steps=48", "--final-set=schedule.warmup_epochs=1"]
    assert "final:" in sweep(sweep_file(RATES), "--plan", "--final", *words).stdout
    for name in ("kornblith_grid", "kornblith_bayes", "flowers_reduced"):
        assert "final:" in sweep(name, "--plan", "--final", "--final-set=train.total_epochs=36").stdout


def test_final_runs_are_checked_as_they_will_be_made(tmp_path, tiny_recipe):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(tiny_recipe, run / "recipe.yaml")
    right = ["data.train_on=train+selection", "train.pick=last", "train.open_test=true", "train.seed=2"]
    check_final(run, right, 2, ["optim.lr", "train.total_epochs"])
    check_final(run, [*right, "optim.lr=0.5"], 2, ["optim.lr"])
    check_final(run, [*right, "train.total_steps=5"], 2, ["train.total_epochs"])
    for wrong in ("data={train_on: train}", "train.seed=3", "train.open_test=false", "optim={lr: 0.5}"):
        with pytest.raises(UserError, match="remove what changes it"):
            check_final(run, [*right, wrong], 2, ["optim.lr"])


def test_no_trial_is_added_by_another_target_once_test_was_opened(sweep_file):
    metric = {"name": "val/top1", "goal": "maximize"}
    sweep(sweep_file(RATES, metric={**metric, "target": 0.75}), "--final", "--seeds", 1)
    for other in (metric, {**metric, "target": 0.95}):
        with pytest.raises(UserError, match="metric.target"):
            sweep(sweep_file(RATES, metric=other))
    assert len(board()) == 1


def test_fewer_seeds_hide_nothing_that_was_opened(sweep_file):
    path = sweep_file(ONE)
    sweep(path, "--final", "--seeds", 2)
    (result,) = Path("sweeps/rates/final/seed1").glob("*/*/result.json")
    result.unlink()  # test was opened, then it was interrupted
    answer = sweep(path, "--final", "--seeds", 1)
    assert [row["seed"] for row in json.loads(Path("sweeps/rates/final.json").read_text())["seeds"]] == [0, 1]
    assert "test was opened with seeds 0, 1: all of them are summarised" in answer.stderr
    assert "of 2 seeds" in answer.stdout


def test_a_moved_sweep_goes_on_elsewhere(sweep_file, tmp_path, monkeypatch):
    path = sweep_file(RATES)
    sweep(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move("sweeps/rates", elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    sweep(path, "data.root=other", "--dir", "moved", "--final", "--seeds", 1)
    assert all((Path(row["run"]) / "result.json").is_file() for row in board("moved"))
    (seed,) = json.loads(Path("moved/final.json").read_text())["seeds"]
    recipe = yaml.safe_load((Path(seed["run"]) / "recipe.yaml").read_text())
    assert recipe["data"]["root"] == "other", "where data lies may change"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (-9, "epoch 3\n", "killed by SIGKILL (out of memory?), last line: epoch 3"),
        (-11, "", "killed by SIGSEGV, it wrote nothing"),
        (-63, "a\n", "killed by signal 63, last line: a"),
        (0, "all well\n", "ended without result.json, last line: all well"),
        (1, "RuntimeError: x\n", "RuntimeError: x"),
    ],
)
def test_how_a_process_ended_is_said(code, text, expected):
    job = processes.Job(0, Path("here"), [], process=SimpleNamespace(returncode=code))
    job.folder.mkdir()
    (job.folder / "output.txt").write_text(text)
    assert job.error_line() == expected


def test_a_failed_trial_with_a_checkpoint_goes_on(sweep_file):
    path = sweep_file({"optim.lr": {"values": [0.01, 0.5, 0.6]}}, orders="fail-above=0.3")
    sweep(path)
    (run,) = Path("sweeps/rates/runs/0001/tiny").glob("2026*")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("fail-above=0.3", "sleep=0"))  # what made it fail is gone
    sweep(path, "--retry-failed")
    assert [what for what, _ in begun()["0001"]] == ["--recipe", "--resume"]
    assert [what for what, _ in begun()["0004"]] == ["--recipe"], "without a checkpoint it begins again"
    rows = {row["optim.lr"]: row for row in board()}
    assert (rows["0.5"]["state"], rows["0.5"]["run"], rows["0.5"]["trial"]) == ("finished", str(run), "3")
    assert (rows["0.6"]["state"], rows["0.6"]["trial"]) == ("failed", "4")
    sweep(path, "--retry-failed")
    assert len(board()) == 3


@pytest.mark.parametrize(
    ("block", "given"),
    [
        ({"distribution": ["x"]}, "distribution ['x']"),
        ({"values": yaml.safe_load("[2020-01-01]")}, "datetime.date(2020, 1, 1), a date"),
        ({"value": {"a": [yaml.safe_load("2020-01-01")]}}, "a dict"),
        ({"value": {1: 2}}, "a dict"),
        ({"values": yaml.safe_load("[1e-4, 0.0001]")}, "'1e-4'"),
        ({"value": "8"}, "'8'"),
        ({"min": 0.1, "max": 1.0, "q": "", "distribution": "q_uniform"}, "''"),
        ({"min": 0.1, "max": 1000, "distribution": "log_uniform"}, "max 1000"),
        ({"min": -1000, "max": 1, "distribution": "log_uniform"}, "min 0"),
    ],
)
def test_what_no_trial_could_be_given_is_refused(block, given):
    with pytest.raises(UserError) as caught:
        read_parameter("optim.lr", block, "sweep.yaml: parameters.optim.lr")
    assert given in str(caught.value)


def test_text_that_looks_like_a_number_is_right_where_text_is_meant():
    assert read_parameter("data.root", {"value": "007"}, "here") == Parameter("data.root", ("007",))
    null = Parameter("optim.clip_norm", (None, "None"))
    assert read_parameter("optim.clip_norm", {"values": [None, "None"]}, "here") == null
    assert read_parameter("optim.lr", {"min": 1, "max": 9, "q": None, "distribution": "q_uniform"}, "here").step == 1


def test_the_number_to_write_is_read_as_one():
    with pytest.raises(UserError) as caught:
        read_parameter("optim.lr", {"values": ["1e-5"]}, "here")
    assert yaml.safe_load(caught.value.problems[0].remedy.removeprefix("write ").partition(":")[0]) == 1e-5


@pytest.mark.parametrize("eta", [float("inf"), float("nan"), 1.5])
def test_an_eta_that_is_no_whole_number_is_refused(sweep_file, eta):
    stopping = {"type": "hyperband", "min_iter": 2, "eta": eta}
    assert "early_terminate.eta" in said([], sweep_file(ONE, early_terminate=stopping))


def test_a_target_is_finite(sweep_file):
    metric = {"name": "val/top1", "goal": "maximize", "target": float("nan")}
    assert "metric.target" in said([], sweep_file(ONE, metric=metric))


def test_a_folder_that_is_a_file_is_refused(sweep_file):
    Path("taken").write_text("mine")
    for place in ("taken", "taken/inner"):
        assert "taken" in said(["--dir", place], sweep_file(ONE))
    assert Path("taken").read_text() == "mine"


def test_a_database_that_is_none_is_refused(sweep_file):
    Path("sweeps/rates").mkdir(parents=True)
    Path("sweeps/rates/sweep.db").write_text("no database" * 100)
    message = said([], sweep_file(ONE))
    assert "sweep.db" in message
    assert "--dir OTHER" in message


def test_any_name_of_a_folder_is_meant_as_it_stands(sweep_file):
    place = "q?x#%20{a}/s"
    sweep(sweep_file(ONE), "--dir", place)
    assert (Path(place) / "sweep.db").is_file()
    assert len(board(place)) == 1
    assert "q" not in os.listdir()
