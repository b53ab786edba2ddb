"""What README.md and docs/ tell people to type works: as typed where it is slow, in small where it is not."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import paint
from documented import PAGES, ROOT, blocks, commands

from workbench import recipe_files
from workbench.cli import app

COMMANDS = [pytest.param(page, words, id=f"{page}: {' '.join(words)[:90]}") for page, words in commands()]
STANDS_FOR = ("...", "R", "RECIPE", "NAME", "FILE", "MODEL")


def leaf(words):
    """Return the click command of some words, its own words, and its context's parent names."""
    command, rest, names = app.app, list(words), ["workbench"]
    while isinstance(command, click.Group) and rest:
        name = rest.pop(0)
        names.append(name)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"no verb {name}"
        command = found
    return command, rest, names


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_a_documented_command_is_one(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b0.json", "export.csv", "list.csv", "photos.csv"):
        Path(name).write_text("")
    for name in ("runs", "photos", "new_photos"):
        Path(name).mkdir()
    command, rest, names = leaf(words)
    rest = [word for before, word in zip(["", *rest], rest, strict=False) if word != "..." or before == "--recipe"]
    with command.make_context(names[-1], list(rest), parent=None) as context:
        given = context.params
    recipe = given.get("recipe_name") or given.get("recipe")
    if recipe and recipe not in STANDS_FOR:
        keys = [word for word in given.get("overrides") or () if not word.endswith("=...")]
        recipe_files.load(recipe.replace("recipes/", "").removesuffix(".yaml"), keys)


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        text = (ROOT / page if page == "README.md" else ROOT / "docs" / page).read_text()
        for name in re.findall(r"\(?(?:docs/)?(\w+\.md)", text):
            if (ROOT / "docs" / name).is_file() and name not in seen:
                seen.add(name)
                waiting.append(name)
    assert {page.name for page in PAGES} - seen - {"README.md"} == set()


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "//" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_programs_that_are_named_are_there():
    text = "\n".join(page.read_text() for page in [*PAGES, ROOT / "CONTRIBUTING.md"])
    for name in set(re.findall(r"(?:python )?benchmarks/(\w+)\.py", text)):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    lines = [
        line for page in [*PAGES, ROOT / "CONTRIBUTING.md"] for _, block in blocks(page) for line in block.splitlines()
    ]
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= targets
    extras = re.findall(r"pip install '[\w.-]*\[(\w+)\]'", text)
    project = (ROOT / "pyproject.toml").read_text()
    assert extras
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)


@pytest.fixture(scope="module")
def small_world(finished_run, folder_set, tmp_path_factory):
    """A folder with what the pages speak of, in small: photos/, photos.csv, runs/, and overrides that stand in."""
    place = tmp_path_factory.mktemp("documented")
    (place / "photos").symlink_to(folder_set)
    rows = [f"{path},{path.parent.name}" for path in sorted(folder_set.rglob("*.png"))[:40]]
    (place / "photos.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (place / "list.csv").write_text("\n".join(["path", *[row.split(",")[0] for row in rows[:3]]]) + "\n")
    paint(place / "photo.jpg", 1, 1)
    (place / "runs").mkdir()
    (place / "runs" / "tiny").symlink_to(finished_run.folder.parent)
    return place


SMALL = [
    *("model.arch=tiny", "model.weights=embedded/blossoms", "data.resolution=32", "data.batch_size=8"),
    *("train.total_epochs=1", "train.total_steps=null", "train.phases=[]", "schedule.warmup_epochs=0", "data.root=."),
    *("schedule.warmup_steps=null", "track.wandb=off", "data.num_workers=0", "train.micro_batch_size=null"),
    *("data.eval_resolution=null", "data.eval_resize=36", "train.rule=none", "optim.lr=0.001"),
]
OTHERWISE = {
    "serve": "it serves until it is stopped: tests/test_serve.py",
    "push": "it needs a server: tests/test_push.py",
    "sweep": "minutes: tests/test_sweep.py and test_tutorial.py",
    "train.devices": "processes: tests/test_ranks.py",
    "pets": "the set's own files: tests/test_every_set.py",
    "hub": "it needs a server: tests/test_hub.py",
    "--resume": "a run that was stopped: tests/test_exact_resume.py",
    "replay": "a run that was not finite: tests/test_not_finite.py",
    "int8": "the extra's libraries take long: tests/test_exports.py",
    "export": "tests/test_exports.py",
    "completion": "it prints a script: tests/test_command_line.py",
    "runtime=auto": "it measures for minutes: tests/test_runtime.py",
}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_a_documented_command_runs_in_small(page, words, small_world, finished_run, monkeypatch):
    line = " ".join(words)
    if why := next((told for key, told in OTHERWISE.items() if key in line), None):
        pytest.skip(why)
    if {*words} & {*STANDS_FOR} or "..." in line or "<run>" in line:
        pytest.skip("it stands for others")
    monkeypatch.chdir(small_world)
    run = str(finished_run.folder)
    small = [word.replace("sweeps/flowers", run).replace("runs/cars_b7", run) for word in words]
    small = [
        run if word in ("RUN", "$RUN", "$OWN") or word.startswith("runs/") and word != "runs/" else word
        for word in small
    ]
    small = [
        word.replace("new_photos", "photos").replace("photos/*.jpg", "photos/**/*.png")
        for word in small
        if "data.root=" not in word
    ]
    if "--recipe" in small:
        number = small.index("--recipe") + 1
        card = [] if any(word.startswith(("data.card=", "data.path=")) for word in small) else ["data.path=photos"]
        kept = [word for word in SMALL if word.partition("=")[0] not in {other.partition("=")[0] for other in small}]
        small[number] = "any"
        small += [*kept, *card]
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *small],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"},
        timeout=200,
    )
    assert done.returncode in (0, 3 if words[:2] == ["data", "doctor"] else 0), f"{small}\n{done.stderr[-2000:]}"


def test_python_blocks_are_whole():
    for page in PAGES:
        for language, text in blocks(page):
            if language == "python":
                compile(text, page.name, "exec")
                for module, names in re.findall(r"^from (workbench[\w.]*) import ([\w, ]+)$", text, re.M):
                    found = importlib.import_module(module)
                    assert all(hasattr(found, name.strip()) for name in names.split(",")), (page.name, module)
