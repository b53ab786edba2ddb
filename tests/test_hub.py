"""Sets on a hub: the real clients (`datasets`, `huggingface_hub`) against a hub on loopback."""

import hashlib

import pytest
from datasets import ClassLabel, Features, Image, List, Value
from hub_copies import PETS, error_of, features, hub_card, jpeg, leftovers, read, rows_of, unpinned
from loopback import Fault, make_parquet, make_readme

from workbench import ImageDataModule
from workbench.card_files import load_card
from workbench.data import prepared
from workbench.data.preparing import prepare
from workbench.specs.card import Source, SplitNames


def test_a_hub_copy_is_read_at_one_commit_with_its_original_bytes(serve, tmp_path):
    server = serve({"me/pets": PETS})
    table, facts, manifest = read(hub_card(), tmp_path)
    assert table.ids[:2] == ["train/0000000", "train/0000001"]
    assert [table.images[i] for i in (0, 5, 6)] == [jpeg(0), jpeg(5), jpeg(50)]
    assert table.splits == ["train"] * 6 + ["test"] * 3
    assert table.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert table.classes == ("cat", "dog")
    assert manifest.source == f"hub me/pets at {server.commit('me/pets')[:12]}"
    assert facts["sha256"][0] == hashlib.sha256(jpeg(0)).hexdigest()
    assert all(name == ".catsdogs" or name.startswith("catsdogs-") for name in leftovers(tmp_path))
    asked = len(server.log)
    assert len(read(hub_card(), tmp_path)[0].ids) == 9
    assert len(server.log) == asked, "a prepared copy needs no net"


def test_only_the_asked_splits_are_fetched(serve, tmp_path):
    more = {**PETS, "data/corrupted-0.parquet": b"nine gigabytes of noise"}
    splits = {"train": ("data/train-*", 6), "test": ("data/test-*", 3), "corrupted": ("data/corrupted-*", 9)}
    server = serve({"me/pets": {**more, "README.md": make_readme({"default": splits}, features())}})
    assert len(read(hub_card(), tmp_path)[0].ids) == 9
    assert not [path for _, path, _ in server.log if path.endswith("corrupted-0.parquet")]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("train-1", "cut", times=1), None),
        (Fault("train-1", "stall", times=1, seconds=2), None),
        (Fault("train-1", "wrong"), "train-1.parquet came with other bytes than the hub's hash says"),
        (Fault("train-1", "status", method="GET", status=500), "500"),
        (Fault("train-1", "html", method="GET"), "Consistency check failed"),
        (Fault("/api/datasets/me/pets", "status", status=503), "503"),
    ],
    ids=lambda value: f"{value.kind}" if isinstance(value, Fault) else "",
)
def test_a_hub_that_fails_once_is_asked_again(serve, tmp_path, fault, reason, caplog):
    server = serve({"me/pets": PETS})
    server.faults.append(fault)
    with caplog.at_level("INFO", "workbench"):
        table = read(hub_card(), tmp_path)[0]
    assert fault.times == 0
    assert [table.images[i] for i in range(9)] == [jpeg(s) for s in (*range(6), *range(50, 53))]
    told = " ".join(caplog.messages)
    assert reason is None or (reason in told and "trying again (2 of 3)" in told)


def test_wrong_bytes_for_good_are_refused_and_what_was_right_is_kept(serve, tmp_path):
    server = serve({"me/pets": PETS})
    server.faults.append(Fault("train-1", "wrong", times=99))
    assert "train-1.parquet came with other bytes than the hub's hash says" in error_of(hub_card(), tmp_path)
    (work,) = leftovers(tmp_path)
    assert work.startswith(".catsdogs-")
    assert work.endswith(".work")
    kept = {p.name for p in (tmp_path / "prepared" / work).rglob("*.parquet")}
    assert kept == {"train-0.parquet"}
    server.faults.clear()
    server.log.clear()
    assert len(read(hub_card(), tmp_path)[0].ids) == 9
    assert not [path for method, path, _ in server.log if method == "GET" and "train-0" in path]


def test_classes_are_matched_by_name_not_by_number(serve, tmp_path):
    card = load_card("food101")
    swapped = list(card.classes)
    a, b = swapped.index("cheese_plate"), swapped.index("cheesecake")
    swapped[a], swapped[b] = swapped[b], swapped[a]
    files = {
        f"data/{split}-0.parquet": make_parquet(rows_of(range(2), label=(a, b).__getitem__), features(swapped))
        for split in ("train", "validation")
    }
    serve({"ethz/food101": files})
    data = ImageDataModule(tmp_path, card=unpinned("food101"), allow_partial=True)
    names = [data.classes[label] for label in data.table.labels]
    assert names[:2] == ["cheesecake", "cheese_plate"]
    assert data.classes[a] == "cheese_plate"
    assert "partial: 2 of 75750 train images" in data.table.stamps
    assert set(data.table.splits) == {"train", "test"}
    assert data.source.startswith("hub ethz/food101 at ")


def birds(tested, lost=0):
    """A copy like sasha/birdsnap: names as labels, one split; `lost` pictures are not the original bytes any more."""
    names = ("Coopers_Hawk", "Snail_Kite")
    rows = rows_of(range(12), label=lambda s: names[s % 2])
    for row in rows[:lost]:
        row["image"]["bytes"] += b"\0"
    lines = [f"http://x\t{hashlib.md5(jpeg(s)).hexdigest()}\t{names[s % 2]}/{s:04d}.jpg\t{s % 2}" for s in range(12)]
    table = Features({"image": Image(), "label": Value("string")})
    return {
        "data/train-0.parquet": make_parquet(rows, table),
        "README.md": make_readme({"default": {"train": ("data/train-*", 12)}}, table),
        "images.txt": "\n".join(["url\tmd5\tpath\tspecies_id", *lines]).encode(),
        "test_images.txt": "\n".join(["path", *(f"{names[s % 2]}/{s:04d}.jpg" for s in tested)]).encode(),
    }


