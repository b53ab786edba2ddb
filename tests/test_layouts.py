"""Sets in their original on-disk formats: small ones made here, and the real samples where they are."""

import json
import pickle

import numpy as np
import pytest
from conftest import paint
from PIL import Image
from scipy.io import savemat

from workbench.card_files import load_card
from workbench.data.datamodules import Flowers102DataModule, StanfordCarsDataModule
from workbench.data.layouts import read_layout
from workbench.specs.errors import UserError


@pytest.fixture
def flowers(tmp_path):
    folder = tmp_path / "flowers-102"
    for number in range(1, 7):
        paint(folder / "jpg" / f"image_{number:05d}.jpg", number % 3, number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 102, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[6, 5, 4]]})
    return tmp_path


def test_flowers_labels_count_from_0_and_splits_are_the_creators(flowers):
    table = read_layout(load_card("flowers"), flowers, None, download=False)
    assert table.ids[0] == "jpg/image_00001.jpg"
    assert table.labels.tolist() == [0, 1, 0, 1, 101, 0]
    assert table.splits == ["train", "train", "selection", "test", "test", "test"]


def test_flowers_missing_images_are_left_out_and_counted(flowers):
    (flowers / "flowers-102" / "jpg" / "image_00004.jpg").unlink()
    module = Flowers102DataModule(flowers, download=False, allow_partial=True)
    with pytest.raises(UserError, match="100 classes without training images"):
        _ = Flowers102DataModule(flowers, download=False).table
    assert "partial: 2 of 6149 test images" in module.table.stamps


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20])
def test_flowers_lists_that_are_no_mat_files_are_named(flowers, content):
    (flowers / "flowers-102" / "setid.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"setid.mat"):
        read_layout(load_card("flowers"), flowers, None, download=False)


def test_real_flowers_are_whole(shared):
    module = Flowers102DataModule(shared / "data", download=False)
    assert {s: len(module.rows(s)) for s in ("train", "selection", "test")} == {
        "train": 1020,
        "selection": 1020,
        "test": 6149,
    }
    assert module.table.stamps == ()
    first_train = module.table.indices("train")[0]
    assert module.classes[module.table.labels[first_train]] == _name_of(shared, module.table.ids[first_train])
    both = Flowers102DataModule(shared / "data", download=False, train_on="train+selection")
    assert len(both.rows("train")) == 2040
    assert both.val_dataloader() == []


def _name_of(shared, image_id):
    from scipy.io import loadmat

    folder = shared / "data" / "flowers-102"
    number = int(image_id[-9:-4])
    label = loadmat(folder / "imagelabels.mat")["labels"][0][number - 1]
    return json.loads((folder / "cat_to_name.json").read_text())[str(label)]


def write_cifar(folder, rows=4, reduce_=None):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batch = {b"data": rng.integers(0, 256, (rows, 3072), dtype=np.uint8), b"labels": [i % 10 for i in range(rows)]}
        (folder / name).write_bytes(pickle.dumps(reduce_ or batch, protocol=2))
    names = [b"airplane", b"automobile", *[str(i).encode() for i in range(8)]]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))


def test_cifar_planes_become_rgb_pixels(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py")
    table = read_layout(load_card("cifar10"), tmp_path, None, download=False)
    assert table.images.shape == (24, 32, 32, 3)
    raw = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_2").read_bytes())[b"data"]
    assert table.ids[4] == "data_batch_2/00000"
    assert np.array_equal(table.images[4][:, :, 1].ravel(), raw[0, 1024:2048])
    assert table.classes[:2] == ("airplane", "automobile")
    assert table.splits == ["train"] * 20 + ["test"] * 4


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize("content", [Hostile(), {b"data": []}, [1, 2]])
def test_files_that_are_no_cifar_batches_run_nothing_and_are_named(tmp_path, content, capsys):
    write_cifar(tmp_path / "cifar-10-batches-py", reduce_=content)
    with pytest.raises(UserError, match="data_batch_1"):
        read_layout(load_card("cifar10"), tmp_path, None, download=False)
    assert "never be printed" not in capsys.readouterr().out


def test_real_cifar_class_names(shared):
    meta = shared / "data" / "cifar" / "cifar-10-batches.meta"
    from workbench.data.cifar_files import _load

    assert [name.decode() if isinstance(name, bytes) else name for name in _load(meta, "label_names")][:3] == [
        "airplane",
        "automobile",
        "bird",
    ]


def test_real_cars_sample_has_one_image_a_class_and_is_stamped(shared):
    module = StanfordCarsDataModule(shared / "data", allow_partial=True)
    assert module.num_classes == 196
    assert module.classes[0] == "AM General Hummer SUV 2000"
    assert sorted(module.table.labels[module.table.indices("train")].tolist()) == list(range(196))
    assert "partial: 196 of 8144 train images" in module.table.stamps


def test_a_set_that_cannot_be_downloaded_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError) as error:
        read_layout(load_card("cars"), tmp_path, None, download=True)
    assert "cars_train_annos.mat" in str(error.value)
    assert "the creators' site is gone" in str(error.value)


