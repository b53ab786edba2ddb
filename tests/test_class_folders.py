"""Sets whose folders are their classes: anyone's own folder of images, and ImageNet."""

from dataclasses import replace

import original_layouts as made
import pytest
from conftest import paint
from PIL import Image

from workbench.card_files import load_card
from workbench.data.layouts.reading import NotThere, read_layout
from workbench.data.splits import check_table
from workbench.specs.errors import UserError


def make_folder(root, listing):
    for name in listing:
        paint(root / name, 0, len(name))
    return root


def read_folder(folder):
    return read_layout(load_card("folder"), folder)


@pytest.fixture
def two(tmp_path):
    return make_folder(tmp_path / "set", ["a/0.png", "b/0.png"])


def test_a_class_that_val_lacks_keeps_its_index(tmp_path):
    names = [f"train/{c}/{i}.png" for c in "abc" for i in range(2)] + ["val/a/9.png", "val/c/9.png"]
    table = read_folder(make_folder(tmp_path / "set", names))
    assert table.classes == ("a", "b", "c")
    assert table.labels[table.indices("selection")].tolist() == [0, 2]


def test_one_folder_of_classes_is_train(tmp_path):
    names = [f"{c}/{i}.png" for c in "ab" for i in range(3)] + ["a/deep/er.jpg"]
    table = read_folder(make_folder(tmp_path / "set", names))
    assert table.splits == ["train"] * 7
    assert "a/deep/er.jpg" in table.ids


def test_images_stand_in_the_order_of_their_paths(tmp_path):
    names = ["train/a/b/1.png", "train/a/b.png", "train/a/b-1.png", "train/a/B.png", "train/c/0.png", "loose.png"]
    table = read_folder(make_folder(tmp_path / "set", [*names, "train/loose.png"]))
    assert table.ids == [*sorted(names[:4]), "train/c/0.png"]


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
        read_folder(root)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotThere, match=r"no such folder\n[\s\S]*check data.path"):
        read_folder(tmp_path / "nowhere")


def test_files_of_other_kinds_are_ignored(two):
    (two / "a" / "notes.txt").write_text("x")
    (two / ".hidden").mkdir()
    (two / "a" / "folder.png").mkdir()
    Image.new("L", (4, 4)).save(two / "b" / "1.JPEG")
    table = read_folder(two)
    assert table.classes == ("a", "b")
    assert table.ids == ["a/0.png", "b/0.png", "b/1.JPEG"]


def test_a_class_may_be_called_train(tmp_path):
    names = ["bus/0.png", "car/0.png", "train/0.png"]
    table = read_folder(make_folder(tmp_path / "set", names))
    assert table.classes == ("bus", "car", "train")


def test_a_cards_classes_order_the_folders(two):
    table = read_layout(replace(load_card("folder"), classes=["c", "b", "a"]), two)
    assert table.classes == ("c", "b", "a")
    assert table.labels.tolist() == [2, 1]
    with pytest.raises(UserError, match="not the card's: b"):
        read_layout(replace(load_card("folder"), classes=["c", "a"]), two)


def test_a_name_that_no_text_file_can_hold_is_refused(two):
    (two / "a" / "0.png").rename(two / "a" / b"\xe9.png".decode(errors="surrogateescape"))
    card = load_card("folder")
    table = read_layout(card, two)
    with pytest.raises(UserError, match="rename the file"):
        check_table(table, card, allow_partial=False)


@pytest.mark.parametrize("link", ["c", "a/more", "a/deep/er/more", "a/1.png", "notes.txt"])
def test_a_link_out_of_the_set_is_refused_by_name(two, tmp_path, link):
    outside = make_folder(tmp_path / "outside", ["0.png"])
    target = outside if "." not in link else outside / "0.png"
    (two / link).parent.mkdir(parents=True, exist_ok=True)
    (two / link).symlink_to(target)
    with pytest.raises(UserError) as error:
        read_folder(two)
    assert str(two / link) in str(error.value)
    assert str(target) in str(error.value)
    assert "copy the files in, or give the folder that it points to as data.path" in str(error.value)


