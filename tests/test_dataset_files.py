"""Sets that lie on a disk as parquet or Arrow files, and paths that lead nowhere."""

import dataclasses

import datasets
import pytest
from conftest import paint
from datasets import ClassLabel, Features, Image, List, Value
from hub_copies import PETS, error_of, features, jpeg, read, rows_of
from loopback import make_parquet
from original_layouts import make_pets

from workbench.card_files import load_card
from workbench.specs.card import Source


def test_parquet_files_of_ones_own_are_read_by_path(tmp_path):
    folder = tmp_path / "mine" / "data"
    folder.mkdir(parents=True)
    for name, data in PETS.items():
        (folder.parent / name).write_bytes(data)
    table, _, manifest = read(load_card("hub"), tmp_path, folder.parent)
    assert table.splits == ["train"] * 6 + ["test"] * 3 or sorted(table.splits) == ["test"] * 3 + ["train"] * 6
    assert {table.images[i] for i in range(9)} == {jpeg(s) for s in (*range(6), *range(50, 53))}
    assert manifest.source == f"files in {tmp_path}/mine"


def test_what_save_to_disk_wrote_is_read_by_path(tmp_path):
    rows = datasets.Dataset.from_list(rows_of(range(4)), features=features())
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "saved"))
    table = read(load_card("hub"), tmp_path, tmp_path / "saved")[0]
    assert sorted(table.splits) == ["test"] + ["train"] * 4
    assert table.images[3] == jpeg(3) or jpeg(3) in {table.images[i] for i in range(5)}


def test_parquet_files_in_a_known_sets_own_place_are_found_without_the_net(tmp_path):
    card = load_card("pets")
    data = make_parquet(
        rows_of(range(4), image_id=lambda s: f"x_{s}"), features(card.classes, image_id=Value("string"))
    )
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "train-00000-of-00001.parquet").write_bytes(data)
    table, _, manifest = read(card, tmp_path)
    assert table.ids == ["x_0", "x_1", "x_2", "x_3"]
    assert manifest.source == f"files in {folder}"


