"""One damaged input of each kind by number, and what comes of reading it: the part of `fuzz.py` that tests use too."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import mutations
import numpy as np
import yaml

from workbench import card_files, recipe_files, shipped
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

READ, REFUSED, CRASH = "read", "refused", "CRASH"
SECONDS = 20.0
"""What takes longer counts as a crash; a guess, a hundred times what a whole input takes."""
KINDS = ("picture", "recipe", "card", "sweep", "csv", "run")
_CSV = "path,label,split\na.png,red,train\nb.png,blue,train\nc.png,red,test\nd.png,blue,test\n"


def outcome(call: Callable[[], Any], aloud: bool = False) -> str:
    """Return `read`, `refused`, or what crashed, in one line.

    Args:
        call: What reads.
        aloud: Print the error whole too.
    """
    began = time.perf_counter()
    try:
        call()
        told = READ
    except UserError as error:
        text = str(error)
        text.encode()  # what no terminal can print is no clear error
        told = REFUSED if text.strip() else f"{CRASH}: an error without words"
        if aloud:
            print(text)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{CRASH}: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:160]!r}"
        if aloud:
            traceback.print_exc()
    seconds = time.perf_counter() - began
    return told if seconds < SECONDS else f"{CRASH}: {seconds:.0f} s, then {told}"


def attempt(kind: str, number: int, folder: Path, aloud: bool = False) -> tuple[str, str]:
    """Make a damaged input and read it.

    Args:
        kind: One of `KINDS`.
        number: Which one; the same number gives the same input.
        folder: Where files may be written.
        aloud: Print what is said of it, whole.

    Returns:
        What it was made from, and the outcome.
    """
    random = Random(f"{kind} {number}")
    sort, calls = globals()[f"_{kind}"](random, folder)
    told = [outcome(call, aloud) for call in calls]
    return sort, next((one for one in told if one.startswith(CRASH)), told[0])


def _picture(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    sort = random.choice(list(PICTURES))
    return sort, picture_readers(mutations.damaged_bytes(PICTURES[sort], random, tuple(PICTURES.values())), folder)


def picture_readers(data: bytes, folder: Path) -> list[Callable[[], Any]]:
    """Return all the ways in which the workbench reads a picture: for training, evaluation, the doctor, an answer."""
    from workbench.data.image_rows import ImageRows
    from workbench.data.looking import look
    from workbench.data.order import Place
    from workbench.data.splits import ImageTable
    from workbench.data.transforms import eval_transform, train_transform
    from workbench.specs.weights import Preprocessing
    from workbench.training.answers import model_input

    file, preprocessing = folder / "picture", Preprocessing(32, 28)
    file.write_bytes(data)
    table = ImageTable(["x"], [data], np.zeros(1, np.int64), ["train"], ("a",))
    ways = (eval_transform(preprocessing), train_transform(24, "bicubic"))
    evaluated, trained = (ImageRows(table, np.arange(1), transform, 0) for transform in ways)
    reads = [lambda: evaluated[0], lambda: trained[Place(0, 0, 0)]]
    return [*reads, lambda: look(data), lambda: model_input(file, preprocessing)]


PICTURES = mutations.sample_pictures()
_RECIPES = [shipped.RECIPES / f"{name}.yaml" for name in recipe_files.list_recipes()]
_CARDS = [shipped.CARDS / f"{name}.yaml" for name in card_files.list_cards()]
_SWEEPS = sorted((shipped.RECIPES / "sweeps").glob("*.yaml"))


def _damaged_yaml(path: Path, random: Random, values: Any = None) -> str:
    """Return a YAML file's text with a damage to its letters, or to one of its values."""
    text = path.read_text(encoding="utf-8")
    if random.random() < 0.5:
        return mutations.damaged_text(text, random)
    changed = mutations.changed(values or yaml.safe_load(text), random)
    try:
        return yaml.safe_dump(changed, allow_unicode=True, sort_keys=False)
    except yaml.YAMLError:
        return json.dumps(changed)


