"""Original files that are damaged or were exchanged: each mistake is named with its file and what to do."""

import json
import pickle
from dataclasses import replace

import numpy as np
import original_layouts as made
import pytest
from scipy.io import savemat

from workbench.card_files import load_card
from workbench.data.layouts.reading import NotThere, read_layout
from workbench.data.splits import check_table
from workbench.specs.errors import UserError

HTML = "<html><body>404 Not Found</body></html>\n"


def refuses(name, folder, says):
    with pytest.raises(UserError, match=says) as error:
        read_layout(load_card(name), folder)
    assert not isinstance(error.value, NotThere)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "listing", "line"),
    [
        ("aircraft", "data/images_variant_val.txt", 1),
        ("pets", "annotations/trainval.txt", 1),
        ("food101", "meta/train.txt", 1),
        ("birdsnap", "species.txt", 1),
        ("birdsnap", "test_images.txt", 1),
        ("birdsnap", "images.txt", 1),
        ("birdsnap", "all-ims", 1),
        ("aircraft", "data/images_variant_val.txt", 2),
        ("pets", "annotations/trainval.txt", 3),
        ("food101", "meta/test.txt", 2),
        ("birdsnap", "species.txt", 4),
        ("birdsnap", "images.txt", 5),
        ("birdsnap", "all-ims", 2),
    ],
)
def test_a_line_that_does_not_parse_is_named_with_its_number(tmp_path, name, listing, line):
    options = {"meta/train.txt": ["txt"], "meta/test.txt": ["txt"], "all-ims": ["all-ims"]}.get(listing, [])
    folder = getattr(made, f"make_{name}")(tmp_path, *options)
    lines = (folder / listing).read_text().splitlines(keepends=True)
    (folder / listing).write_text("".join([*lines[: line - 1], HTML, *lines[line:]]))
    message = refuses(name, folder, f"{listing}:{line}\n")
    assert "html" in message
    assert "fetch this file again" in message


@pytest.mark.parametrize(
    ("name", "listing", "old", "new", "says"),
    [
        ("aircraft", "data/images_variant_test.txt", "F/A-18", "F/A-19", r"test.txt:2\n.*'?F/A-19"),
        ("pets", "annotations/test.txt", "american_bulldog_102", "bull_dog_102", r"test.txt:3\n.*bull_dog"),
        ("pets", "annotations/test.txt", "bulldog_102 2", "bulldog_102 3", r"test.txt:3\n.*class 3 for american_bul"),
        ("pets", "annotations/test.txt", "102 37 ", "102 38 ", r"test.txt:4\n.*class 38.*\n.*37, the class of york"),
        ("food101", "meta/test.txt", "cheesecake/", "cheese_cakes/", r"test.txt:3\n.*cheese_cakes"),
        ("food101", "meta/test.txt", "apple_pie/", "../apple_pie/", r"test.txt:1\n.*\.\./apple_pie"),
        ("birdsnap", "images.txt", "\t500\t", "\t501\t", r"images.txt:8\n.*species 501\n.*500 of species.txt"),
        ("birdsnap", "images.txt", "Snail_Kite/2000", "../Snail_Kite/2000", r"images.txt:5\n.*\.\./Snail"),
        ("birdsnap", "all-ims", "Snail_Kite/2000", "Snail/2000", r"all-ims:4\n.*species snail"),
        ("birdsnap", "images.txt", "species_id", "species", r"images.txt:1\n[\s\S]*header with path, species_id"),
    ],
)
def test_a_name_or_number_that_is_none_of_the_sets_is_named(tmp_path, name, listing, old, new, says):
    options = {"meta/test.txt": ["txt"], "all-ims": ["all-ims"]}.get(listing, [])
    folder = getattr(made, f"make_{name}")(tmp_path, *options)
    text = (folder / listing).read_text()
    assert old in text
    (folder / listing).write_text(text.replace(old, new, 1))
    refuses(name, folder, says)


def test_a_species_that_is_not_the_cards_is_named(tmp_path):
    folder = made.make_birdsnap(tmp_path)
    lines = (folder / "species.txt").read_text().replace("Snail Kite", "Slug Kite").splitlines()
    made.write_lines(folder / "species.txt", [lines[0], *lines[2:]])
    refuses("birdsnap", folder, r"species.txt\n.*Slug Kite[\s\S]*did you mean 'Snail Kite'")


