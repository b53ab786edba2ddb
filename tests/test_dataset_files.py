"""Sets that lie on a disk as parquet or Arrow files, and paths that lead nowhere."""

import datasets
import pytest
from datasets import Value
from hub_copies import PETS, error_of, features, jpeg, read, rows_of
from loopback import make_parquet
from original_layouts import make_pets

from workbench.card_files import load_card


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
