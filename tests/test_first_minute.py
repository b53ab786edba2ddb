"""What a person meets first: the verbs by what they are for, completion, listings that fit, colours, the next step."""

import os
import pty
import subprocess
import sys

import pytest
from click.testing import CliRunner

from workbench.cli import tables
from workbench.cli.app import GROUPS, TRY, VERBS, app
from workbench.cli.listing import table_lines

WIDTH = 100


def run(*arguments, **variables):
    done = CliRunner(env={"COLUMNS": str(WIDTH), **variables}).invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def completed(monkeypatch, words, number=None):
    """Return what bash would be offered after these words."""
    made = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1 if number is None else number)}
    for name, value in {**made, "_WORKBENCH_COMPLETE": "bash_complete"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, [], prog_name="workbench")
    return done.stdout.split()


def test_without_arguments_it_says_what_it_can_do_and_what_to_try():
    text = run()
    assert all(line in text for line in TRY)
    assert all(f"{title}:" in text for title in GROUPS)
    assert text == run("--help")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_each_verb_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(VERBS)


LISTINGS = [
    *(["list", what] for what in ("recipes", "archs", "weights", "compared", "datasets")),
    ["show", "quickstart"],
    ["show", "--keys"],
    ["validate"],
    ["data", "list"],
    *([verb, "--help"] for verb in VERBS),
]


@pytest.mark.parametrize("arguments", LISTINGS, ids=" ".join)
def test_a_listing_fits_the_width(arguments):
    lines = run(*arguments).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []


def test_runs_and_reports_of_a_finished_run_fit_the_width(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(finished_run.folder.parents[2])
    shown = finished_run.folder.relative_to(finished_run.folder.parents[2])
    for arguments in (["list", "runs"], ["evaluate", str(shown)], ["show", str(shown / "recipe.yaml")]):
        lines = run(*arguments).splitlines()
        assert [line for line in lines if len(line) > WIDTH] == [], arguments


def test_texts_wrap_inside_their_columns_and_the_first_is_never_broken():
    name = "a-name-that-is-rather-long"
    lines = table_lines([["name", "what", "n"], [name, "some words that do not fit", "7"]], 46)
    assert lines == [
        "name                        what             n",
        f"{name}  some words that  7",
        " " * 28 + "do not fit",
    ]
    assert table_lines([["a", "b"]], 10) == ["a  b"]
    assert name in table_lines([[name, "x" * 30]], 20)[0]


def test_a_pipe_gets_a_row_a_line(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = CliRunner().invoke(app, ["list", "recipes"], catch_exceptions=False).stdout.splitlines()
    assert all(line[0] != " " for line in lines)
    assert max(map(len, lines)) > WIDTH


def test_what_a_table_leaves_out_is_said():
    text = run("list", "weights")
    assert "--json also tells: resolution, resize" in text


def test_show_names_files_briefly_and_keeps_every_word(tmp_path, monkeypatch):
    text = run("show", "quickstart")
    assert "recipes/quickstart.yaml" in text
    assert "/recipes/quickstart.yaml" not in text
    (tmp_path / "own.yaml").write_text("data: {card: blossoms}\noptim: {lr: 0.5}\ntrain: {total_epochs: 1}\n")
    (line,) = [line for line in run("show", "own.yaml").splitlines() if line.startswith("optim.lr ")]
    assert line.split() == ["optim.lr", "0.5", "own.yaml"]


def test_the_shell_completes_verbs_recipes_and_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, is_finished in (("20260101-000000-aaaaaa", True), ("20260102-000000-bbbbbb", False)):
        folder = tmp_path / "runs" / "quickstart" / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").touch()
        if is_finished:
            (folder / "result.json").touch()
    assert completed(monkeypatch, "workbench pr") == ["plain,probe", "plain,predict", "plain,profile"]
    assert "plain,flowers_b0" in completed(monkeypatch, "workbench fit --recipe flo")
    assert "plain,protocols/kornblith" in completed(monkeypatch, "workbench show pro")
    finished, unfinished = (f"plain,runs/quickstart/{n}" for n in ("20260101-000000-aaaaaa", "20260102-000000-bbbbbb"))
    for verb in ("predict", "serve", "evaluate", "report", "compare"):
        assert completed(monkeypatch, f"workbench {verb} runs/") == [finished], verb
    assert completed(monkeypatch, "workbench fit --resume runs/") == [unfinished]
    assert completed(monkeypatch, "workbench predict models/") == ["file,models/"]


@pytest.mark.parametrize(("shell", "says"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete --no-files")])
def test_each_shell_gets_its_script(shell, says):
    text = run("completion", shell)
    assert says in text
    assert "_WORKBENCH_COMPLETE" in text


def on_a_terminal(code, **variables):
    """Return what a process writes to a terminal 100 columns wide."""
    master, other = pty.openpty()
    made = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=other, stderr=other, env={**made, "COLUMNS": str(WIDTH), **variables}
    )
    os.close(other)
    written = b""
    try:
        while part := os.read(master, 4096):
            written += part
    except OSError:
        pass  # how a terminal tells that nobody writes any more
    os.close(master)
    assert process.wait(30) == 0, written
    return written


TABLE = (
    "from workbench.cli.tables import _console\nfrom rich.table import Table\n"
    "t = Table('a', title='b'); t.add_row('[red]c[/red]'); _console().print(t)\n"
)


def test_colour_is_for_terminals_and_not_where_it_is_not_wanted():
    assert b"31m" in on_a_terminal(TABLE)
    assert b"31m" not in on_a_terminal(TABLE, NO_COLOR="1")
    piped = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, check=True)
    assert b"\x1b" not in piped.stdout


def test_a_verb_that_is_silent_for_long_moves_on_a_terminal_only():
    code = (
        "from workbench.cli.waiting import waiting\nimport time\n"
        "with waiting('reading runs'): time.sleep(0.3)\nprint('done')\n"
    )
    assert b"reading runs" in on_a_terminal(code)
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (piped.stdout, piped.stderr) == (b"done\n", b"")


def test_a_fit_ends_with_its_times_and_the_next_steps(capsys, tmp_path):
    folder = tmp_path / "runs" / "a name" / "20260101-000000-aaaaaa"
    tables.print_ending(folder, {"train_seconds": 30.2, "seconds": 42.4}, 50.0)
    said = capsys.readouterr().out
    assert "prepared in 8 s, trained in 30 s, decoded ahead, validated and tested in 12 s" in " ".join(said.split())
    for line in (f"workbench predict '{folder}' photo.jpg", f"workbench report '{folder}'"):
        assert line in said.splitlines() or f"  {line}" in said.splitlines()
    tables.print_ending(folder, {"train_seconds": 30.2, "seconds": 42.4}, None)
    assert "prepared" not in capsys.readouterr().out
