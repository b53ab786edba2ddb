"""Files from anyone: nothing in them runs, leads outside, or fills memory or disk."""

import io
import json
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch
from conftest import paint

from workbench import EfficientNetClassifier, card_files, fit, load_model, load_recipe, shipped
from workbench.data import downloads, hub, pieces
from workbench.data.images import load_image
from workbench.models.tensor_files import read_tensors
from workbench.specs.errors import UserError
from workbench.training import run_folder


class Hostile:
    """A pickle of it makes a file when it is loaded by a reader that runs code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def refused(call, *given):
    with pytest.raises(UserError) as error:
        call(*given)
    return str(error.value)


@pytest.mark.parametrize("reader", ["weights", "zip", "checkpoint", "resume", "cifar"])
def test_a_planted_pickle_makes_no_file(tmp_path, tiny_recipe, reader):
    planted, path = tmp_path / "planted", tmp_path / "file.pth"
    path.write_bytes(pickle.dumps(Hostile(planted)))
    if reader == "weights":
        assert str(path) in refused(EfficientNetClassifier, "tiny", 3, str(path))
    elif reader == "zip":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Hostile(planted)}, path)
        assert "could run code" in refused(read_tensors, path)
    elif reader == "checkpoint":
        with pytest.raises(pickle.UnpicklingError):
            EfficientNetClassifier.load_from_checkpoint(path)
    elif reader == "resume":
        folder = run_folder.create(str(tmp_path / "runs"), "tiny")
        (folder / "recipe.yaml").write_text(tiny_recipe.read_text())
        torch.save({"global_step": 1, "state_dict": {}, "more": Hostile(planted)}, folder / "checkpoints" / "last.ckpt")
        assert "last.ckpt" in refused(fit, load_recipe(str(tiny_recipe)).recipe, folder)
    else:
        from workbench.data.layouts import cifar_files

        assert "not allowed" in refused(cifar_files._load, path, "data")
    assert not planted.exists()
    with open(tmp_path / "plain", "wb") as file:
        file.write(pickle.dumps(Hostile(planted)))
    pickle.loads((tmp_path / "plain").read_bytes()).close()  # the attack is real
    assert planted.exists()


def test_a_checkpoint_that_is_larger_inside_than_outside_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert len(read_tensors(tmp_path / "a.pth")) == 1
    assert "could fill the memory" in refused(read_tensors, tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_classes": 10**9}, "num_classes is 1000000000"),
        ({"num_classes": True}, "num_classes is True"),
        ({"classes": ["a", "a\x1b[2Jb", "c"]}, "with a control character"),
        ({"classes": ["a", "b", 3]}, "no text"),
        ({"classes": ["a", "b", "c" * 10**6]}, "1000000 letters"),
        ({"classes": "abc"}, "no list"),
        ({"head": "os.system"}, "head is 'os.system'"),
        ({"task": ["single_label"]}, "task is"),
        ({"arch": {"name": "x", "width": 1e9, "depth": 1, "resolution": 64, "dropout": 0}}, "arch is"),
        ({"arch": []}, "arch is"),
        ({"bn_eps": "1"}, "bn_eps is '1'"),
        ({"drop_path": float("nan")}, "drop_path is nan"),
        ({"preprocessing": {"resize": 10**9, "crop": 32, "mean": [0] * 3, "std": [1] * 3}}, "preprocessing is"),
        ({"preprocessing": {"resize": 32, "crop": 32, "mean": [0] * 3, "std": [0] * 3}}, "preprocessing is"),
        ({"provenance": []}, "provenance is"),
        ({"sha256": "../x"}, "sha256 is"),
        (
            {"arch": {"name": "w9", "width": 9.0, "depth": 9.0, "resolution": 64, "dropout": 0.1}},
            "do not fit model.json",
        ),
    ],
)
def test_a_description_is_data_of_the_right_kind(tmp_path, change, says):
    EfficientNetClassifier("tiny", 3, classes=["a", "b", "c"]).save(tmp_path)
    load_model(tmp_path)
    stated = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**stated, **change}))
    told = refused(load_model, tmp_path)
    assert says in told
    assert len(told) < 1000
    (tmp_path / "model.json").write_text("[" * 100_000)
    assert "model.json" in refused(load_model, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("about: !!python/object/apply:os.system ['touch planted']\n", "tag"),
        ("about: &a [*a]\n", "recursive"),
        ("about:\n " + "- " * 20_000 + "x\n", "nested too deeply"),
        ("a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)), "limit"),
        ("about: " + "[" * 100_000, "nested too deeply"),
        ('about: {summary: "\\e]0;x\\a"}\n', "control characters"),
        ('about: {summary: "\\u202egnp.exe"}\n', "control characters"),
        ("about: {name: ../../x}\ndata: {card: blossoms}\n", "can be a folder's"),
        ("track: {notes: 'https://me:planted@host'}\ndata: {card: blossoms}\n", "no passwords"),
        ("data: {root: '${oc.env:HOME}'}\n", "plain values"),
    ],
)
@pytest.mark.parametrize("kind", ["recipe", "sweep"])
def test_yaml_is_data(tmp_path, text, says, kind):
    from workbench.sweeps.sweep_files import read_sweep

    path = tmp_path / "file.yaml"
    path.write_text(text)
    if kind == "recipe":
        told = refused(load_recipe, str(path))
        assert says in told
        assert "planted@" not in told
        assert refused(shipped.read_yaml, path) if says in ("tag", "recursive", "limit", "nested too deeply") else told
    else:
        refused(read_sweep, path, ())
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: ../../x", "a name that can be a folder's"),
        ("name: /etc", "a name that can be a folder's"),
        ("folder: /etc", "stays inside"),
        ("folder: a/../../b", "stays inside"),
        ("sources: [{kind: hub, id: a/b, md5_list: ../x}]", "stays inside"),
        ('classes: ["a", "b\\nc"]', "control character"),
        ('title: "\\e[2J"', "control characters"),
    ],
)
def test_a_card_stays_in_its_folder(tmp_path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    assert says in refused(card_files.load_card, str(path))


def archive(path, name, kind=None, size=4, target=""):
    """Write a .tar or .zip of one member."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr(name, b"\0" * size)
        return
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind or tarfile.REGTYPE, target
        member.size = 0 if kind else size
        made.addfile(member, None if kind else io.BytesIO(b"\0" * size))