def _written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def _recipe(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    source = random.choice(_RECIPES)
    whole = recipe_files.to_dict(recipe_files.load(str(source)).recipe) if random.random() < 0.5 else None
    path = _written(folder / "mine.yaml", _damaged_yaml(source, random, whole))
    typed = []
    if random.random() < 0.3:
        key = random.choice(list(recipe_files.recipe_keys()))
        typed = [f"{key}={mutations.odd_value(random)}"]
    return "any", [lambda: explained(str(path), typed)]


def explained(name: str, typed: list[str]) -> None:
    """Do with a recipe what looking at it does: load, explain, write and load again."""
    loaded = recipe_files.load(name, typed)
    recipe_files.explain(loaded)
    again = Path(name).with_name("again.yaml")
    again.write_text(recipe_files.to_yaml(loaded.recipe), encoding="utf-8")
    same = recipe_files.load(str(again)).recipe
    if recipe_files.to_dict(same) != recipe_files.to_dict(loaded.recipe):
        raise ValueError("the recipe came back changed")


def _card(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    source = random.choice(_CARDS)
    path = _written(folder / "mine.yaml", _damaged_yaml(source, random))
    recipe = _written(folder / "recipe.yaml", f"data: {{card: {path}}}\ntrain: {{total_epochs: 1}}\n")
    return "any", [lambda: card_files.load_card(str(path)), lambda: recipe_files.load(str(recipe))]


def _sweep(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    from workbench.sweeps.sweep_files import read_sweep

    source = random.choice(_SWEEPS)
    path = _written(folder / "mine.yaml", _damaged_yaml(source, random))
    return "any", [lambda: read_sweep(str(path))]


def _csv(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    from workbench.data.layouts.csv_list import read_csv

    for name in "abcd":
        (folder / f"{name}.png").write_bytes(PICTURES["png"])
    damage = mutations.damaged_text(_CSV, random).encode("utf-8", "surrogatepass")
    path = folder / "list.csv"
    path.write_bytes(mutations.damaged_bytes(damage, random) if random.random() < 0.3 else damage)
    cards = DatasetCard(name="x"), DatasetCard(name="x", label_separator=";")
    return "list", [lambda card=card: read_csv(card, path) for card in cards]


def _run(random: Random, folder: Path) -> tuple[str, list[Callable[[], Any]]]:
    from workbench.analysis.compare_files import read_tested
    from workbench.analysis.report_runs import find_runs
    from workbench.analysis.run_list import list_runs

    run = folder / f"runs-{random.random()}" / "run"
    write_run(run)
    name = random.choice([path.name for path in run.iterdir() if path.is_file()])
    path = run / name
    if name.endswith(".json") and random.random() < 0.6:
        path.write_text(json.dumps(mutations.changed(json.loads(path.read_text()), random)))
    elif random.random() < 0.5:
        _written(path, mutations.damaged_text(path.read_text(), random))
    else:
        path.write_bytes(mutations.damaged_bytes(path.read_bytes(), random))
    return name, [lambda: list_runs(run.parent), lambda: find_runs([run.parent]), lambda: read_tested(run)]


def write_run(folder: Path) -> None:
    """Write the files of a finished run that can be read without its tensors."""
    loaded = recipe_files.load("quickstart")
    scores = {"loss": 0.5, "top1": 0.75, "top5": 1.0, "mean_per_class": 0.75, "n": 4, "interval95": [0.3, 0.95]}
    result = {
        **{"recipe": "quickstart", "arch": "tiny", "weights": "embedded/blossoms", "dataset": "blossoms"},
        **{"metric": "top1", "selection": scores | {"step": 3}, "test": scores | {"openings": 1}, "published": None},
        **{"stamps": [], "dropped": 0, "source": "rendered", "steps": 3, "epochs": 1.0, "images_per_second": 9.0},
        **{"train_seconds": 1.0, "seconds": 2.0, "peak_memory_bytes": 2**20, "seed": 0},
    }
    files = {
        "recipe.yaml": recipe_files.to_yaml(loaded.recipe),
        "result.json": json.dumps(result, indent=1),
        "splits.json": json.dumps({"counts": {"test": 4}, "test": ["0", "1", "2", "3"], "labels_sha256": "00"}),
        "test_openings.json": json.dumps([{"time": "2026-11-23T10:00:00+00:00", "purpose": "fit", "images": 4}]),
        "predictions.csv": "id,class,predicted,confidence,class_probability,class_rank\n"
        + "".join(f"{row},rose,rose,0.9,0.9,1\n" for row in range(4)),
    }
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
