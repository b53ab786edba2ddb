"""The real samples in ../shared/data, read by the cards that ship: counts, labels and the known traps."""

import json
from collections import Counter

import pytest

from workbench.card_files import load_card
from workbench.data.class_names import match_classes
from workbench.data.images import load_image
from workbench.data.layouts import mat_lists, text_lists
from workbench.data.layouts.reading import NotThere, read_layout
from workbench.specs.card import DatasetCard

LISTS = {
    "aircraft": text_lists.list_aircraft,
    "birdsnap": text_lists.list_birdsnap,
    "cars": mat_lists.list_cars,
    "flowers": mat_lists.list_flowers,
}


@pytest.fixture(scope="session")
def data(shared):
    return shared / "data"


def folder_of(data, name):
    return data / load_card(name).folder


def class_at(table, image_id):
    return table.classes[table.labels[table.ids.index(image_id)]]


def sizes_of(card):
    sizes = {"train": card.sizes.train, "selection": card.sizes.selection, "test": card.sizes.test}
    return {split: size for split, size in sizes.items() if size is not None}


@pytest.mark.parametrize("name", LISTS)
def test_the_official_lists_have_the_cards_sizes_and_all_its_classes(data, name):
    card = load_card(name)
    table = LISTS[name](card, folder_of(data, name))
    assert Counter(table.splits) == sizes_of(card)
    assert table.classes == tuple(card.classes)
    assert set(table.labels.tolist()) == set(range(card.num_classes))
    assert len(set(table.ids)) == len(table.ids)


def test_all_pets_and_food_lists_have_the_cards_sizes(data, tmp_path):
    for name, annotations, complete, read in (
        ("pets", "annotations", "annotations_full", text_lists.list_pets),
        ("food101", "meta", "meta_official", text_lists.list_food),
    ):
        card = load_card(name)
        (tmp_path / annotations).symlink_to(folder_of(data, name) / complete)
        table = read(card, tmp_path)
        assert Counter(table.splits) == sizes_of(card)
        assert len(set(table.labels.tolist())) == card.num_classes
        if name == "food101":
            assert set(Counter(table.labels[table.indices("test")].tolist()).values()) == {250}


def test_class_names_are_those_of_the_official_files(data):
    aircraft = (data / "fgvc-aircraft-2013b/data/variants.txt").read_text().splitlines()
    species = [line.split("\t")[1] for line in (data / "birdsnap/species.txt").read_text().splitlines()[1:]]
    dishes = (data / "food-101/meta_official/classes.txt").read_text().splitlines()
    pets = [line.split() for line in (data / "oxford-iiit-pet/annotations_full/trainval.txt").read_text().splitlines()]
    breeds = {int(number): image.rpartition("_")[0] for image, number, *_ in pets}
    assert load_card("aircraft").classes == aircraft
    assert load_card("birdsnap").classes == species
    assert load_card("food101").classes == dishes
    assert load_card("pets").classes == [breeds[number] for number in range(1, 38)]
    meta = mat_lists._array(data / "stanford_cars/devkit/cars_meta.mat", "class_names").ravel()
    assert load_card("cars").classes == [str(name.item()) for name in meta]


@pytest.mark.parametrize(
    ("name", "meta", "key"),
    [("cifar10", "cifar-10-batches.meta", "label_names"), ("cifar100", "cifar-100-meta", "fine_label_names")],
)
def test_cifar_class_names_are_those_of_the_official_files(data, name, meta, key):
    from workbench.data.layouts.cifar_files import _load, _text

    assert load_card(name).classes == [_text(label) for label in _load(data / "cifar" / meta, key)[0]]


def test_flower_names_stand_for_the_numbers_that_others_give_them(data):
    names = json.loads((data / "flowers-102/cat_to_name.json").read_text())
    classes = load_card("flowers").classes
    found = [names[str(number)] for number in range(1, 103)]
    assert match_classes(found, classes, "cat_to_name.json").tolist() == list(range(102))
    differing = [(a, b) for a, b in zip(found, classes, strict=True) if a.rstrip("?") != b]
    assert differing == [("lotus lotus", "lotus")]


def test_flowers_as_torchvision_names_them():
    from torchvision.datasets import Flowers102

    assert load_card("flowers").classes == [name.rstrip("?") for name in Flowers102.classes]


def test_imagenet_names_are_the_first_synonyms_of_its_synsets():
    info = pytest.importorskip("timm.data").ImageNetInfo()
    classes = load_card("imagenet").classes
    official = [info.index_to_description(label) for label in range(1000)]
    told_apart = {134: "crane (bird)", 517: "crane (machine)", 264: "Cardigan (dog)", 474: "cardigan (garment)"}
    told_apart[639] = "maillot, tank suit"
    assert {label: classes[label] for label in told_apart} == told_apart
    first = [name.split(",")[0] for name in official]
    assert [told_apart.get(label, name) for label, name in enumerate(first)] == [*classes]
    assert match_classes(official, classes, "synsets").tolist() == list(range(1000))


def test_real_flowers_are_whole(data):
    table = read_layout(load_card("flowers"), data / "flowers-102")
    assert Counter(table.splits) == {"train": 1020, "selection": 1020, "test": 6149}
    names = json.loads((data / "flowers-102/cat_to_name.json").read_text())
    assert class_at(table, "jpg/image_00001.jpg") == names["77"] == "passion flower"


