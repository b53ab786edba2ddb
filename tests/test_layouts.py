"""Each set's original files as a table: ids, labels, splits, classes. Broken files are in test_broken_layouts.py."""

import pickle
from dataclasses import replace

import numpy as np
import original_layouts as made
import pytest

from workbench.card_files import list_cards, load_card
from workbench.data.images import load_image
from workbench.data.layouts.reading import READERS, NotThere, read_layout
from workbench.specs.card import LAYOUTS, DatasetCard
from workbench.specs.errors import UserError

SETS = ("cifar10", "cifar100", "birdsnap", "cars", "flowers", "aircraft", "pets", "food101", "imagenet")


def build(name, root):
    return getattr(made, f"make_{name}")(root)


def classes_of(table):
    return [table.classes[label] for label in table.labels]


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_the_cards_classes_and_folder_and_pictures_that_load(name, tmp_path):
    card = load_card(name)
    folder = build(name, tmp_path)
    table = read_layout(card, folder)
    assert folder == tmp_path / card.folder
    assert table.classes == tuple(card.classes)
    assert len(set(table.ids)) == len(table.ids) == len(table.images) == len(table.labels) == len(table.splits)
    assert table.labels.dtype == np.int64
    assert {"train", "test"} <= set(table.splits)
    assert load_image(table.images[0]).shape[0] == 3


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "birdsnap", "cars", "aircraft", "food101"])
def test_labels_follow_the_cards_order_by_name(name, tmp_path):
    card = load_card(name)
    folder = build(name, tmp_path)
    before = read_layout(card, folder)
    after = read_layout(replace(card, classes=card.classes[::-1]), folder)
    assert after.classes == before.classes[::-1]
    assert classes_of(after) == classes_of(before)


@pytest.mark.parametrize("name", SETS)
def test_without_a_cards_classes_the_files_decide(name, tmp_path):
    card = load_card(name)
    folder = build(name, tmp_path)
    named, free = read_layout(card, folder), read_layout(replace(card, classes=[]), folder)
    assert free.ids == named.ids
    if name not in ("flowers", "imagenet"):  # these files hold no names
        assert classes_of(free) == classes_of(named)


@pytest.mark.parametrize("name", SETS)
def test_files_that_are_not_there_are_all_named_with_what_to_put_where(name, tmp_path):
    with pytest.raises(NotThere) as error:
        read_layout(load_card(name), tmp_path / "nowhere")
    assert "not there" in str(error.value)
    assert load_card(name).what_to_put_where in str(error.value)


def test_flowers_labels_count_from_0_and_splits_are_the_creators(tmp_path):
    table = read_layout(load_card("flowers"), made.make_flowers(tmp_path))
    assert table.ids[0] == "jpg/image_00001.jpg"
    assert table.labels.tolist() == [0, 1, 0, 1, 101, 0, 1]
    assert table.splits == ["train", "train", "selection", "test", "test", "test", "selection"]


def test_flowers_missing_images_are_left_out_and_counted(tmp_path):
    from workbench.data.datamodules import Flowers102DataModule

    (made.make_flowers(tmp_path) / "jpg" / "image_00004.jpg").unlink()
    module = Flowers102DataModule(tmp_path, download=False, allow_partial=True)
    with pytest.raises(UserError, match="100 classes without training images"):
        _ = Flowers102DataModule(tmp_path, download=False).table
    assert "partial: 2 of 6149 test images" in module.table.stamps


@pytest.mark.parametrize("name", [name for name in SETS if not name.startswith("cifar")])
def test_a_listed_image_that_is_missing_is_left_out(name, tmp_path):
    card, folder = load_card(name), build(name, tmp_path)
    whole = read_layout(card, folder)
    whole.images[1].unlink()
    part = read_layout(card, folder)
    assert part.ids == [whole.ids[0], *whole.ids[2:]]
    assert part.labels.tolist() == [whole.labels[0], *whole.labels[2:]]


def test_cifar_planes_become_rgb_pixels(tmp_path):
    folder = made.make_cifar10(tmp_path)
    table = read_layout(load_card("cifar10"), folder)
    assert table.images.shape == (24, 32, 32, 3)
    raw = pickle.loads((folder / "data_batch_2").read_bytes())[b"data"]
    assert table.ids[4] == "data_batch_2/00000"
    assert np.array_equal(table.images[4][:, :, 1].ravel(), raw[0, 1024:2048])
    assert table.classes[:2] == ("airplane", "automobile")
    assert table.splits == ["train"] * 20 + ["test"] * 4


def test_cifar100_has_the_fine_classes(tmp_path):
    table = read_layout(load_card("cifar100"), made.make_cifar100(tmp_path))
    assert table.ids[0] == "train/00000"
    assert table.ids[120] == "test/00000"
    assert table.labels.tolist() == [*range(100), *range(20)] * 2
    assert table.classes[1] == "aquarium_fish"


def test_cars_count_from_1_in_their_files_and_from_0_here(tmp_path):
    table = read_layout(load_card("cars"), made.make_cars(tmp_path))
    assert table.ids == [f"cars_train/{i:05d}.jpg" for i in range(1, 5)] + [
        "cars_test/00001.jpg",
        "cars_test/00002.jpg",
    ]
    assert table.labels.tolist() == [13, 0, 195, 0, 195, 13]
    assert table.classes[13] == "Audi TTS Coupe 2012"


