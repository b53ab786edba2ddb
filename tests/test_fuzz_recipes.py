"""Recipes, cards, sweep files and lists at random: right ones come back the same, wrong ones get the clear error."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from workbench import recipe_files, shipped
from workbench.cli import app
from workbench.overrides import recipe_keys
from workbench.recipe_files import load, to_dict, to_yaml
from workbench.specs.errors import UserError
from workbench.specs.filling import parts_of
from workbench.specs.recipe import Recipe

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzzed
import mutations

# The same cases each time: a suite that fails by chance is run again until it passes. benchmarks/fuzz.py goes further.
FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
BASE = "data: {card: flowers}\ntrain: {total_epochs: 40}\n"
FIELDS = {
    f"{section.name}.{field.name}": field
    for section in dataclasses.fields(Recipe)
    for field in dataclasses.fields(section.default_factory)
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def numbers(kind, span):
    low, high = span or (-1000, 1000)
    if kind is int:
        return st.integers(low, min(high, 10**6))
    return st.floats(low, high, allow_nan=False)


def right_value(key):
    """Return a strategy of values that this key takes, by its own declaration."""
    field, kinds = FIELDS[key], parts_of(recipe_keys()[key])
    metadata = field.metadata
    options = []
    if metadata["choices"]:
        options.append(st.sampled_from(metadata["choices"]))
    elif str in kinds:
        options.append(TEXT.filter(lambda text: "${" not in text))
    options += [numbers(kind, metadata["span"]) for kind in (int, float) if kind in kinds]
    options += [st.booleans()] if bool in kinds else []
    options += [st.none()] if type(None) in kinds else []
    options += [st.lists(TEXT, max_size=3)] if key == "track.tags" else []
    return st.one_of(options) if options else st.just(None)


KEYS = [key for key in FIELDS if right_value(key).validate() is None and not key.startswith("about.expect")]
CHANGES = st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: right_value(key) for key in keys})
)


def nested(values):
    made = {}
    for key, value in values.items():
        section, name = key.split(".")
        made.setdefault(section, {})[name] = value
    return made


@FEW
@given(CHANGES)
def test_a_recipe_at_random_comes_back_the_same_or_is_refused_in_words(changes):
    with tempfile.TemporaryDirectory() as folder:
        base, mine = Path(folder, "base.yaml"), Path(folder, "mine.yaml")
        base.write_text(BASE)
        mine.write_text(yaml.safe_dump({"extends": "base", **nested(changes)}), encoding="utf-8")
        try:
            loaded = load(str(mine))
        except UserError as error:
            event("refused")
            told = [problem for problem in error.problems if problem.where and problem.remedy]
            assume(len(told) < len(error.problems))  # refused in words: try another
        recipe_files.explain(loaded)
        again = Path(folder, "again.yaml")
        again.write_text(to_yaml(loaded.recipe), encoding="utf-8")
        assert to_dict(load(str(again)).recipe) == to_dict(loaded.recipe)


def test_most_of_those_recipes_are_right_ones():
    """Else the test above would show nothing."""
    random, right = Random(0), 0
    for _ in range(40):
        key = random.choice([key for key in KEYS if FIELDS[key].metadata["choices"]])
        try:
            right += bool(load("flowers_b0", [f"{key}={random.choice(FIELDS[key].metadata['choices'])}"]))
        except UserError:
            pass
    assert right > 25


ODD = [
    *mutations.NUMBERS,
    *(word for word in mutations.WORDS if len(word) < 1000),
    [],
    {},
    [[]],
    [None],
    {"a": {"b": []}},
]


@pytest.mark.parametrize("part", range(6))
def test_every_key_with_every_odd_value_gives_the_clear_error(tmp_path, part):
    for value in ODD[part::6]:
        path = tmp_path / "mine.yaml"
        values = nested(dict.fromkeys(FIELDS, value))
        path.write_bytes(json.dumps(values).encode())
        told = fuzzed.outcome(lambda path=path: fuzzed.explained(str(path), []))
        assert told == "refused", (value, told)
        if isinstance(value, str):
            continue
        for section in values:  # what is wrong in one section must not hide what another one does
            path.write_bytes(json.dumps({"extends": "flowers_b0", section: values[section]}).encode())
            told = fuzzed.outcome(lambda path=path: fuzzed.explained(str(path), []))
            assert told in ("refused", "read"), (section, value, told)


@pytest.mark.parametrize("kind", ["recipe", "card", "sweep", "csv", "run"])
def test_a_damaged_file_is_read_or_refused_and_never_a_traceback(kind):
    seen = set()

    @settings(FEW, max_examples=15 if kind == "sweep" else 60)  # a grid is checked in all its combinations
    @given(st.integers(0, 10**9))
    def check(number):
        with tempfile.TemporaryDirectory() as folder:
            _, told = fuzzed.attempt(kind, number, Path(folder))
            assert told in ("read", "refused"), (kind, number, told)
            seen.add(told)

    check()
    assert "read" in seen
    assert "refused" in seen or kind == "run"  # a report leaves a damaged run out, with the reason


BROKEN = {
    "a number no float holds": f"optim: {{lr: {10**400}}}",
    "a hexadecimal number too long to print": f"data: {{batch_size: 0x{'f' * 6000}}}",
    "brackets without end": "a: " + "[" * 5000,
    "mappings without end": "{a: " * 5000,
    "indents without end": "\n".join(" " * i + "a:" for i in range(1500)),
    "a key that is a list": "? [a, b]\n: c",
    "a key that is a number": "1: 2",
    "a control character": "a: \x07",
    "a sentence": "train me a network",
    "only a list": "- a\n- b",
    "a text that is YAML again": "'!!set {a}'",
    "a date": "2026-11-23",
    "two documents": "a: 1\n---\nb: 2",
    "an alias of itself": "data: &a {card: *a}",
    "a bomb of aliases": "a: &a [x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(24)),
    "a tag that runs": "a: !!python/object/apply:os.system ['touch ran']",
    "not UTF-8": b"a: \xff\xfe",
    "UTF-16": "data: {card: flowers}".encode("utf-16"),
    "an empty file": b"",
    "a null byte": b"a: \0",
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("verb", ["validate", "fit --plan --recipe", "sweep --plan"])
def test_the_command_line_refuses_a_broken_file_with_2_and_no_traceback(what, verb, tmp_path, monkeypatch, capsys):
    content = BROKEN[what]
    path = tmp_path / "broken.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, "argv", ["workbench", *verb.split(), str(path)])
    with pytest.raises(SystemExit) as left:
        app.main()
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert "broken.yaml" in said
    assert "do this:" in said
    assert not (tmp_path / "ran").exists()


def test_a_name_that_no_terminal_can_print_is_no_reason_to_stop(tmp_path, monkeypatch, capsys):
    path = tmp_path / "\udcff.yaml"  # a byte that is no UTF-8, as Python hands it over
    path.write_text("about: {name: odd}\n" + BASE)
    monkeypatch.setattr(sys, "argv", ["workbench", "validate", str(path)])
    app.main()
    assert ": fine" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["fit", "--recipe"], ["fit", "--resume"], ["sweep"], ["compare", "x"], ["report"]])
def test_a_name_that_no_disk_takes_is_the_users_mistake(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["workbench", *words, "x" * 300])
    with pytest.raises(SystemExit) as left:
        app.main()
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert "do this:" in said


def test_shipped_recipes_are_still_what_the_cases_are_made_of():
    assert (shipped.RECIPES / "flowers_b0.yaml").is_file()
    assert len(KEYS) > 80
