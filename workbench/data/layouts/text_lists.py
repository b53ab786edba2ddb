"""Sets whose lists are text: FGVC Aircraft, Oxford-IIIT Pets, Food-101 and Birdsnap.

Each has two readers: `list_*` gives every image that the creators' lists name, `read_*` those of them that are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from workbench.data.layouts.official_files import (
    FETCH_AGAIN,
    in_card_order,
    labels_of,
    listed,
    only_there,
    read_columns,
    read_lines,
    require,
)
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

AIRCRAFT_LISTS = {
    TRAIN: "data/images_variant_train.txt",
    SELECTION: "data/images_variant_val.txt",
    TEST: "data/images_variant_test.txt",
}
VARIANTS = "data/variants.txt"
PETS_LISTS = {TRAIN: "annotations/trainval.txt", TEST: "annotations/test.txt"}
FOOD_LISTS = {TRAIN: "meta/train", TEST: "meta/test"}
FOOD_NAME = r"(\w+)/\w+"
BIRD_PATH = r"([^/\\]+)/[^/\\]+\.\w+"


def read_aircraft(card: DatasetCard, folder: Path) -> ImageTable:
    """Read FGVC Aircraft's variants: `data/images/` and the lists in `data/`."""
    lists = (*AIRCRAFT_LISTS.values(), *(() if card.classes else (VARIANTS,)))
    require(card, folder, ("data/images", *lists))
    return only_there(list_aircraft(card, folder))


def list_aircraft(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Aircraft name, there or not, in the lists' order."""
    classes = tuple(card.classes)
    if not classes:
        classes = tuple(name for _, (name,) in read_lines(folder / VARIANTS, "([^<>]+)", "a variant a line"))
    rows = []
    for split, listing in AIRCRAFT_LISTS.items():
        # A variant may hold blanks (Boeing 717), so only the first one ends the image's number.
        lines = list(read_lines(folder / listing, r"(\d+) (\S.*)", "an image number, a blank and a variant"))
        label_of = labels_of({name: place for place, (_, name) in reversed(lines)}, classes)
        rows += [(f"data/images/{number}.jpg", label_of[name], split) for _, (number, name) in lines]
    return listed(folder, rows, classes)


def read_pets(card: DatasetCard, folder: Path) -> ImageTable:
    """Read the Oxford-IIIT Pets: `images/`, `annotations/trainval.txt` and `annotations/test.txt`."""
    require(card, folder, ("images", *PETS_LISTS.values()))
    return only_there(list_pets(card, folder))


def list_pets(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Pets name, there or not, in the lists' order.

    The breed is the image's name without its number; the lists' class number, which counts from 1, must say the same.
    """
    allowed = "an image, its class number, its species and its breed number"
    lines = [
        (split, place, breed, image, int(number))
        for split, listing in PETS_LISTS.items()
        for place, (breed, image, number) in read_lines(folder / listing, r"(\w+)_(\d+) (\d+) \d+ \d+", allowed)
    ]
    number_of = {breed: number for _, _, breed, _, number in reversed(lines)}
    classes = tuple(card.classes) or tuple(sorted(number_of, key=lambda breed: (number_of[breed], breed)))
    label_of = labels_of({breed: place for _, place, breed, _, _ in reversed(lines)}, classes)
    if card.classes:
        number_of = {breed: label + 1 for breed, label in label_of.items()}
    for _, place, breed, image, number in lines:
        if number != number_of[breed]:
            given = f"class {number} for {breed}_{image}"
            raise UserError.of(place, given, f"{number_of[breed]}, the class of {breed}", FETCH_AGAIN)
    rows = [(f"images/{breed}_{image}.jpg", label_of[breed], split) for split, _, breed, image, _ in lines]
    return listed(folder, rows, classes)


def read_food(card: DatasetCard, folder: Path) -> ImageTable:
    """Read Food-101: `images/` and `meta/{train,test}.json`, or the same lists as `.txt`."""
    require(card, folder, ("images", *(f"{name}.json or {name}.txt" for name in FOOD_LISTS.values())))
    return only_there(list_food(card, folder))


def list_food(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Food-101 name, there or not, by name within each split."""
    rows, classes = [], tuple(card.classes)
    for split, listing in FOOD_LISTS.items():
        names = sorted(_food_names(folder / listing))
        place_of = {dish: place for _, dish, place in names}
        classes = classes or tuple(sorted(place_of))
        label_of = labels_of(place_of, classes)
        rows += [(f"images/{name}.jpg", label_of[dish], split) for name, dish, _ in names]
    return listed(folder, rows, classes)


def _food_names(listing: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name (`apple_pie/1005649`), dish and place of every line of a list."""
    allowed = "names such as apple_pie/1005649"
    path = listing.with_suffix(".json")
    if not path.exists():
        for place, (name, dish) in read_lines(listing.with_suffix(".txt"), f"({FOOD_NAME})", allowed):
            yield name, dish, place
        return
    try:
        names = [
            name for listed_names in json.loads(path.read_text(encoding="utf-8")).values() for name in listed_names
        ]
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError.of(path, error, f"JSON: dish -> {allowed}", FETCH_AGAIN) from error
    for name in names:
        if not (found := re.fullmatch(FOOD_NAME, str(name))):
            raise UserError.of(path, repr(name)[:80], allowed, FETCH_AGAIN)
        yield name, found[1], str(path)


def read_birdsnap(card: DatasetCard, folder: Path) -> ImageTable:
    """Read Birdsnap: `images/`, `species.txt`, `test_images.txt`, and all images in `images.txt` or `all-ims`."""
    require(card, folder, ("images", "species.txt", "test_images.txt", "images.txt or all-ims"))
    return only_there(list_birdsnap(card, folder))


def list_birdsnap(card: DatasetCard, folder: Path) -> ImageTable:
    """Return every image that the lists of Birdsnap name, there or not, in the lists' order.

    What is not a test image is train. `images.txt` gives species by number; `all-ims` has folders only, which are
    the species' `dir` in another case.
    """
    species = [fields for _, fields in read_columns(folder / "species.txt", "id", "common", "dir")]
    label_of, classes = in_card_order(card, [common for _, common, _ in species], folder / "species.txt")
    label_of_key = {key: label_of[common] for number, common, place in species for key in (number, place)}
    tested = {path for _, (path,) in read_columns(folder / "test_images.txt", "path")}
    rows = []
    for place, path, key in _bird_images(folder):
        if not re.fullmatch(BIRD_PATH, path):
            raise UserError.of(place, path[:80], "a path such as Coopers_Hawk/0561.jpg", FETCH_AGAIN)
        if key not in label_of_key:
            raise UserError.of(place, f"species {key}", f"one of the {len(species)} of species.txt", FETCH_AGAIN)
        rows.append((f"images/{path}", label_of_key[key], TEST if path in tested else TRAIN))
    return listed(folder, rows, classes)


def _bird_images(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield place, path, and the number or the folder of the species."""
    if (folder / "images.txt").exists():
        for place, (path, number) in read_columns(folder / "images.txt", "path", "species_id"):
            yield place, path, number
    else:
        for place, (path, species) in read_lines(
            folder / "all-ims", f"({BIRD_PATH})", "a path such as Coopers_Hawk/0561.jpg"
        ):
            yield place, path, species.lower()
