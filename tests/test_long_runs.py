"""What lasts: many runs in one folder, two that begin at once, a clock that goes back, a fit of many epochs."""

import datetime
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from run_folders import write_run

from workbench import fit, load_recipe
from workbench.analysis.run_list import list_runs
from workbench.cli.app import app
from workbench.specs.errors import UserError
from workbench.training import run_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import long_run


@pytest.fixture
def runs(tmp_path):
    """One finished run, one that is not, and many kinds of damage."""
    top = tmp_path / "runs" / "flowers_b0"
    whole = write_run(top / "1-finished", score=0.98765)
    shutil.copytree(whole, top / "2-unfinished")
    (top / "2-unfinished" / "result.json").unlink()
    damages = {
        "not-json": ("result.json", b"{"),
        "not-utf8": ("result.json", b"\xff\xfe"),
        "a-list": ("result.json", b"[]"),
        "deep": ("result.json", b"[" * 100_000),
        "above-one": ("result.json", (whole / "result.json").read_bytes().replace(b"0.98765", b"98.765")),
        "no-metric": ("result.json", b'{"recipe": "a", "dataset": "b"}'),
        "odd-recipe": ("recipe.yaml", b"data: [\n"),
        "no-sections": ("recipe.yaml", b"a: 1\n"),
    }
    for name, (file, content) in damages.items():
        shutil.copytree(top / ("1-finished" if file == "result.json" else "2-unfinished"), top / name)
        (top / name / file).write_bytes(content)
    (top / "no-recipe" / "checkpoints").mkdir(parents=True)
    (top / "recipe-lost").mkdir()
    shutil.copy(whole / "result.json", top / "recipe-lost")
    return top


def test_runs_are_listed_finished_unfinished_and_damaged(runs):
    rows = {Path(row["run"]).name: row for row in list_runs(runs.parent)}
    finished, unfinished = rows.pop("1-finished"), rows.pop("2-unfinished")
    assert (finished["state"], finished["test"], finished["why"]) == ("finished", 0.9877, None)
    assert (finished["recipe"], finished["dataset"], finished["metric"]) == ("flowers_b0", "flowers", "mean_per_class")
    assert (unfinished["state"], unfinished["test"], unfinished["dataset"]) == ("unfinished", None, "flowers")
    assert len(rows) == 10
    assert {row["state"] for row in rows.values()} == {"damaged"}
    assert "98.765" in rows["above-one"]["why"]
    assert "too deeply" in rows["deep"]["why"]
    assert "recipe.yaml" in rows["recipe-lost"]["why"]


def test_the_command_lists_them_as_a_table_and_as_json_without_torch(runs):
    listed = CliRunner().invoke(app, ["list", "runs", str(runs.parent), "--json"], catch_exceptions=False)
    assert [row["run"] for row in json.loads(listed.stdout)] == [row["run"] for row in list_runs(runs.parent)]
    table = CliRunner().invoke(app, ["list", "runs", str(runs)], catch_exceptions=False).stdout.splitlines()
    assert len(table) == 13
    assert table[0].split() == ["run", "recipe", "dataset", "metric", "selection", "test", "state", "why"]
    code = "import sys\nfrom workbench.cli.app import app\napp(sys.argv[1:], standalone_mode=False)\n"
    code += "assert not {'torch', 'lightning', 'wandb'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "list", "runs", str(runs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_from_outside_cannot_act_on_the_terminal(tmp_path):
    write_run(tmp_path / "runs" / "x", name="a\x1b[2Jb\nc")
    shown = CliRunner().invoke(app, ["list", "runs"], catch_exceptions=False).stdout
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2


def test_no_runs_and_no_folder_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(app, ["list", "runs", "empty"], catch_exceptions=False).stdout == "none\n"
    assert CliRunner().invoke(app, ["list", "runs", "empty", "--json"], catch_exceptions=False).stdout == "[]\n"
    with pytest.raises(UserError, match="nowhere: no such folder"):
        list_runs(Path("nowhere"))
    with pytest.raises(UserError, match="only after `list runs`"):
        CliRunner().invoke(app, ["list", "recipes", "runs"], catch_exceptions=False)


def test_a_thousand_runs_are_listed_in_under_a_second(tmp_path):
    whole = write_run(tmp_path / "whole")
    (whole / "predictions.csv").write_text("id,class\n" * 1000)
    for number in range(1000):
        run = tmp_path / "runs" / f"recipe{number % 10}" / f"{number:04d}"
        (run / "checkpoints").mkdir(parents=True)
        for file in whole.iterdir():
            if file.name != "result.json" or number % 2:  # every other one is unfinished, which costs more
                os.link(file, run / file.name)
    code = "import sys\nfrom workbench.cli.app import app\napp(['list', 'runs', sys.argv[1]], standalone_mode=False)\n"
    code += "import resource\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
    code += "print(used.ru_utime + used.ru_stime, file=sys.stderr)"  # not by the clock: other tests run beside this
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "runs"], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1001, done.stderr
    assert float(done.stderr) < 1


def test_two_fits_that_start_in_the_same_second_do_not_share_a_folder(tmp_path, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 23, 10, 15, tzinfo=tz)

    ids = iter(f"{number // 3:06x}" for number in range(300))  # and the chance that tells them apart fails too
    monkeypatch.setattr(run_folder, "datetime", SimpleNamespace(datetime=Stopped))
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda count: next(ids))
    made = []
    begin = [threading.Thread(target=lambda: made.append(run_folder.create("runs", "r"))) for _ in range(40)]
    for thread in begin:
        thread.start()
    for thread in begin:
        thread.join()
    assert len(made) == len({*made}) == 40
    assert {folder.name[:15] for folder in made} == {"20261123-101500"}
    assert all((folder / "checkpoints").is_dir() for folder in made)


def test_a_runs_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="runs"):
        run_folder.create("runs", "r")


def test_a_clock_that_goes_back_loses_no_run_and_gives_no_negative_time(tiny_recipe, tmp_path, monkeypatch):
    real, began = datetime.datetime, time.time()

    class Back(real):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            Back.hours += 1
            return real.fromtimestamp(began - 3600 * Back.hours, tz)

    monkeypatch.setattr(run_folder, "datetime", SimpleNamespace(datetime=Back, UTC=datetime.UTC))
    monkeypatch.setattr(time, "time", lambda: began - 3600 * Back.hours - time.perf_counter())
    recipe = load_recipe(str(tiny_recipe), ["train.total_epochs=1"]).recipe
    outcomes = [fit(recipe), fit(recipe)]
    for outcome in outcomes:
        times = [outcome.result[name] for name in ("seconds", "train_seconds", "images_per_second")]
        assert min(times) >= 0
        assert outcome.result["images_per_second"] > 0
    listed = [row for row in list_runs(tmp_path / "runs") if row["state"] == "finished"]
    assert {row["run"] for row in listed} == {str(outcome.folder) for outcome in outcomes}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_and_open_files_stay_flat_over_200_epochs(tiny_recipe, tmp_path):
    lengths = ["train.total_epochs=200", "train.num_validations=200", "train.ema_half_life_fraction=0.1"]
    seen = long_run.watch(["fit", "--recipe", str(tiny_recipe), *lengths], tmp_path / "runs")
    assert len(seen) > 100
    assert seen[-1].rows > 390
    before, after = long_run.grown([one.files for one in seen])
    assert after <= before
    before, after = long_run.grown([one.resident for one in seen])
    assert after < 1.03 * before


def test_what_grows_would_be_seen():
    assert long_run.grown([10] * 40) == (10, 10)
    before, after = long_run.grown(list(range(100, 140)))
    assert after > 1.1 * before
