"""Names and secrets: what is shown acts on nothing, and what is secret is shown nowhere."""

import csv
import io
import os
import sys
from pathlib import Path

import pytest
from conftest import TINY_RECIPE, fill_in, paint

from workbench import fit, load_recipe
from workbench.data import splits
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.specs.printable import printable
from workbench.training import one_fit, run_folder
from workbench.training.interrupts import Interrupted

CLASSES = ("=HYPERLINK(1)", "<script>alert(1)</script>", "../../evil", "[/bold] $\\frac{")
SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_planted0planted0planted0planted0",
    "AWS_SECRET_ACCESS_KEY": "wJalrPLANTED/K7MDENG/bPxRfiCYPLANTED",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
}


def refused(call, *given):
    with pytest.raises(UserError) as error:
        call(*given)
    return str(error.value)


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A finished fit with hostile class names, and with secrets in the environment and on its command line."""
    base = tmp_path_factory.mktemp("evil")
    rows = [("path", "label", "split")]
    for number, name in enumerate(CLASSES):
        for i in range(8):
            path = f"pictures/{number}{i}.png" if i else f"pictures/=1+{number}.png"
            paint(base / path, number, 10 * number + i)
            rows.append((path, name, "test" if i < 2 else "val" if i == 2 else "train"))
    with (base / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    text = f"""
data: {{card: csv, root: {base}, path: {base}/list.csv, batch_size: 8, resolution: 32, eval_resize: 32, num_workers: 0}}
model: {{arch: tiny, bn_momentum: 0.1}}
train: {{total_epochs: 1, device: cpu}}
track: {{wandb: offline, runs_dir: {base}/runs}}
"""
    (base / "evil.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["workbench", "fit", "--note", f"https://me:planted@host {SECRETS['HF_TOKEN']}"])
        patch.chdir(base)
        yield fit(load_recipe(str(base / "evil.yaml")).recipe)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "", "a\u202eb", "x" * 301, "\ud800"])
def test_a_class_name_that_acts_is_refused(name):
    splits.check_classes(["../é <b>", "猫", "=1"], "set")
    told = refused(splits.check_classes, ["good", name], "set")
    assert "rename the class" in told
    assert printable(told) == told


def test_hostile_class_names_stay_names(evil_run, tmp_path, capsys):
    from click.testing import CliRunner

    from workbench.analysis.compare_files import read_tested
    from workbench.cli import cam_verb, evaluate_verb, tables

    folder = evil_run.folder
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert not [
        path for path in folder.parents[2].rglob("*") if "evil" in path.name and path.name not in ("evil", "evil.yaml")
    ]
    with (folder / "predictions.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]
    assert "'=HYPERLINK(1)" in cells
    rows = read_tested(folder).rows
    assert {row["class"] for row in rows} == set(CLASSES)
    tables.print_result(evil_run.result)
    assert "selection" in capsys.readouterr().out
    map_of = [str(folder.parents[2] / "pictures" / "01.png"), "--out", str(tmp_path / "cam.png")]
    for verb, options in ((evaluate_verb, []), (cam_verb, map_of)):
        done = CliRunner().invoke(verb.command, [str(folder), *options])
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "text", ["=1", "+a", "-b", "@c", "\td", "'=1", "''@x", "＝1", "a=1", "'a", "", "it's", "-1.5", "-1+2"]
)
def test_csv_cells_come_back_as_they_were(tmp_path, text):
    from workbench.training.csv_cells import defused, restored

    run_folder.write_rows(tmp_path / "x.csv", ("a", "b"), [(text, -1.5)])
    with (tmp_path / "x.csv").open(newline="") as file:
        cell, number = list(csv.reader(file))[1]
    assert restored(cell) == text
    assert (cell == text) == (text in ("a=1", "'a", "", "it's", "-1.5"))
    assert number == "-1.5"
    assert defused(None) is None


def test_no_secret_is_written(evil_run):
    written = {path: path.read_bytes() for path in evil_run.folder.rglob("*") if path.is_file()}
    assert any("wandb" in str(path) and path.suffix == ".wandb" for path in written)
    for secret in (*SECRETS.values(), "me:planted"):
        assert not [path for path, content in written.items() if secret.encode() in content], secret
    assert "https://***@host ***" in (evil_run.folder / "command.txt").read_text()


@pytest.mark.parametrize(
    "given", ["track.notes=WANDB_API_KEY", "data.root=https://me:planted@host/x", "hf_token=HF_TOKEN"]
)
def test_secrets_in_overrides_are_refused_and_not_repeated(tiny_recipe, tmp_path, monkeypatch, given, capsys):
    from workbench.cli.app import main

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
        given = given.replace(f"={name}", f"={value}")
    monkeypatch.setattr(sys, "argv", ["workbench", "fit", "--recipe", str(tiny_recipe), given])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert "***" in told
    assert not [secret for secret in (*SECRETS.values(), "me:planted") if secret in told]
    assert not (tmp_path / "runs").exists()


def test_errors_and_logs_hide_secrets_and_control_characters(tmp_path, monkeypatch, capsys):
    import logging

    from rich.console import Console

    from workbench.cli import app
    from workbench.training.log_file import logging_to

    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    shown = io.StringIO()

    def fail():
        logging.getLogger("workbench").info("at \x1b[2J%s", SECRETS["HF_TOKEN"])
        raise RuntimeError(f"no answer from https://me:planted@host/?token=abc {SECRETS['HF_TOKEN']}\x1b[2J")

    with pytest.raises(RuntimeError), logging_to(tmp_path, Console(file=shown)):
        fail()
    monkeypatch.setattr(app, "app", lambda standalone_mode: fail())
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    for told in ((tmp_path / "log.txt").read_text(), capsys.readouterr().err, shown.getvalue()):
        assert "***" in told
        assert not [part for part in (SECRETS["HF_TOKEN"], "planted@", "=abc", "\x1b[2J") if part in told], told
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_ordinary_text_is_left_alone():
    for text in ("tokens per image: 3", "data.hub.revision=" + "0" * 40, "https://host/a@b", "timm/tf_b0.aa_in1k"):
        assert without_secrets(text) == text
    assert os.environ.get("PWD", "/x") == without_secrets(os.environ.get("PWD", "/x"))
    assert Path(__file__).name == without_secrets(Path(__file__).name)


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory, folder_set):
    """A run that was stopped before its weights were scored."""
    base = tmp_path_factory.mktemp("stopped")
    (base / "tiny.yaml").write_text(fill_in(TINY_RECIPE, folder_set, base))
    recipe = load_recipe(str(base / "tiny.yaml"), ["train.total_epochs=1", "track.wandb=off"]).recipe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_fit.Fit, "score", lambda fit: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            fit(recipe)
    return next((base / "runs" / "tiny").iterdir())


@pytest.mark.parametrize("name", ["environment.json", "pixels.json", "test_openings.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '"text"', "no JSON"])
def test_a_foreign_run_is_refused_in_words(stopped_run, name, text):
    path = stopped_run / name
    kept = path.read_text() if path.is_file() else None
    path.write_text(text)
    told = refused(fit, load_recipe(str(stopped_run / "recipe.yaml")).recipe, stopped_run)
    assert name in told
    assert "damaged, or not of this run" in told
    path.unlink() if kept is None else path.write_text(kept)


def test_a_name_that_leads_elsewhere_is_no_run_folder(tmp_path):
    for name in ("../x", "/x", "a/b", ".."):
        assert "can be a folder's" in refused(run_folder.create, str(tmp_path / "runs"), name)
    assert not (tmp_path / "x").exists()
