"""A sweep run here: what is tried, in which order; kills, failures, early stops. With `fake_fit.py`, not real fits."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from sweeping import RATES, begun, board, is_alive, start, sweep, sweep_file_fixture, tried, until  # noqa: F401

from workbench.specs.errors import UserError
from workbench.sweeps import processes
from workbench.sweeps.leaderboard import Row, ranked

pytest.importorskip("optuna")


def test_a_grid_runs_every_combination_once_in_order(sweep_file):
    path = sweep_file({**RATES, "optim.clip_norm": {"values": ["None", 5.0]}})
    result = sweep(path)
    assert result.stdout.splitlines()[-1] == "sweeps/rates"
    rows = sorted(board(), key=lambda row: int(row["trial"]))
    assert [(row["optim.clip_norm"], row["optim.lr"]) for row in rows] == [
        (clip, rate) for clip in ("None", "5.0") for rate in ("0.1", "0.01", "0.001")
    ]
    assert {len(starts) for starts in begun().values()} == {1}
    recipe = yaml.safe_load((Path(rows[0]["run"]) / "recipe.yaml").read_text())
    assert (recipe["optim"]["clip_norm"], recipe["track"]["group"]) == (None, "rates")
    assert recipe["track"]["job_type"] == "trial"
    # a finished sweep is not repeated
    sweep(path)
    assert len(board()) == 6
    assert {len(starts) for starts in begun().values()} == {1}


def test_the_leaderboard_says_what_came_of_each_trial(sweep_file):
    output = sweep(sweep_file(RATES)).stdout
    rows = board()
    assert [(row["rank"], row["optim.lr"], row["val/top1"], row["state"]) for row in rows] == [
        ("1", "0.01", "0.9", "finished"),
        ("2", "0.1", "0.8", "finished"),
        ("3", "0.001", "0.8", "finished"),
    ]
    assert {(row["n"], row["steps"], row["seconds"], row["error"]) for row in rows} == {("12", "24", "0.1", "")}
    assert all((Path(row["run"]) / "result.json").is_file() for row in rows)
    assert "0.9000" in output
    assert "train.open_test" not in output, "constants are no column"
    assert Path("sweeps/rates/sweep.yaml").read_text() == Path("rates.yaml").read_text()


def test_ranks_are_for_the_finished_and_the_direction_counts():
    states = (("failed", None), ("finished", 0.3), ("stopped early", 0.1), ("finished", 0.2))
    rows = [Row(i, state, value, None, {}, None, None, "", "") for i, (state, value) in enumerate(states)]
    assert [(rank, row.trial) for rank, row in ranked(rows, True)] == [(1, 1), (2, 3), (None, 2), (None, 0)]
    assert [(rank, row.trial) for rank, row in ranked(rows, False)] == [(1, 3), (2, 1), (None, 2), (None, 0)]


@pytest.mark.parametrize("method", [pytest.param("random", marks=pytest.mark.slow), "bayes"])
def test_draws_follow_from_the_seed_wherever_the_search_was_interrupted(sweep_file, method):
    span = {"optim.lr": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.1}}
    path = sweep_file(span, method=method, run_cap=5)
    sweep(path, "--dir", "whole")
    sweep(sweep_file(span, method=method, run_cap=2), "--dir", "parts")
    sweep(sweep_file(span, method=method, run_cap=5), "--dir", "parts")  # run_cap may be raised
    assert len(set(tried("whole"))) == 5
    assert tried("whole") == tried("parts")
    assert all(0.0001 <= rate <= 0.1 for rate in tried("whole"))
    if method == "random":
        sweep(path, "--dir", "other", "--seed", 1)
        assert tried("other") != tried("whole")


def test_what_was_tried_is_not_tried_again(sweep_file):
    result = sweep(sweep_file(RATES, method="random", run_cap=10))
    assert sorted(tried()) == [0.001, 0.01, 0.1]
    assert "everything that can be drawn has been tried" in result.stderr


def test_no_trial_begins_after_the_target_is_reached(sweep_file):
    sweep(sweep_file(RATES, metric={"name": "val/top1", "goal": "maximize", "target": 0.85}))
    assert tried() == [0.1, 0.01]


def test_a_failed_trial_is_marked_and_passed_over_and_can_be_repeated(sweep_file):
    path = sweep_file({"optim.lr": {"values": [0.01, 0.5, 0.001]}}, orders="fail-above=0.3")
    sweep(path)
    *good, failed = board()
    assert [row["state"] for row in good] == ["finished"] * 2
    assert (failed["state"], failed["optim.lr"], failed["rank"]) == ("failed", "0.5", "")
    assert failed["error"] == "RuntimeError: out of memory"
    sweep(path)
    assert len(board()) == 3
    sweep(path, "--retry-failed")
    assert [row["trial"] for row in board()] == ["0", "2", "3"]
    assert {name: len(starts) for name, starts in begun().items()} == {"0000": 1, "0001": 1, "0002": 1, "0003": 1}


def test_the_users_mistake_in_a_trial_is_quoted():
    job = processes.Job(0, Path("here"), [], process=SimpleNamespace(returncode=2))
    job.folder.mkdir()
    (job.folder / "output.txt").write_text("hello\n1 mistake:\nmodel.weights\n  given:    b0.pth: no such file\n")
    assert job.error_line() == "model.weights given:    b0.pth: no such file"


def test_a_score_that_is_not_finite_is_a_failure(sweep_file):
    sweep(sweep_file({"optim.lr": {"value": 0.1}}, orders="nan"))
    (row,) = board()
    assert (row["state"], row["error"]) == ("failed", "val/top1 is nan")


def test_three_failures_at_the_start_stop_the_search_with_the_reason(sweep_file):
    path = sweep_file({"optim.lr": {"values": [0.5, 0.6, 0.7, 0.8]}}, orders="fail-above=0.3")
    with pytest.raises(UserError) as caught:
        sweep(path)
    (problem,) = caught.value.problems
    assert "the first 3 trials all failed, the last with: RuntimeError: out of memory" in problem.given
    assert "--retry-failed" in problem.remedy
    assert len(board()) == 3


@pytest.mark.slow  # by the clock: on a busy machine the trial can end before it is stopped
def test_a_bad_trial_is_stopped_early(sweep_file):
    rates = {"optim.lr": {"values": [0.01, 10.0, 0.02]}}
    stopping = {"type": "hyperband", "min_iter": 2, "eta": 2}
    started = time.monotonic()
    sweep(sweep_file(rates, orders="sleep=0.3", early_terminate=stopping))
    assert time.monotonic() - started < processes.KILL_AFTER_SECONDS
    rows = {row["optim.lr"]: row for row in board()}
    assert rows["0.01"]["state"] == "finished"
    assert (rows["10.0"]["state"], rows["10.0"]["rank"]) == ("stopped early", "")
    assert rows["10.0"]["val/top1"] == str(0.6 * 2 / 4), "the value when it was stopped, the second of four"
    assert not (Path(rows["10.0"]["run"]) / "result.json").exists()


def test_a_trial_that_ignores_sigterm_is_killed(sweep_file, monkeypatch):
    monkeypatch.setattr(processes, "KILL_AFTER_SECONDS", 0.3)
    rates = {"optim.lr": {"values": [0.01, 10.0]}}
    stopping = {"type": "hyperband", "min_iter": 1, "eta": 2}
    sweep(sweep_file(rates, orders="sleep=0.5 deaf", early_terminate=stopping))
    assert [row["state"] for row in board()] == ["finished", "stopped early"]


def test_after_a_kill_the_running_trial_goes_on_in_its_folder(sweep_file):
    path = sweep_file(RATES, orders="hold")
    process = start(path, "--parallel", 2)
    until(lambda: len(begun()) == 2 and "0.45" in _metrics("0001"))
    process.kill()
    process.communicate()
    Path("go").touch()
    orphans = [int(starts[0][1]) for starts in begun().values()]
    assert any(is_alive(number) for number in orphans), "a kill of the parent leaves trials running"
    result = sweep(path, "--parallel", 2)
    assert result.stderr.count("was unfinished: going on with") >= 1
    assert not any(is_alive(number) for number in orphans)
    assert tried() == [0.1, 0.01, 0.001]
    assert {row["state"] for row in board()} == {"finished"}
    assert [what for what, _ in begun()["0001"]] == ["--recipe", "--resume"]
    assert [what for what, _ in begun()["0002"]] == ["--recipe"]
    assert len(list(Path("sweeps/rates/runs/0001/tiny").glob("2026*"))) == 1


def _metrics(trial):
    return "".join(path.read_text() for path in Path("sweeps/rates/runs").glob(f"{trial}/tiny/2*/metrics.csv"))


def test_ctrl_c_stops_the_trial_and_says_how_to_go_on(sweep_file):
    path = sweep_file(RATES, orders="sleep=0.4")
    process = start(path)
    until(lambda: "0000" in begun())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"go on with: python -m workbench sweep {path}" in errors.decode()
    assert not is_alive(int(begun()["0000"][0][1]))
    (row,) = board()
    assert row["state"] == "unfinished"
    sweep(path)
    assert tried() == [0.1, 0.01, 0.001]


def test_several_run_at_once_and_only_one_sweep_in_a_folder(sweep_file):
    path = sweep_file(RATES, orders="sleep=0.3")
    process = start(path, "--parallel", 3)
    until(lambda: len(begun()) == 3)
    numbers = [int(starts[0][1]) for starts in begun().values()]
    assert all(is_alive(number) for number in numbers)
    with pytest.raises(UserError, match="a sweep is running on it"):
        sweep(path)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_more_devices_than_there_are_is_refused(sweep_file):
    with pytest.raises(UserError, match="the GPUs that torch sees"):
        sweep(sweep_file(RATES), "--devices", 99)


def test_a_changed_file_is_refused_with_what_changed(sweep_file):
    sweep(sweep_file(RATES))
    with pytest.raises(UserError) as caught:
        sweep(sweep_file({"optim.lr": {"values": [0.1, 0.2]}}), "optim.momentum=0.5")
    places = [problem.where.rpartition(": ")[2] for problem in caught.value.problems]
    assert places == ["parameters.optim.lr", "recipe optim.momentum"]
    assert caught.value.problems[0].allowed == "0.1, 0.01, 0.001, as begun"
    assert len(board()) == 3
    sweep(sweep_file(RATES), "data.num_workers=1", "data.root=elsewhere")  # where, not what
