"""Files are whole or not there, also when a disk is full."""

import contextlib
import errno
import shutil
import subprocess

import pytest
import torch

from workbench import EfficientNetClassifier, fit, load_recipe
from workbench.atomic import disk_errors, replacing
from workbench.models.tensor_files import save_tensors
from workbench.specs.errors import UserError


def test_a_failed_write_leaves_the_good_file_and_nothing_beside(tmp_path):
    path = tmp_path / "file"
    path.write_text("good")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "good"


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "get permission"), (errno.EROFS, "write elsewhere")],
)
def test_what_a_disk_refuses_is_the_users_to_mend(tmp_path, number, says):
    with pytest.raises(UserError, match=says), disk_errors(tmp_path):
        raise OSError(number, "refused", str(tmp_path / "x"))
    with pytest.raises(ConnectionError), disk_errors(tmp_path):
        raise ConnectionError("another matter")


@pytest.fixture
def full_disk(tmp_path):
    """A real file system with 300 KiB of room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_the_good_tensors(full_disk):
    path = full_disk / "x.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)})
    good = path.read_bytes()
    with pytest.raises(OSError, match="No space") as error:
        save_tensors(path, {"a": torch.zeros(200_000)})
    assert error.value.errno == errno.ENOSPC
    assert [p.name for p in full_disk.iterdir()] == ["x.safetensors"]
    assert path.read_bytes() == good


def test_a_full_disk_ends_a_fit_with_words_and_no_half_files(full_disk, tiny_recipe):
    overrides = [f"track.runs_dir={full_disk}", "train.total_epochs=1"]
    with pytest.raises(UserError, match="free some space"):
        fit(load_recipe(str(tiny_recipe), overrides).recipe)
    (run,) = (full_disk / "tiny").iterdir()
    left = [p.name for p in run.rglob("*") if p.is_file()]
    assert not [name for name in left if name.endswith(".part")]
    assert "model.safetensors" not in left
    assert shutil.disk_usage(full_disk).total == 300 * 1024


def test_a_full_disk_keeps_the_good_model(full_disk):
    with pytest.raises(OSError, match="No space"):
        EfficientNetClassifier("tiny", 2).save(full_disk / "m")
    assert list((full_disk / "m").iterdir()) == []