@pytest.mark.parametrize("listing", ["annotations/trainval.txt", "annotations/test.txt"])
def test_bytes_that_are_no_text_are_named(tmp_path, listing):
    folder = made.make_pets(tmp_path)
    (folder / listing).write_bytes(b"\xff\xd8\xff\xe0")
    refuses("pets", folder, f"{listing}\n.*no text")


def test_bytes_that_are_no_text_in_a_table_are_named(tmp_path):
    folder = made.make_birdsnap(tmp_path)
    (folder / "species.txt").write_bytes(b"\xff\xd8\xff\xe0")
    refuses("birdsnap", folder, "species.txt\n.*no text")


def test_an_empty_table_is_named(tmp_path):
    folder = made.make_birdsnap(tmp_path)
    (folder / "test_images.txt").write_text("")
    refuses("birdsnap", folder, r"test_images.txt:1\n[\s\S]*header with path")


@pytest.mark.parametrize(
    "content", [HTML, "", "[1, 2]", '{"apple_pie": 3}', '{"apple_pie": ["../secret"]}', '{"apple_pie": "x"}', b"\xff{}"]
)
def test_food_json_that_is_none_is_named(tmp_path, content):
    folder = made.make_food101(tmp_path)
    (folder / "meta" / "test.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses("food101", folder, r"test.json\n[\s\S]*apple_pie/1005649")


def test_food_json_with_an_unknown_dish_is_named(tmp_path):
    folder = made.make_food101(tmp_path)
    (folder / "meta" / "test.json").write_text(json.dumps({"pie": ["pie/1"]}))
    refuses("food101", folder, r"test.json\n.*pie")


@pytest.mark.parametrize(("number", "row"), [(0, 2), (103, 7)])
def test_a_flower_class_out_of_range_is_named(tmp_path, number, row):
    labels = [number if i == row else 1 for i in range(1, 8)]
    folder = made.make_flowers(tmp_path, labels)
    refuses("flowers", folder, rf"imagelabels.mat\n.*class {number} in row {row}\n.*1 to 102")


@pytest.mark.parametrize("number", [0, 8])
def test_a_flower_that_has_no_label_is_named(tmp_path, number):
    folder = made.make_flowers(tmp_path)
    savemat(folder / "setid.mat", {"trnid": [[1, number]], "valid": [[3]], "tstid": [[5]]})
    refuses("flowers", folder, rf"setid.mat\n.*image {number} in trnid\n.*1 to 7")


@pytest.mark.parametrize("labels", [[[1.5, 2]], [[np.nan, 2]], np.array([["a", "b"]], dtype=object)])
def test_flower_labels_that_are_no_whole_numbers_are_named(tmp_path, labels):
    folder = made.make_flowers(tmp_path)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    refuses("flowers", folder, r"imagelabels.mat\n[\s\S]*whole numbers")


def test_flower_labels_may_be_stored_as_fractions(tmp_path):
    folder = made.make_flowers(tmp_path, np.array(made.FLOWERS, dtype=float))
    assert read_layout(load_card("flowers"), folder).labels.tolist()[4] == 101


@pytest.mark.parametrize("content", [b"", HTML.encode() * 20])
@pytest.mark.parametrize("listing", ["imagelabels.mat", "setid.mat"])
def test_lists_that_are_no_mat_files_are_named(tmp_path, listing, content):
    folder = made.make_flowers(tmp_path)
    (folder / listing).write_bytes(content)
    refuses("flowers", folder, rf"{listing}\n.*not a readable .mat file")


def test_an_image_in_two_splits_is_refused(tmp_path):
    folder = made.make_flowers(tmp_path)
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3]], "tstid": [[2, 5]]})
    card = load_card("flowers")
    with pytest.raises(UserError, match=r"image_00002.jpg twice"):
        check_table(read_layout(card, folder), card, allow_partial=True)


@pytest.mark.parametrize("number", [0, 197])
@pytest.mark.parametrize("listing", ["devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"])
def test_a_car_class_out_of_range_is_named(tmp_path, listing, number):
    folder = made.make_cars(tmp_path)
    made.write_annotations(folder / listing, [1, number])
    refuses("cars", folder, rf"{listing}\n.*class {number} in row 2\n.*1 to 196")


def test_the_cars_test_list_without_labels_is_recognised(tmp_path):
    folder = made.make_cars(tmp_path)
    (folder / "devkit" / "cars_test_annos.mat").rename(folder / "cars_test_annos_withlabels.mat")
    refuses("cars", folder, r"withlabels.mat\n[\s\S]*the devkit's cars_test_annos.mat has none")