def test_a_split_that_is_a_link_is_refused(tmp_path):
    outside = make_folder(tmp_path / "outside", ["a/0.png", "b/0.png"])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(outside)
    with pytest.raises(UserError, match=r"set/train\n.*a link out of the set"):
        read_folder(tmp_path / "set")


def test_links_that_would_count_images_twice_or_lead_nowhere_are_refused(two):
    (two / "a" / "b").symlink_to(two / "b")
    with pytest.raises(UserError, match=r"a/b\n.*would count twice"):
        read_folder(two)
    (two / "a" / "b").unlink()
    (two / "a" / "loop.png").symlink_to(two / "a" / "loop.png")
    with pytest.raises(UserError, match=r"loop.png\n.*does not exist"):
        read_folder(two)


def test_the_folder_itself_and_files_of_the_set_may_be_links(two, tmp_path):
    (two / ".store").mkdir()
    (two / "a" / "0.png").rename(two / ".store" / "0")
    (two / "a" / "0.png").symlink_to("../.store/0")
    (tmp_path / "link").symlink_to(two)
    assert read_folder(tmp_path / "link").ids == ["a/0.png", "b/0.png"]


@pytest.fixture
def small_imagenet(tmp_path):
    return replace(load_card("imagenet"), classes=["tench", "goldfish", "cock"]), made.make_imagenet(tmp_path, 3)


def test_imagenet_has_exactly_its_classes(small_imagenet):
    card, folder = small_imagenet
    assert len(read_layout(card, folder).ids) == 6
    with pytest.raises(UserError, match=r"3 folders[\s\S]*exactly 1000[\s\S]*data.card=folder"):
        read_layout(load_card("imagenet"), folder)
    (folder / "val" / "n99999999").mkdir()
    with pytest.raises(UserError, match=r"val\n.*4 folders[\s\S]*exactly 3"):
        read_layout(card, folder)


def test_imagenet_folders_of_val_are_those_of_train(small_imagenet):
    card, folder = small_imagenet
    (folder / "val" / made.synset(1)).rename(folder / "val" / "n99999999")
    with pytest.raises(UserError, match=r"val\n.*other class folders[\s\S]*unpack both again"):
        read_layout(card, folder)


def test_a_flat_imagenet_val_says_what_to_do(small_imagenet):
    card, folder = small_imagenet
    for sub in (folder / "val").iterdir():
        for file in sub.iterdir():
            file.rename(folder / "val" / file.name)
        sub.rmdir()
    with pytest.raises(UserError, match=r"val\n.*without class folders[\s\S]*move each image into the folder of its"):
        read_layout(card, folder)


def test_an_imagenet_without_val_is_not_there(small_imagenet):
    card, folder = small_imagenet
    (folder / "val").rename(folder / "validation")
    with pytest.raises(NotThere, match="imagenet: val not there"):
        read_layout(card, folder)


@pytest.mark.parametrize("names", [("Train", "Test"), ("seg_train", "seg_test")])
def test_split_folders_under_other_names_do_not_become_classes(tmp_path, names):
    for split in names:
        for kind in "ab":
            paint(tmp_path / "set" / split / kind / "0.png", 0, 0)
    with pytest.raises(UserError, match="rename or take out"):
        read_layout(load_card("folder"), tmp_path / "set")


def test_hidden_files_do_not_count_and_loose_ones_are_said(tmp_path):
    for name in ("a/0.png", "b/0.png", "a/.ipynb_checkpoints/0-checkpoint.png", "a/._0.png", "loose.png"):
        paint(tmp_path / "set" / name, 0, len(name))
    table = read_layout(load_card("folder"), tmp_path / "set")
    assert table.ids == ["a/0.png", "b/0.png"]
    assert table.stamps == ("not used: 1 images outside the class folders, such as loose.png",)
