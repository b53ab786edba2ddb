"""The command line as a user meets it: a process, its exit code, its words, its speed."""

import json
import resource
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from conftest import paint

from workbench.cli.app import VERBS, app


def workbench(*arguments, cwd=None, **options):
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=cwd, **options)


def inside(monkeypatch, *arguments):
    """Run the command in this process, which has torch loaded already; return its exit code."""
    from workbench.cli.app import main

    monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
    try:
        main()
    except SystemExit as error:
        return error.code or 0
    return 0


LIGHT_VERBS = [["--help"], ["list", "recipes"], ["list", "datasets"], ["show", "quickstart"], ["validate"]]


@pytest.mark.parametrize("arguments", LIGHT_VERBS, ids=" ".join)
def test_looking_loads_no_torch_and_takes_no_time(arguments):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['workbench', *{arguments!r}]\n"
        "try:\n    runpy.run_module('workbench', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'lightning', 'wandb', 'torchvision', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    seconds = []  # of processor time: other tests may run beside this one
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert min(seconds) < 0.6


@pytest.mark.parametrize("verb", VERBS)
def test_help_keeps_its_examples_on_lines_of_their_own(verb):
    text = CliRunner().invoke(app, [verb, "--help"]).output
    assert "\\b" not in text
    assert all(line.count("workbench ") <= 1 for line in text.splitlines()), text


@pytest.mark.parametrize("what", ["recipes", "archs", "weights", "datasets"])
def test_lists_speak_json(what):
    rows = json.loads(workbench("list", what, "--json").stdout)
    assert len(rows) >= 5
    assert all(row.keys() == rows[0].keys() for row in rows)