def test_cars_test_list_may_lie_in_the_devkit(tmp_path):
    folder = made.make_cars(tmp_path)
    (folder / "cars_test_annos_withlabels.mat").rename(folder / "devkit" / "cars_test_annos_withlabels.mat")
    assert read_layout(load_card("cars"), folder).splits.count("test") == 2


def test_aircraft_variants_with_slashes_and_blanks(tmp_path):
    table = read_layout(load_card("aircraft"), made.make_aircraft(tmp_path))
    assert table.splits == ["train"] * 3 + ["selection"] * 2 + ["test"] * 2
    planes = ["707-320", "F-16A/B", "Boeing 717", "F-16A/B", "707-320", "Boeing 717", "F/A-18"]
    assert classes_of(table) == planes
    assert table.ids[0] == "data/images/0034310.jpg"
    assert "data/images/0000001.jpg" not in table.ids


def test_pets_are_those_of_the_lists_whatever_their_format(tmp_path):
    table = read_layout(load_card("pets"), made.make_pets(tmp_path))
    assert table.splits == ["train"] * 7 + ["test"] * 4
    assert table.ids[0] == "images/Abyssinian_34.jpg"
    assert table.ids[7] == "images/Abyssinian_5.jpg"
    assert "images/Bengal_105.jpg" not in table.ids
    assert classes_of(table)[:3] == ["Abyssinian"] * 3
    assert set(table.labels) == {0, 1, 36}
    for row in (0, 7):
        assert load_image(table.images[row]).shape == (3, 36, 40)


def test_food_lists_say_the_same_as_json_and_as_text(tmp_path):
    card = load_card("food101")
    as_json, as_text = (
        read_layout(card, made.make_food101(tmp_path / listing, listing)) for listing in ("json", "txt")
    )
    assert as_json.ids == as_text.ids
    assert as_json.labels.tolist() == as_text.labels.tolist()
    assert as_json.ids[0] == "images/apple_pie/1005649.jpg"
    assert as_json.splits == ["train"] * 6 + ["test"] * 3
    assert load_image(as_json.images[0]).shape == (3, 36, 40)


def test_food_classes_are_matched_by_name_where_sorting_would_exchange_two(tmp_path):
    table = read_layout(load_card("food101"), made.make_food101(tmp_path))
    assert sorted(table.classes) != list(table.classes)
    assert classes_of(table)[6:] == ["apple_pie", "cheese_plate", "cheesecake"]


@pytest.mark.parametrize("listing", ["images.txt", "all-ims"])
def test_birdsnap_is_train_but_for_the_listed_test_images(listing, tmp_path):
    table = read_layout(load_card("birdsnap"), made.make_birdsnap(tmp_path, listing))
    assert table.ids[:3] == [f"images/Coopers_Hawk/{n}.jpg" for n in (100, 101, 102)]
    assert table.splits == ["train", "test", "train"] * 3
    assert classes_of(table) == [name for name, _ in made.BIRDS.values() for _ in range(3)]
    assert set(table.labels) == {0, 19, 499}


def test_birdsnap_takes_the_species_number_where_there_is_one(tmp_path):
    folder = made.make_birdsnap(tmp_path)
    (folder / "images" / "Coopers_Hawk").rename(folder / "images" / "Hawks")
    listing = folder / "images.txt"
    listing.write_text(listing.read_text().replace("Coopers_Hawk", "Hawks"))
    assert classes_of(read_layout(load_card("birdsnap"), folder))[:3] == ["Cooper's Hawk"] * 3


def test_imagenet_labels_are_the_sorted_folders_and_val_is_test(tmp_path):
    table = read_layout(load_card("imagenet"), made.make_imagenet(tmp_path))
    assert table.labels.tolist() == [*range(1000), 0, 1, 999]
    assert table.splits == ["train"] * 1000 + ["test"] * 3
    assert table.ids[-1] == f"val/{made.synset(999)}/ILSVRC2012_val_00001000.JPEG"


def test_every_layout_has_a_reader_and_every_card_a_layout():
    assert set(READERS) == set(LAYOUTS)
    assert {load_card(name).layout for name in list_cards()} == set(LAYOUTS)


def test_rows_have_no_files_of_their_own():
    with pytest.raises(NotThere, match="no files of its own"):
        read_layout(load_card("hub"), None)


def test_the_embedded_set_is_rendered():
    card = DatasetCard(name="blossoms", layout="blossoms")
    card.sizes.train = card.sizes.selection = card.sizes.test = 16
    table = read_layout(card, None)
    assert table.images.shape == (48, 64, 64, 3)
    assert len(table.classes) == 16


def test_files_that_cannot_be_read_are_named(tmp_path):
    folder = made.make_pets(tmp_path)
    (folder / "annotations" / "test.txt").unlink()
    (folder / "annotations" / "test.txt").mkdir()
    with pytest.raises(UserError, match=r"test.txt\n  given:    Is a directory"):
        read_layout(load_card("pets"), folder)