def test_birdsnaps_official_test_is_recovered_by_md5(serve, tmp_path):
    serve({"sasha/birdsnap": birds(tested=(0, 1, 6, 7), lost=2)})
    data = ImageDataModule(tmp_path, card="birdsnap", allow_partial=True)
    official = [name for name, split in zip(data.table.ids, data.table.splits, strict=True) if split == "test"]
    assert official == ["Coopers_Hawk/0006.jpg", "Snail_Kite/0007.jpg"]
    assert data.table.ids[:2] == ["train/0000000", "train/0000001"]
    assert data.classes[data.table.labels[2]] == "Cooper's Hawk"
    assert "2 of 4 official test images recovered by md5" in data.table.stamps


def test_birdsnaps_test_is_held_out_where_too_little_is_left(serve, tmp_path):
    serve({"sasha/birdsnap": birds(tested=(0, 1, 6), lost=2)})
    data = ImageDataModule(tmp_path, card="birdsnap", allow_partial=True)
    told = "1 of 3 official test images recovered by md5, too few: test is held out of train instead"
    assert told in data.table.stamps
    assert len(data.rows("test")) == 2  # one of each species
    assert "test held out of train by hash: 2 images" in data.table.stamps


def test_several_labels_make_a_multi_label_set(serve, tmp_path):
    table = Features({"image": Image(), "label": List(ClassLabel(names=["sun", "sea", "sand"]))})
    rows = rows_of(range(4), label=lambda s: [[0], [0, 2], [], [1]][s])
    serve({"me/beach": {"data/train-0.parquet": make_parquet(rows, table)}})
    found = read(hub_card("me/beach"), tmp_path)[0]
    assert found.is_multi_label
    assert found.labels.tolist() == [[True, False, False], [True, False, True], [False] * 3, [False, True, False]]


def test_a_birdsnap_copy_without_lists_takes_the_creators_or_says_so(serve, tmp_path):
    files = birds(tested=(0, 1, 6, 7))
    lists = {name: files.pop(name) for name in ("images.txt", "test_images.txt")}
    serve({"sasha/birdsnap": files})
    data = ImageDataModule(tmp_path, card="birdsnap", allow_partial=True)
    assert any("neither the copy nor" in s and "has images.txt and test_images.txt" in s for s in data.table.stamps)
    (tmp_path / "birdsnap").mkdir()
    for name, content in lists.items():
        (tmp_path / "birdsnap" / name).write_bytes(content)
    table = prepared.read_table(prepare(load_card("birdsnap"), tmp_path, again=True))[0]
    assert "4 of 4 official test images recovered by md5" in table.stamps


@pytest.mark.parametrize(
    ("files", "source", "says"),
    [
        ({"a/train-0.parquet": "x"}, {"label": "breed"}, "no column breed"),
        ({"a/train-0.parquet": "x"}, {"image": "img"}, "no column img"),
        ({"a/train-0.parquet": "x"}, {"splits": SplitNames(train="training")}, "no split training"),
        ({"a/train-0.parquet": "x"}, {"splits": SplitNames(test="testing")}, "no split testing"),
        ({"a/train-0.parquet": "numbers"}, {}, "labels that are numbers without names"),
        ({"a/train-0.parquet": "unlabelled"}, {}, "the label -1"),
        ({"a/train-0.parquet": "others"}, {}, "2 class names that are not the card's: wolf, fox"),
        ({"a/train-0.parquet": b"PAR1 no parquet"}, {}, "files that do not read"),
        ({"pets.py": b"pass"}, {}, "Dataset scripts are no longer supported"),
        ({"README.md": b"nothing"}, {}, "EmptyDatasetError"),
        ({"a/train-0.parquet": "x"}, {"revision": "a" * 40}, "RevisionNotFoundError"),
        ({"a/train-0.parquet": "x"}, {"id": "me/gone"}, "RepositoryNotFoundError"),
        ({"a/train-0.parquet": "x"}, {"config": "large"}, "large"),
    ],
)
def test_a_copy_that_is_not_as_stated_is_refused_with_what_there_is(serve, tmp_path, files, source, says):
    contents = {
        "x": make_parquet(rows_of(range(2)), features()),
        "numbers": make_parquet(rows_of(range(2)), features(None)),
        "unlabelled": make_parquet(rows_of(range(2), label=lambda s: -1), features()),
        "others": make_parquet(rows_of(range(2)), features(("wolf", "fox"))),
    }
    serve({"me/pets": {name: contents.get(data, data) for name, data in files.items()}})
    card = hub_card(sources=[Source("hub", **{"id": "me/pets", **source})], classes=["cat", "dog"])
    told = error_of(card, tmp_path)
    assert says in told
    assert "do this:" in told


def test_an_image_folder_on_the_hub_is_read_too(serve, tmp_path):
    files = {f"{split}/{kind}/{i}.jpg": jpeg(i) for split in ("train", "test") for i, kind in enumerate(("cat", "dog"))}
    serve({"me/folder": files})
    table = read(hub_card("me/folder"), tmp_path)[0]
    assert sorted(zip(table.splits, table.labels.tolist(), strict=True)) == [
        ("test", 0),
        ("test", 1),
        ("train", 0),
        ("train", 1),
    ]
    assert {table.images[i] for i in range(4)} == {jpeg(0), jpeg(1)}
