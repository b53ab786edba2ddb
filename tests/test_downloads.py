"""The ladder of sources, and torchvision's real downloaders against a file server on loopback."""

import hashlib
import io
import tarfile
import types

import pytest
import torchvision.datasets as originals
from hub_copies import error_of, features, leftovers, read, rows_of, unpinned
from loopback import Fault, FileServer, make_parquet
from original_layouts import make_aircraft, make_food101

from workbench.card_files import load_card
from workbench.data import downloads
from workbench.data.preparing import prepare
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 1.0)


def archive_of(folder, names=None, members=()):
    """Return a .tar.gz of a folder under its own name, with further members."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as tar:
        for name in names or [folder.name]:
            tar.add(folder.parent / name, name)
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


@pytest.fixture
def food(monkeypatch, tmp_path):
    """Food-101's archive on a file server, where torchvision looks for it; and no hub copy."""
    data = archive_of(make_food101(tmp_path / "made"))
    monkeypatch.setattr(originals.Food101, "_MD5", hashlib.md5(data).hexdigest())
    with FileServer({"food-101.tar.gz": data}) as server:
        monkeypatch.setattr(originals.Food101, "_URL", server.url + "/food-101.tar.gz")
        yield server


def food_card():
    card = load_card("food101")
    return DatasetCard(**{**vars(card), "gigabytes": 0.001, "sources": card.sources[:2]})


def test_torchvision_fetches_what_is_missing_and_only_the_prepared_set_stays(food, tmp_path):
    table, _, manifest = read(food_card(), tmp_path)
    assert manifest.source == "torchvision Food101"
    assert table.images[0] == (tmp_path / "made" / "food-101" / table.ids[0]).read_bytes()
    (kept,) = leftovers(tmp_path)
    assert kept.startswith("food101")
    assert not (tmp_path / "food-101").exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("food", "cut", times=2), "corrupted"),
        (Fault("food", "stall", times=2, seconds=2), "timed out"),
        (Fault("food", "wrong", times=2), "corrupted"),
        (Fault("food", "html", times=2), "the server sent a web page in place of food-101.tar.gz"),
        (Fault("food", "status", times=1, status=503), "503"),
    ],
    ids=lambda value: f"{value.kind}" if isinstance(value, Fault) else "",
)
def test_a_download_that_fails_once_is_tried_again_from_nothing(food, tmp_path, fault, reason, caplog):
    food.faults.append(fault)
    with caplog.at_level("INFO", "workbench"):
        table = read(food_card(), tmp_path)[0]
    assert table.images[0] == (tmp_path / "made" / "food-101" / table.ids[0]).read_bytes()
    assert any(reason in line and "trying again (2 of 3)" in line for line in caplog.messages)


def test_a_failure_of_every_source_tells_each_reason_and_leaves_nothing(food, serve, tmp_path):
    food.faults.append(Fault("food", "status", times=99, status=404))
    serve({})
    told = error_of(load_card("food101"), tmp_path)
    assert f"original files: {tmp_path}/food-101: images, meta/train.json" in told
    assert "torchvision Food101: HTTPError: HTTP Error 404" in told
    assert "hub ethz/food101: RepositoryNotFoundError" in told
    assert load_card("food101").what_to_put_where in told
    assert leftovers(tmp_path) == []


def test_a_dead_mirror_is_passed_over_for_the_hub(food, serve, tmp_path, caplog):
    food.faults.append(Fault("food", "wrong", times=99))
    card = unpinned("food101")
    rows = make_parquet(rows_of(range(2)), features(card.classes))
    serve({"ethz/food101": {"data/train-0.parquet": rows, "data/validation-0.parquet": rows}})
    with caplog.at_level("INFO", "workbench"):
        manifest = read(card, tmp_path)[2]
    assert manifest.source.startswith("hub ethz/food101")
    assert any("torchvision Food101: RuntimeError" in m and "trying the next source" in m for m in caplog.messages)


def test_nothing_is_fetched_when_that_is_forbidden(food, tmp_path):
    with pytest.raises(UserError, match="torchvision Food101: not tried, as data.download=false"):
        prepare(food_card(), tmp_path, download=False)
    assert food.log == []


def member(name, kind=tarfile.REGTYPE, target=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data, folder: data[: len(data) // 2], "EOFError"),
        (lambda data, folder: b"<!DOCTYPE html><p>moved</p>" * 50, "the server sent a web page in place of fgvc"),
        (lambda data, folder: archive_of(folder, members=[member("../../evil.txt")]), "OutsideDestinationError"),
        (
            lambda data, folder: archive_of(
                folder, members=[member("fgvc-aircraft-2013b/up", tarfile.SYMTYPE, "/etc")]
            ),
            "link",
        ),
        (lambda data, folder: archive_of(folder / "data"), "Dataset not found"),
    ],
    ids=["truncated", "html", "walks out", "links out", "another set"],
)
def test_an_archive_without_a_checksum_is_looked_at_before_it_is_believed(tmp_path, monkeypatch, spoil, says):
    folder = make_aircraft(tmp_path / "made")
    data = spoil(archive_of(folder), folder)
    card = load_card("aircraft")
    card = DatasetCard(**{**vars(card), "gigabytes": 0.001, "sources": card.sources[:2]})
    with FileServer({"fgvc-aircraft-2013b.tar.gz": data}) as server:
        monkeypatch.setattr(originals.FGVCAircraft, "_URL", server.url + "/fgvc-aircraft-2013b.tar.gz")
        told = error_of(card, tmp_path)
    assert says in told
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_download_that_will_not_fit_is_not_begun(food, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e9))
    told = error_of(
        DatasetCard(**{**vars(food_card()), "gigabytes": 5.0, "sources": food_card().sources[1:]}), tmp_path
    )
    assert "15.0 GB, a download of 5 GB, unpacked and prepared" in told
    assert food.log == []