def test_cars_lists_of_other_things_are_named(tmp_path):
    folder = made.make_cars(tmp_path)
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": [[1, 2]]})
    refuses("cars", folder, r"cars_train_annos.mat\n.*no named fields")
    savemat(folder / "devkit" / "cars_meta.mat", {"names": [[1, 2]]})
    refuses("cars", folder, r"cars_meta.mat\n.*class_names")


def test_cells_and_paths_that_are_none_of_the_creators_are_named(tmp_path):
    folder = made.make_cars(tmp_path)
    rows = np.empty((1, 1), dtype=[("class", object), ("fname", object)])
    listing = folder / "devkit" / "cars_train_annos.mat"
    for numbers, file, says in (([[1, 2]], "1.jpg", "one value a cell"), ([[1]], "../1.jpg", r"file names such as")):
        rows[0, 0] = (np.array(numbers), file)
        savemat(listing, {"annotations": rows})
        refuses("cars", folder, rf"cars_train_annos.mat\n[\s\S]*{says}")


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed",)


BATCH = made.cifar_batch(2, b"labels", 10)


@pytest.mark.parametrize(
    "content",
    [
        Hostile(),
        {b"data": Hostile(), b"labels": []},
        {b"data": []},
        [1, 2],
        {b"data": [[0] * 3072], b"labels": [0]},
        {**BATCH, b"labels": 3},
        {**BATCH, b"labels": [0, 10]},
        {**BATCH, b"labels": [0, -1]},
        {**BATCH, b"labels": [0, "cat"]},
        {**BATCH, b"labels": [0]},
        {**BATCH, b"data": BATCH[b"data"][:, :100]},
        {**BATCH, b"data": BATCH[b"data"].astype(float)},
    ],
)
def test_files_that_are_no_cifar_batches_run_nothing_and_are_named(tmp_path, content, capsys):
    folder = made.make_cifar10(tmp_path)
    made.write_pickle(folder / "data_batch_1", content)
    refuses("cifar10", folder, r"data_batch_1\n.*not a CIFAR file")
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", HTML.encode(), pickle.dumps(BATCH)[:-200]])
def test_cut_and_exchanged_cifar_files_are_named(tmp_path, content):
    folder = made.make_cifar100(tmp_path)
    (folder / "test").write_bytes(content)
    refuses("cifar100", folder, r"cifar-100-python/test\n.*not a CIFAR file")


def test_cifar_class_names_of_another_set_are_named(tmp_path):
    folder = made.make_cifar10(tmp_path)
    made.write_pickle(folder / "batches.meta", {b"label_names": [b"zebra"] * 10})
    refuses("cifar10", folder, r"batches.meta\n.*not the card's: zebra")


@pytest.mark.parametrize(
    ("name", "taken", "missing"),
    [
        ("cifar10", ["data_batch_3"], "data_batch_3"),
        ("cifar100", ["meta", "test"], "test, meta"),
        ("flowers", ["setid.mat"], "setid.mat"),
        ("cars", ["cars_test_annos_withlabels.mat"], "cars_test_annos_withlabels.mat or devkit/"),
        ("aircraft", ["data/images_variant_val.txt"], "data/images_variant_val.txt"),
        ("pets", ["annotations/test.txt"], "annotations/test.txt"),
        ("food101", ["meta/test.json"], "meta/test.json or meta/test.txt"),
        ("birdsnap", ["species.txt", "images.txt"], "species.txt, images.txt or all-ims"),
    ],
)
def test_exactly_the_missing_files_are_named(tmp_path, name, taken, missing):
    folder = getattr(made, f"make_{name}")(tmp_path)
    for file in taken:
        (folder / file).unlink()
    with pytest.raises(NotThere) as error:
        read_layout(load_card(name), folder)
    assert f"given:    {folder}: {missing}" in str(error.value)
    assert load_card(name).what_to_put_where in str(error.value)


def test_a_set_without_words_of_its_own_says_where_its_files_go(tmp_path):
    with pytest.raises(NotThere, match=rf"put the original files into {tmp_path}, or set data.root"):
        read_layout(replace(load_card("pets"), what_to_put_where=""), tmp_path)


def test_aircraft_needs_its_variants_only_without_the_cards_classes(tmp_path):
    folder, card = made.make_aircraft(tmp_path), load_card("aircraft")
    (folder / "data" / "variants.txt").unlink()
    assert len(read_layout(card, folder).ids) == 7
    with pytest.raises(NotThere, match=r"variants.txt not there"):
        read_layout(replace(card, classes=[]), folder)
