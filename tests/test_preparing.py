"""Preparing: whole or not at all, resumable after any kill, and quick when there is nothing to do."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import paint

from workbench.card_files import load_card
from workbench.data import found, prepared, preparing
from workbench.data.layouts.reading import read_layout
from workbench.data.preparing import prepare
from workbench.specs.card import DatasetCard, SplitSizes
from workbench.specs.errors import UserError

CARD = DatasetCard(name="colours", layout="image_folder", folder="colours", sizes=SplitSizes(train=60, test=24))
NAME = prepared.place_name(CARD, None)


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 30), ("test", 12)):
        for hue, name in enumerate(("red", "blue")):
            for i in range(count):
                paint(tmp_path / "colours" / split / name / f"{i:02d}.png", hue, 100 * hue + i, (200, 180))
    return tmp_path


def content(folder):
    table, _ = prepared.read_table(folder)
    return [*zip(table.ids, table.splits, table.labels.tolist(), prepared.read_facts(folder)["sha256"], strict=True)]


def leftovers(root):
    return sorted(p.name for p in (root / "prepared").iterdir() if not p.name.endswith(".lock"))


def test_pictures_go_in_byte_for_byte_with_what_was_seen_of_them(root):
    folder = prepare(CARD, root)
    (table, problems), facts = prepared.read_table(folder), prepared.read_facts(folder)
    assert folder == root / "prepared" / NAME
    assert len(table.ids) == 84
    for position in (0, 50, 83):
        original = root / "colours" / table.ids[position]
        assert table.images[position] == original.read_bytes()
        assert (facts["width"][position], facts["height"][position]) == (200, 180)
    assert set(problems) == {""}
    assert table.classes == ("blue", "red")


def test_the_datasets_library_reads_a_prepared_set(root):
    loaded = datasets.load_from_disk(str(prepare(CARD, root)))
    assert loaded.num_rows == 84
    assert loaded.features["label"].names == ["blue", "red"]
    row = loaded[7]
    assert row["image"]["bytes"] == (root / "colours" / row["id"]).read_bytes()
    assert loaded.features["label"].int2str(row["label"]) == row["id"].split("/")[1]


def test_a_second_time_nothing_is_looked_at(root, monkeypatch):
    folder = prepare(CARD, root)
    shutil.rmtree(root / "colours")
    monkeypatch.setattr(preparing.sources, "find", None)
    assert prepare(CARD, root) == folder


def test_the_command_takes_under_two_seconds_when_there_is_nothing_to_do(tmp_path):
    from original_layouts import make_pets

    make_pets(tmp_path)
    counts = Counter(read_layout(load_card("pets"), tmp_path / "oxford-iiit-pet").splits)
    card = tmp_path / "small_pets.yaml"
    sizes = f"sizes: {{train: {counts['train']}, test: {counts['test']}}}"
    card.write_text(f"layout: oxford_pets\nfolder: oxford-iiit-pet\n{sizes}\n")
    command = [sys.executable, "-m", "workbench", "data", "prepare", str(card), f"data.root={tmp_path}"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    began = time.perf_counter()
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 2
    assert first.stdout == second.stdout
    assert "from original files" in first.stderr
    assert "preparing small_pets: " in first.stderr
    assert "preparing" not in second.stderr
    assert f"{counts['train']} train, {counts['test']} test images" in second.stderr


def test_two_own_cards_of_one_name_do_not_share_a_set(root):
    other = DatasetCard(**{**vars(CARD), "folder": "others"})
    shutil.copytree(root / "colours", root / "others")
    assert prepare(CARD, root) != prepare(other, root)


def test_pictures_that_moved_between_classes_are_noticed(root):
    before = content(prepare(CARD, root))
    red, blue = (root / "colours" / "train" / name for name in ("red", "blue"))
    (red / "03.png").rename(blue / "x.png")
    (blue / "04.png").rename(red / "y.png")
    assert len(set(before) ^ set(content(prepare(CARD, root)))) == 4


def test_a_set_whose_originals_are_gone_is_used_as_it_is(root):
    card = DatasetCard(name="colours", layout="image_folder", folder="colours")
    folder = prepare(card, root)
    shutil.rmtree(root / "colours")
    assert prepare(card, root) == folder


def test_a_current_set_needs_no_permission_to_write(root, monkeypatch):
    folder = prepare(CARD, root)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preparing, "alone", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert prepare(CARD, root) == folder


def test_a_failure_leaves_another_sets_lock_alone(tmp_path):
    (tmp_path / "prepared").mkdir()
    lock = tmp_path / "prepared" / ".good.lock"
    lock.touch()
    with pytest.raises(UserError):
        prepare(load_card("pets"), tmp_path / "nowhere", prepared_root=tmp_path / "prepared", download=False)
    assert lock.exists()


def test_a_set_that_is_replaced_while_it_is_read_is_noticed(root):
    table, _ = prepared.read_table(prepare(CARD, root))
    paint(root / "colours" / "train" / "red" / "00.png", 2, 4321)
    prepare(CARD, root)
    with pytest.raises(UserError, match="another prepared set than at the beginning"):
        table.images[0]


def test_a_link_to_another_folder_leads_to_that_folders_pictures(root, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(root / "colours")
    table, _ = prepared.read_table(prepare(load_card("folder"), tmp_path, link))
    assert table.images[0].is_relative_to(root / "colours")


@pytest.mark.parametrize("change", ["picture", "label", "removed"])
def test_a_changed_set_of_unknown_size_is_prepared_anew(root, change):
    card = DatasetCard(name="colours", layout="image_folder", folder="colours")
    before = content(prepare(card, root))
    victim = root / "colours" / "train" / "red" / "03.png"
    if change == "picture":
        paint(victim, 2, 7777)
    elif change == "label":
        victim.rename(root / "colours" / "train" / "blue" / "99.png")
    else:
        victim.unlink()
    after = content(prepare(card, root))
    assert len(set(before) ^ set(after)) == {"picture": 2, "label": 2, "removed": 1}[change]
    assert len(leftovers(root)) == 1


def test_a_changed_card_is_prepared_anew(root):
    prepare(CARD, root)
    assert prepared.read_table(prepare(DatasetCard(**{**vars(CARD), "classes": ["red", "blue"]}), root))[0].classes == (
        "red",
        "blue",
    )


def test_files_of_a_path_stay_where_they_are(root):
    path = root / "colours"
    folder = prepare(load_card("folder"), root / "elsewhere", path)
    table, _ = prepared.read_table(folder)
    assert table.images[0] == (path / table.ids[0]).absolute()
    assert sum(f.stat().st_size for f in folder.iterdir()) < 0.2 * sum(f.stat().st_size for f in path.rglob("*.png"))


def test_a_picture_that_does_not_decode_is_kept_with_its_problem(root):
    victim = root / "colours" / "test" / "red" / "05.png"
    victim.write_bytes(victim.read_bytes()[:100])
    folder = prepare(CARD, root)
    table, problems = prepared.read_table(folder)
    bad = [name for name, problem in zip(table.ids, problems, strict=True) if problem]
    assert bad == ["test/red/05.png"]
    assert prepared.read_manifest(folder).num_bad == 1


def killed_after(seconds, work):
    """Run `work` in a process of its own and kill it -9; return whether it had ended by itself."""
    child = os.fork()
    if child == 0:
        logging.disable()
        work()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_as_if_undisturbed(kills, root, tmp_path, monkeypatch):
    monkeypatch.setattr(found, "UNIT_ROWS", 3)
    began = time.perf_counter()
    undisturbed = content(prepare(CARD, root, prepared_root=tmp_path / "undisturbed"))
    seconds = time.perf_counter() - began
    chance = random.Random(0)
    whole = resumed = 0
    for number in range(kills):
        base = tmp_path / f"killed{number}"
        ended = killed_after(chance.uniform(0, seconds), lambda base=base: prepare(CARD, root, prepared_root=base))
        work = base / f".{NAME}.work"
        done = sorted(work.glob("part-*.arrow")) if work.is_dir() else []
        resumed += bool(done)
        whole += ended
        assert ended or not (base / NAME).exists() or prepared.read_manifest(base / NAME)
        stamps = {part: part.stat().st_mtime_ns for part in done}
        folder = prepare(CARD, root, prepared_root=base)
        assert content(folder) == undisturbed
        assert all((folder / part.name).stat().st_mtime_ns == stamp for part, stamp in stamps.items())
        assert sorted(p.name for p in base.iterdir()) == [f".{NAME}.lock", NAME]
        assert not list(folder.glob("*plan*"))
    assert resumed > kills / 4, "the kills came too late or too early to show anything"
    assert whole < kills / 2


def test_a_kill_before_tidying_leaves_a_whole_set_that_is_tidied_next_time(root, monkeypatch):
    monkeypatch.setattr(preparing, "_tidy", lambda place: None)
    folder = prepare(CARD, root)
    (folder / "fetched").mkdir()
    monkeypatch.undo()
    assert prepare(CARD, root) == folder
    assert not (folder / "fetched").exists()
    assert not (folder / "plan.json").exists()


def test_two_at_once_make_one_set(root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(found, "UNIT_ROWS", 3)
    write, log = preparing.arrow_files.write_part, tmp_path / "writers.txt"

    def noted(*args):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        write(*args)

    monkeypatch.setattr(preparing.arrow_files, "write_part", noted)
    child = os.fork()
    if child == 0:
        prepare(CARD, root)
        os._exit(0)
    while not log.is_file():
        time.sleep(0.01)
    with caplog.at_level(logging.INFO, "workbench"):
        folder = prepare(CARD, root)
    assert os.waitpid(child, 0)[1] == 0
    assert caplog.messages == ["another process is preparing colours; waiting for it"]
    assert set(log.read_text().split()) == {str(child)}
    assert len(content(folder)) == 84
    assert leftovers(root) == [NAME]


def test_too_little_space_is_said_before_anything_is_written(root, monkeypatch):
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 10**6))
    with pytest.raises(UserError) as error:
        prepare(CARD, root)
    assert "0.0 GB free" in str(error.value)
    assert "0.2 GB for 84 images" in str(error.value)
    assert "data.prepared_root=DIR" in str(error.value)
    assert not list((root / "prepared").rglob("*.arrow"))


def test_a_disk_that_fills_leaves_nothing_that_looks_whole(root, monkeypatch):
    monkeypatch.setattr(found, "UNIT_ROWS", 20)
    write = preparing.arrow_files.write_part
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(*args)

    monkeypatch.setattr(preparing.arrow_files, "write_part", full)
    with pytest.raises(UserError, match=r"No space left.*\n.*\n.*free some space, or write elsewhere"):
        prepare(CARD, root)
    assert not (root / "prepared" / NAME).exists()
    assert len(content(prepare(CARD, root))) == 84
    assert len(calls) == 3 + 3  # two units were kept


def test_an_unreadable_picture_is_listed_like_a_broken_one(root, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path.name == "07.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    table, problems = prepared.read_table(prepare(CARD, root))
    bad = {name: problem for name, problem in zip(table.ids, problems, strict=True) if problem}
    assert set(bad) == {f"{split}/{name}/07.png" for split in ("train", "test") for name in ("red", "blue")}
    assert "Permission denied" in bad["train/red/07.png"]


def test_a_damaged_prepared_set_says_what_to_remove(root):
    folder = prepare(CARD, root)
    part = folder / "part-00000.arrow"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=f"remove .*prepared/{NAME}: it is prepared again"):
        prepared.read_table(folder)


def test_a_set_whose_part_is_gone_is_prepared_again(root):
    folder = prepare(CARD, root)
    (folder / "part-00000.arrow").unlink()
    assert len(content(prepare(CARD, root))) == 84


def test_pixels_in_memory_come_back_as_they_were():
    from workbench.data.images import decode
    from workbench.data.splits import ImageTable

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    table = ImageTable([f"b/{i}" for i in range(5)], pixels, np.arange(5), ["train"] * 5, tuple("abcde"))
    rows = [row for unit in found.found_in_table(table, "memory").units for row in unit.rows()]
    assert all(np.array_equal(decode(row.image, row.id).permute(1, 2, 0).numpy(), pixels[row.label]) for row in rows)


def test_an_id_that_is_there_twice_is_named():
    from workbench.data.splits import ImageTable

    table = ImageTable(["x", "x"], np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ["train"] * 2, ("a", "b"))
    with pytest.raises(UserError, match="x twice"):
        found.found_in_table(table, "memory")


def test_what_is_found_nowhere_leaves_no_folder_behind(tmp_path):
    for download in (False, True):
        with pytest.raises(UserError, match="found nowhere"):
            prepare(CARD, tmp_path / "no" / "such", download=download)
    assert not (tmp_path / "no").exists()


def test_a_listed_file_that_cannot_be_reached_is_named(tmp_path):
    from workbench.data.splits import ImageTable

    gone = tmp_path / "gone.png"
    table = ImageTable(["gone.png"], [gone], np.arange(1), ["train"], ("a", "b"))
    with pytest.raises(UserError, match=r"gone\.png\n.*No such file"):
        found.found_in_table(table, "a list")