def test_a_failed_download_is_reported_with_its_reason(tmp_path, monkeypatch):
    import torchvision.datasets

    def fail(*args, **kwargs):
        raise OSError("connection refused")

    monkeypatch.setattr(torchvision.datasets, "Flowers102", fail)
    with pytest.raises(UserError) as error:
        read_layout(load_card("flowers"), tmp_path, None, download=True)
    assert "connection refused" in str(error.value)
    assert "102flowers.tgz" in str(error.value)


def make_folder(root, listing):
    for name in listing:
        paint(root / name, 0, len(name))
    return root


def test_a_class_that_val_lacks_keeps_its_index(tmp_path):
    names = [f"train/{c}/{i}.png" for c in "abc" for i in range(2)] + ["val/a/9.png", "val/c/9.png"]
    table = read_layout(load_card("folder"), tmp_path, make_folder(tmp_path / "set", names), download=False)
    assert table.classes == ("a", "b", "c")
    assert table.labels[table.indices("selection")].tolist() == [0, 2]


def test_one_folder_of_classes_is_train(tmp_path):
    names = [f"{c}/{i}.png" for c in "ab" for i in range(3)] + ["a/deep/er.jpg"]
    table = read_layout(load_card("folder"), tmp_path, make_folder(tmp_path / "set", names), download=False)
    assert table.splits == ["train"] * 7
    assert "a/deep/er.jpg" in table.ids


@pytest.mark.parametrize(
    ("names", "empty", "says"),
    [
        (["train/a/0.png", "train/b/0.png", "val/z/0.png"], [], "class 'z' is not among the 2 classes"),
        (["train/a/0.png", "train/b/0.png"], ["val"], "no images"),
        (["train/a/0.png"], ["train/b"], "no images"),
        (["training/a/0.png", "val/a/0.png"], [], "rename or take out training, val"),
        (["train/a/0.png", "train/b/0.png", "valid/a/0.png"], [], "rename or take out valid"),
    ],
)
def test_broken_folders_are_named(tmp_path, names, empty, says):
    root = make_folder(tmp_path / "set", names)
    for name in empty:
        (root / name).mkdir(parents=True)
    with pytest.raises(UserError, match=says):
        read_layout(load_card("folder"), tmp_path, root, download=False)


def test_pictures_of_other_kinds_are_ignored(tmp_path):
    root = make_folder(tmp_path / "set", ["a/0.png", "b/0.png"])
    (root / "a" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    Image.new("L", (4, 4)).save(root / "b" / "1.JPEG")
    table = read_layout(load_card("folder"), tmp_path, root, download=False)
    assert table.classes == ("a", "b")
    assert len(table.ids) == 3


def test_a_folder_card_without_a_path_says_how_to_give_it(tmp_path):
    with pytest.raises(UserError, match="add data.path=DIR"):
        read_layout(load_card("folder"), tmp_path, None, download=False)


def test_a_class_may_be_called_train(tmp_path):
    names = ["bus/0.png", "car/0.png", "train/0.png"]
    table = read_layout(load_card("folder"), tmp_path, make_folder(tmp_path / "set", names), download=False)
    assert table.classes == ("bus", "car", "train")


def test_a_name_that_no_text_file_can_hold_is_refused(tmp_path):
    from workbench.data.splits import check_table

    root = make_folder(tmp_path / "set", ["a/0.png", "b/0.png"])
    (root / "a" / "0.png").rename(root / "a" / b"\xe9.png".decode(errors="surrogateescape"))
    card = load_card("folder")
    table = read_layout(card, tmp_path, root, download=False)
    with pytest.raises(UserError, match="rename the file"):
        check_table(table, card, allow_partial=False)