def test_show_prints_value_and_source():
    shown = json.loads(workbench("show", "quickstart", "--json", "optim.lr=0.5").stdout)
    assert shown["optim.lr"] == {"value": 0.5, "source": "command line"}
    assert shown["optim.momentum"]["source"] == "default"
    assert shown["data.card"]["source"].endswith("quickstart.yaml")
    keys = workbench("show", "--keys").stdout
    assert "optim.lr: Peak learning rate" in keys


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "--recipe", "quickstart", "optim.lrr=1", "train.sede=3"], ["2 mistakes", "optim.lr'", "train.seed'"]),
        (["fit", "--recipe", "nothing.yaml"], ["no such file", "quickstart"]),
        (["fit"], ["--recipe and --resume: none"]),
        (["fit", "--resume", "nowhere"], ["no recipe.yaml in it"]),
        (["fit", "--recipe", "quickstart", "optim.lr"], ["key=value"]),
        (["fit", "--recipe", "any", "data.path=/nowhere", "model.weights=none"], ["no such file or folder"]),
        (["fit", "--recipe", "flowers_b0", "data.root=/nowhere", "data.download=false"], ["jpg", "102flowers.tgz"]),
        (["fit", "--recipe", "quickstart", "model.weights=/nowhere/x.pth"], ["/nowhere/x.pth: no such file"]),
        (["evaluate", "nowhere"], ["nowhere: no such file or folder"]),
        (["predict", "nowhere", "x.jpg"], ["nowhere: no such file or folder"]),
        (["validate", "nothing"], ["nothing: no such file"]),
        (["show", "quickstart", "--bogus"], ["key=value or --key=value"]),
        (["bogus"], ["No such command"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_users_mistake_exits_2_with_words_and_without_traceback(arguments, says, monkeypatch, capfd):
    assert inside(monkeypatch, *arguments) == 2
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    for words in says:
        assert words in errors


def test_plan_tells_sizes_steps_and_groups_without_the_images(tmp_path, monkeypatch, capfd):
    assert inside(monkeypatch, "fit", "--recipe", "cars_b7", "--plan") == 0
    said = capfd.readouterr().out
    for words in ("64,288,916 parameters (63,786,960 without head)", "20000 steps", "5,120,000 images", "37.7"):
        assert words in said
    assert "253 MB of weights (timm/tf_efficientnet.aa_in1k)" in said
    assert not list(tmp_path.iterdir())


def test_fit_prints_the_run_folder_last_and_predicts_and_evaluates(
    tiny_recipe, folder_set, tmp_path, monkeypatch, capfd
):
    done = workbench("fit", "--recipe", tiny_recipe, "train.total_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip().splitlines()[-1]
    assert run.startswith(str(tmp_path / "runs" / "tiny"))
    assert inside(monkeypatch, "evaluate", run, "--json") == 0
    evaluated = json.loads(capfd.readouterr().out)
    result = json.loads((tmp_path / "runs" / "tiny" / run.split("/")[-1] / "result.json").read_text())
    for name in ("top1", "mean_per_class", "loss", "n"):
        assert evaluated["scores"][name] == pytest.approx(result["test"][name])
    assert evaluated["test_openings"] == 2
    out = tmp_path / "answers.csv"
    assert inside(monkeypatch, "predict", run, folder_set / "test" / "red", "--out", out, "--top", "2") == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "path,rank,class,probability,calibrated"
    assert len(lines) == 1 + 6 * 2


def test_ctrl_c_exits_130_and_the_run_goes_on_to_the_same_end(tiny_recipe, tmp_path, monkeypatch, capfd):
    long = ["train.total_epochs=40", "train.seed=3"]
    command = [sys.executable, "-m", "workbench", "fit", "--recipe", str(tiny_recipe), *long]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Where the tests run in a shell's background, Ctrl-C is ignored by them and all that they start.
    process = subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert f"fit --resume {run}" in errors
    assert not (run / "result.json").exists()
    assert inside(monkeypatch, "fit", "--resume", run) == 0
    assert json.loads((run / "result.json").read_text())["steps"] == 40 * 4
    capfd.readouterr()
    assert inside(monkeypatch, "fit", "--resume", run) == 2
    assert "this run is finished" in capfd.readouterr().err


def test_an_unwritable_place_is_the_users_to_mend(tiny_recipe, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("not a folder")
    assert inside(monkeypatch, "fit", "--recipe", tiny_recipe, f"track.runs_dir={tmp_path / 'file' / 'runs'}") == 2
    errors = capfd.readouterr().err
    assert "track.runs_dir" in errors
    assert "Traceback" not in errors


@pytest.fixture
def broken_set(tmp_path):
    """A folder set of two classes with one cut-off picture in train and one in test."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            for i in range(8):
                paint(tmp_path / "broken" / split / name / f"{i}.png", 0, i)
        path = tmp_path / "broken" / split / "b" / "3.png"
        path.write_bytes(path.read_bytes()[:100])
    return tmp_path / "broken"


def test_every_bad_input_of_a_fit_ends_with_2_and_four_parts(
    tiny_recipe, broken_set, folder_set, tmp_path, monkeypatch, capsys
):
    torch.save({"features.0.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    one_class, empty = tmp_path / "one", tmp_path / "empty"
    paint(one_class / "train" / "only" / "1.png", 0, 1)
    (empty / "train" / "a").mkdir(parents=True)
    python = tmp_path / "python.yaml"
    python.write_text("model: {head: torch.nn.Linear}\ndata: {card: flowers}\ntrain: {total_epochs: 1}\n")
    cases = {
        "do not decode": [tiny_recipe, f"data.path={broken_set}", "train.total_epochs=3"],
        "one class": [tiny_recipe, f"data.path={one_class}"],
        "no images": [tiny_recipe, f"data.path={empty}"],
        "weights of tiny": [tiny_recipe, f"model.weights={tmp_path / 'other.pth'}"],
        "3, as found in the files": [tiny_recipe, "model.num_classes=9"],
        "linear | mlp | cosine": [python],
        "1 to 36": [tiny_recipe, "data.batch_size=40"],
    }
    for says, (recipe, *overrides) in cases.items():
        assert inside(monkeypatch, "fit", "--recipe", recipe, *overrides) == 2, says
        errors = capsys.readouterr().err
        for part in (says, "given:", "allowed:", "do this:"):
            assert part in errors, (says, errors)
        assert "Traceback" not in errors
    assert not list((tmp_path / "runs").rglob("result.json"))
    assert not list((tmp_path / "runs").rglob("model.*"))


def test_a_broken_test_image_is_named_and_nothing_is_called_a_result(
    tiny_recipe, broken_set, monkeypatch, capsys, tmp_path
):
    (broken_set / "train" / "b" / "3.png").unlink()
    options = [f"data.path={broken_set}", "train.total_epochs=1", "data.batch_size=4"]
    assert inside(monkeypatch, "fit", "--recipe", tiny_recipe, *options) == 2
    assert "test/b/3.png: " in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_our_own_fault_exits_1_with_the_traceback_in_the_run_folder(tiny_recipe, tmp_path, monkeypatch):
    from workbench.training import run

    def fail(*args):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(run.building, "build_trainer", fail)
    assert inside(monkeypatch, "fit", "--recipe", tiny_recipe) == 1
    (log,) = (tmp_path / "runs" / "tiny").glob("*/log.txt")
    assert "Traceback" in log.read_text()
    assert "a fault of ours" in log.read_text()