def test_the_creators_files_come_first(tmp_path):
    make_pets(tmp_path)
    assert read(load_card("pets"), tmp_path)[2].source == f"original files in {tmp_path}/oxford-iiit-pet"


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("folder", None, "add data.path=PATH"),
        ("csv", None, "a .csv file"),
        ("folder", "nowhere", "no such file or folder"),
        ("csv", "empty", "a folder without parquet or Arrow files"),
        ("hub", "empty", "set data.card=folder"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(tmp_path, name, path, says):
    (tmp_path / "empty").mkdir()
    assert says in error_of(load_card(name), tmp_path, path and tmp_path / path)


def write_parquet(folder, **files):
    """Write parquet files by name without ending; each is (seeds, class names, label of a seed)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (seeds, names, label) in files.items():
        data = make_parquet(rows_of(seeds, label=label), features(names))
        (folder / f"{name.replace('__', '-')}.parquet").write_bytes(data)
    return folder


def test_each_file_has_its_own_order_of_class_names(tmp_path):
    folder = write_parquet(
        tmp_path / "two",
        train__0=(range(2), ("cat", "dog"), lambda s: s),
        test__0=(range(2, 4), ("dog", "cat"), lambda s: s - 2),
    )
    table = read(load_card("hub"), tmp_path, folder)[0]
    named = dict(zip(table.ids, (table.classes[label] for label in table.labels), strict=True))
    assert named == {
        "train/0000000": "cat",
        "train/0000001": "dog",
        "test/0000000": "dog",
        "test/0000001": "cat",
    }


@pytest.mark.parametrize(("train", "test"), [("Train__0", "Test__0"), ("birds_train", "birds_test")])
def test_splits_are_found_anywhere_in_a_files_name(tmp_path, train, test):
    files = {train: (range(3), ("a", "b"), lambda s: s % 2), test: (range(3, 5), ("a", "b"), lambda s: s % 2)}
    table = read(load_card("hub"), tmp_path, write_parquet(tmp_path / "set", **files))[0]
    assert sorted(table.splits) == ["test"] * 2 + ["train"] * 3


def test_a_split_that_is_not_asked_for_is_said(tmp_path):
    kind = (("a", "b"), lambda s: s % 2)
    folder = write_parquet(tmp_path / "set", train__0=(range(3), *kind), validation__0=(range(3, 5), *kind))
    table = read(load_card("hub"), tmp_path, folder)[0]
    assert table.stamps == ("not used: the copy's split validation (see data.hub.splits)",)
    assert len(table.ids) == 3


def test_files_of_which_only_some_name_a_split_are_refused(tmp_path):
    kind = (("a", "b"), lambda s: s % 2)
    folder = write_parquet(tmp_path / "set", train__0=(range(3), *kind), more=(range(3, 5), *kind))
    assert "more.parquet names no split, others do" in error_of(load_card("hub"), tmp_path, folder)


def test_a_parquet_file_among_pictures_does_not_hide_them(tmp_path):
    for hue, name in enumerate(("a", "b")):
        for i in range(2):
            paint(tmp_path / "set" / name / f"{i}.png", hue, i)
    write_parquet(tmp_path / "set", index=(range(1), ("x",), lambda s: 0))
    assert read(load_card("folder"), tmp_path, tmp_path / "set")[0].classes == ("a", "b")


def test_ids_that_are_there_twice_are_refused_before_anything_is_prepared(tmp_path):
    rows = make_parquet(rows_of(range(4), name=lambda s: "same"), features(name=Value("string")))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train-0.parquet").write_bytes(rows)
    card = dataclasses.replace(load_card("hub"), sources=[Source("hub", id="x/y", id_column="name")])
    assert "same twice in the column name" in error_of(card, tmp_path, tmp_path / "set")


@pytest.mark.parametrize(
    ("labels", "kind", "says"),
    [
        ([0, 1, None], Value("int64"), "the label None"),
        ([0.5, 1.0, 2.0], Value("float64"), "the label 0.5"),
        ([{"a": 1}] * 3, {"a": Value("int64")}, "the label {'a': 1}"),
        ([["x"], None, ["y"]], List(Value("string")), "cells with lists"),
    ],
)
def test_labels_of_other_kinds_are_refused(tmp_path, labels, kind, says):
    table = Features({"image": Image(), "label": kind})
    data = make_parquet(rows_of(range(3), label=labels.__getitem__), table)
    (tmp_path / "train.parquet").write_bytes(data)
    told = error_of(load_card("hub"), tmp_path, tmp_path / "train.parquet")
    assert says in told or "the label None" in told


def test_large_numbers_and_names_with_blanks_are_labels_like_others(tmp_path):
    data = make_parquet(rows_of(range(3), label=[20231105001, 7, 7].__getitem__), features(None))
    (tmp_path / "train.parquet").write_bytes(data)
    assert read(load_card("hub"), tmp_path, tmp_path / "train.parquet")[0].classes == ("7", "20231105001")
    table = Features({"image": Image(), "label": Value("string")})
    data = make_parquet(rows_of(range(3), label=["cat", "cat ", "dog"].__getitem__), table)
    (tmp_path / "other.parquet").write_bytes(data)
    assert read(load_card("hub"), tmp_path, tmp_path / "other.parquet")[0].classes == ("cat", "dog")


def test_pictures_that_are_no_bytes_are_listed_as_bad(tmp_path):
    table = Features({"image": List(Value("int64")), "label": ClassLabel(names=["a", "b"])})
    rows = [{"image": [1, 2], "label": i % 2} for i in range(2)]
    (tmp_path / "train.parquet").write_bytes(make_parquet(rows, table))
    _, facts, manifest = read(load_card("hub"), tmp_path, tmp_path / "train.parquet")
    assert manifest.num_bad == 2
    assert all(facts["problem"])