@pytest.mark.parametrize(
    ("ending", "name", "options", "says"),
    [
        ("tar", "../../out.txt", {}, "outside"),
        ("tar", "a/b", {"kind": tarfile.SYMTYPE, "target": "/etc/passwd"}, "link"),
        ("tar", "a/b", {"kind": tarfile.SYMTYPE, "target": "../../.."}, "link"),
        ("tar", "a/b", {"kind": tarfile.LNKTYPE, "target": "../../../etc/passwd"}, "link"),
        ("tar", "a/b", {"kind": tarfile.CHRTYPE}, "special file"),
        ("tar", "a/b", {"kind": tarfile.FIFOTYPE}, "special file"),
        ("tar", "big", {"size": 5_000_000}, "holds 0.0 GB or more"),
        ("zip", "../../out.txt", {}, "leads out"),
        ("zip", "/out.txt", {}, "leads out"),
        ("zip", "big", {"size": 5_000_000}, "holds 0.0 GB or more"),
    ],
)
def test_an_archive_stays_in_its_folder_and_on_its_disk(tmp_path, monkeypatch, ending, name, options, says):
    from types import SimpleNamespace

    from torchvision.datasets.utils import extract_archive

    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    archive(tmp_path / f"x.{ending}", name, **options)
    (tmp_path / "x.tar").is_file() and (tmp_path / "x.tar").rename(tmp_path / "x.tgz")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    source = next(tmp_path.glob("x.*"))
    with pytest.raises((downloads.SourceError, tarfile.TarError), match=says), downloads.careful_archives(inside):
        extract_archive(str(source), str(inside))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]
    archive(source, "good")
    with downloads.careful_archives(inside):
        extract_archive(str(source), str(inside))
    assert (inside / "good").stat().st_size == 4


@pytest.mark.parametrize("name", ["../x.parquet", "/etc/x", "a//b", "a/./b", "a\\..\\b", "a\nb"])
def test_a_hub_lists_no_file_outside_its_copy(name):
    hub._check_names(["data/train-00000.parquet"], "hub a/b")
    with pytest.raises(downloads.SourceError, match="outside"):
        hub._check_names([name], "hub a/b")


def test_a_picture_cell_names_no_device_and_nothing_outside(tmp_path):
    paint(tmp_path / "in" / "a.png", 0, 0)
    paint(tmp_path / "b.png", 0, 0)
    inside = tmp_path / "in"
    (inside / "link.png").symlink_to(tmp_path / "b.png")
    for cell in (inside / "a.png", "/dev/zero", tmp_path / "b.png", inside / "link.png", inside / ".." / "b.png"):
        expected = cell if cell == inside / "a.png" else b""
        assert pieces.image_of({"bytes": None, "path": str(cell)}, inside) == expected
    assert pieces.image_of(str(tmp_path / "b.png")) == tmp_path / "b.png"
    for cell in ("/dev/zero", "a\0b", "x" * 5000, 3, {}):
        assert pieces.image_of(cell) == b""


def test_a_strip_that_would_grow_without_end_is_refused(tmp_path):
    header = b"P5\n60000 1\n255\n"
    assert "at most 50 times" in refused(load_image, header + b"\0" * 60_000)
    assert load_image(b"P5\n50 1\n255\n" + b"\0" * 50).shape == (3, 1, 50)
    path = tmp_path / "two.jpg"
    paint(path, 0, 0)
    data = path.read_bytes()
    place = data.index(b"\xff\xc0")
    length = 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    huge = data[place : place + 5] + struct.pack(">HH", 65000, 65000) + data[place + 9 : place + length]
    refused(load_image, data[:place] + huge + data[place:])  # two sizes in one JPEG: Pillow sees the second