@pytest.mark.slow
def test_real_flowers_through_their_datamodule(shared, tmp_path):
    from workbench.data.datamodules import Flowers102DataModule

    module = Flowers102DataModule(shared / "data", prepared_root=tmp_path, download=False)
    assert {s: len(module.rows(s)) for s in ("train", "selection", "test")} == {
        "train": 1020,
        "selection": 1020,
        "test": 6149,
    }
    assert module.table.stamps == ()
    first_train = module.table.indices("train")[0]
    assert module.classes[module.table.labels[first_train]] == _name_of(shared, module.table.ids[first_train])
    both = Flowers102DataModule(shared / "data", prepared_root=tmp_path, download=False, train_on="train+selection")
    assert len(both.rows("train")) == 2040
    assert both.val_dataloader() == []


def _name_of(shared, image_id):
    from scipy.io import loadmat

    folder = shared / "data" / "flowers-102"
    number = int(image_id[-9:-4])
    label = loadmat(folder / "imagelabels.mat")["labels"][0][number - 1]
    return json.loads((folder / "cat_to_name.json").read_text())[str(label)]


def test_real_cars_sample_has_one_image_a_class_and_is_stamped(shared, tmp_path):
    from workbench.data.datamodules import StanfordCarsDataModule

    module = StanfordCarsDataModule(shared / "data", prepared_root=tmp_path, allow_partial=True)
    assert module.num_classes == 196
    assert module.classes[0] == "AM General Hummer SUV 2000"
    assert sorted(module.table.labels[module.table.indices("train")].tolist()) == list(range(196))
    assert "partial: 196 of 8144 train images" in module.table.stamps


def test_real_cars_labels_count_from_1_in_the_file(data):
    card = load_card("cars")
    table = read_layout(card, data / "stanford_cars")
    assert sorted(table.labels.tolist()) == list(range(196))
    everything = mat_lists.list_cars(card, data / "stanford_cars")
    assert class_at(everything, "cars_train/00001.jpg") == "Audi TTS Coupe 2012"
    assert class_at(everything, "cars_test/00001.jpg") == "Suzuki Aerio Sedan 2007"


def test_real_pets_with_a_gif_and_a_png_that_are_called_jpg(data):
    folder = data / "oxford-iiit-pet"
    table = read_layout(load_card("pets"), folder)
    assert Counter(table.splits) == {"train": 95, "test": 34}
    assert len(list((folder / "images").iterdir())) == 131
    assert len(set(table.labels.tolist())) == 37
    for trap in ("Abyssinian_34", "Abyssinian_5"):
        assert f"images/{trap}.jpg" not in table.ids
        assert load_image(folder / "images" / f"{trap}.jpg").shape[0] == 3
    assert class_at(table, "images/Abyssinian_1.jpg") == "Abyssinian"


def test_one_of_the_trap_pets_is_in_the_complete_test_list(data, tmp_path):
    folder = data / "oxford-iiit-pet"
    (tmp_path / "annotations").symlink_to(folder / "annotations_full")
    (tmp_path / "images").symlink_to(folder / "images")
    table = read_layout(load_card("pets"), tmp_path)
    assert table.splits[table.ids.index("images/Abyssinian_5.jpg")] == "test"
    assert "images/Abyssinian_34.jpg" not in table.ids


def test_real_food_by_either_list(data, tmp_path):
    card, folder = load_card("food101"), data / "food-101"
    table = read_layout(card, folder)
    assert Counter(table.splits) == {"train": 60, "test": 30}
    assert set(table.labels.tolist()) == set(range(10))
    assert class_at(table, "images/baklava/1006121.jpg") == "baklava"
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "meta").mkdir()
    for name in ("train.txt", "test.txt"):
        (tmp_path / "meta" / name).write_bytes((folder / "meta" / name).read_bytes())
    assert read_layout(card, tmp_path).ids == table.ids


def test_official_food_order_is_not_the_sorted_one(data, tmp_path):
    (tmp_path / "meta").symlink_to(data / "food-101" / "meta_official")
    card = load_card("food101")
    assert card.classes.index("cheesecake") == 16
    assert card.classes.index("cheese_plate") == 17
    by_card = text_lists.list_food(card, tmp_path)
    sorted_by_name = text_lists.list_food(DatasetCard(), tmp_path)
    assert sorted_by_name.classes.index("cheese_plate") == 16
    row = by_card.splits.index("test")
    for table in (by_card, sorted_by_name):
        for place in range(0, len(table.ids), 97):
            assert table.classes[table.labels[place]] == table.ids[place].split("/")[1]
        assert table.ids[row] == "images/apple_pie/1011328.jpg"


def test_real_birds_have_folders_in_another_case_than_their_species(data):
    table = read_layout(load_card("birdsnap"), data / "birdsnap")
    assert len(table.ids) == 7
    assert {table.classes[label] for label in table.labels} == {"Cooper's Hawk"}
    everything = text_lists.list_birdsnap(load_card("birdsnap"), data / "birdsnap")
    assert everything.splits[everything.ids.index("images/Coopers_Hawk/0561.jpg")] == "test"
    assert class_at(everything, everything.ids[-1]) == "Zone-tailed Hawk"


def test_aircraft_without_its_images_is_not_there(data):
    with pytest.raises(NotThere, match="data/images not there"):
        read_layout(load_card("aircraft"), data / "fgvc-aircraft-2013b")


def test_aircraft_variants_with_signs_are_whole(data):
    table = text_lists.list_aircraft(load_card("aircraft"), data / "fgvc-aircraft-2013b")
    lines = (data / "fgvc-aircraft-2013b/data/images_variant_val.txt").read_text().splitlines()
    assert {"F-16A/B", "F/A-18", "BAE 146-200", "707-320"} <= {line.split(" ", 1)[1] for line in lines}
    for line in lines:
        number, variant = line.split(" ", 1)
        assert class_at(table, f"data/images/{number}.jpg") == variant
