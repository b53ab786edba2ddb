"""Small sets in the creators' original formats, with true class names: `make_*(root)` returns the set's folder.

Each has its card's folder name, so that `data.root=root` finds it. Pictures are tiny, and few classes have any.
"""

import hashlib
import json
import pickle

import numpy as np
from conftest import paint
from PIL import Image
from scipy.io import savemat

from workbench.card_files import load_card

BIRDS = {1: ("Cooper's Hawk", "Coopers_Hawk"), 20: ("Snail Kite", "Snail_Kite"), 500: ("Blue-headed Vireo",) * 2}
DISHES = ("apple_pie", "cheese_plate", "cheesecake")
PLANES = {
    "train": ("707-320", "F-16A/B", "Boeing 717"),
    "val": ("F-16A/B", "707-320"),
    "test": ("Boeing 717", "F/A-18"),
}
CARS = {"train": (14, 1, 196, 1), "test": (196, 14)}
FLOWERS = (1, 2, 1, 2, 102, 1, 2)
"""Class of images 1 to 7, from 1."""


def make_cifar10(root, rows=4):
    folder = root / "cifar-10-batches-py"
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        write_pickle(folder / name, cifar_batch(rows, b"labels", 10))
    write_pickle(folder / "batches.meta", {b"label_names": [name.encode() for name in load_card("cifar10").classes]})
    return folder


def make_cifar100(root, rows=120):
    folder = root / "cifar-100-python"
    for name in ("train", "test"):
        batch = cifar_batch(rows, b"fine_labels", 100)
        write_pickle(folder / name, {**batch, b"coarse_labels": [i % 20 for i in range(rows)]})
    fine = [name.encode() for name in load_card("cifar100").classes]
    write_pickle(folder / "meta", {b"fine_label_names": fine, b"coarse_label_names": [b"fish"] * 20})
    return folder


def cifar_batch(rows, labels_key, classes):
    rng = np.random.default_rng(rows)
    return {b"data": rng.integers(0, 256, (rows, 3072), dtype=np.uint8), labels_key: [i % classes for i in range(rows)]}


def write_pickle(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=2))


def make_flowers(root, labels=FLOWERS):
    """Seven images: 1 and 2 train, 3 and 7 selection, 6, 5 and 4 test."""
    folder = root / "flowers-102"
    for number in range(1, 8):
        paint(folder / "jpg" / f"image_{number:05d}.jpg", FLOWERS[number - 1] % 3, number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    split_numbers = {"trnid": [[1, 2]], "valid": [[7, 3]], "tstid": [[6, 5, 4]]}
    savemat(folder / "setid.mat", {name: np.array(ids, dtype=np.uint16) for name, ids in split_numbers.items()})
    return folder


def make_cars(root, train=CARS["train"], test=CARS["test"]):
    """Classes count from 1; the labelled test list lies beside the devkit."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(load_card("cars").classes, dtype=object)[None]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    write_annotations(folder / "devkit" / "cars_train_annos.mat", train)
    write_annotations(folder / "devkit" / "cars_test_annos.mat", test, has_labels=False)
    write_annotations(folder / "cars_test_annos_withlabels.mat", test)
    for split, numbers in (("train", train), ("test", test)):
        for i, number in enumerate(numbers, 1):
            paint(folder / f"cars_{split}" / f"{i:05d}.jpg", number % 3, i)
    return folder


def write_annotations(path, numbers, has_labels=True):
    boxes = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    fields = (*boxes, *(("class",) if has_labels else ()), "fname")
    rows = np.empty((1, len(numbers)), dtype=[(name, object) for name in fields])
    for i, number in enumerate(numbers):
        values = [np.array([[v]], dtype=np.uint8) for v in (1, 1, 40, 36, *((number,) if has_labels else ()))]
        rows[0, i] = (*values, f"{i + 1:05d}.jpg")
    savemat(path, {"annotations": rows})


def make_aircraft(root):
    folder = root / "fgvc-aircraft-2013b"
    variants, number = load_card("aircraft").classes, 34309
    paint(folder / "data" / "images" / "0000001.jpg", 0, 1)  # in no list
    write_lines(folder / "data" / "variants.txt", variants)
    for split, planes in PLANES.items():
        lines = []
        for plane in planes:
            number += 1
            paint(folder / "data" / "images" / f"{number:07d}.jpg", variants.index(plane) % 3, number)
            lines.append(f"{number:07d} {plane}")
        write_lines(folder / "data" / f"images_variant_{split}.txt", lines)
    return folder


def make_pets(root):
    """Two of trainval and one of test per breed, the GIF and the PNG that are called .jpg, and one unlisted picture."""
    folder = root / "oxford-iiit-pet"
    breeds = {"Abyssinian": (1, 1, 1), "american_bulldog": (2, 2, 1), "yorkshire_terrier": (37, 2, 25)}
    lines = {"trainval": ["Abyssinian_34 1 1 1"], "test": ["Abyssinian_5 1 1 1"]}
    for breed, numbers in breeds.items():
        for i, split in enumerate(("trainval", "trainval", "test"), 100):
            paint(folder / "images" / f"{breed}_{i}.jpg", numbers[0] % 3, i)
            lines[split].append(" ".join(str(part) for part in (f"{breed}_{i}", *numbers)))
    paint(folder / "images" / "Bengal_105.jpg", 0, 105)
    Image.new("P", (40, 36), 3).save(folder / "images" / "Abyssinian_34.jpg", format="GIF")
    Image.new("RGBA", (40, 36), (200, 30, 30, 128)).save(folder / "images" / "Abyssinian_5.jpg", format="PNG")
    for split, listed in lines.items():
        write_lines(folder / "annotations" / f"{split}.txt", listed)
    return folder


def make_food101(root, listing="json"):
    """Three dishes of two train and one test each, one of them grey; the lists are json or txt."""
    folder = root / "food-101"
    names = {"train": {}, "test": {}}
    for hue, dish in enumerate(DISHES):
        for i, split in enumerate(("train", "train", "test")):
            name = f"{dish}/{1005649 + 10 * hue + i}"
            paint(folder / "images" / f"{name}.jpg", hue, 10 * hue + i)
            names[split].setdefault(dish, []).append(name)
    Image.new("L", (40, 36), 90).save(folder / "images" / f"{names['train']['apple_pie'][0]}.jpg")
    write_lines(folder / "meta" / "classes.txt", load_card("food101").classes)
    for split, listed in names.items():
        if listing == "json":
            (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        else:
            write_lines(folder / "meta" / f"{split}.txt", [name for group in listed.values() for name in group])
    return folder


def make_birdsnap(root, listing="images.txt"):
    """Three species of two train and one test each; all images are listed in `images.txt` or `all-ims`."""
    folder = root / "birdsnap"
    rows, tested = [], []
    for number, (_, place) in BIRDS.items():
        place = place.replace("-", "_").replace(" ", "_")
        for i in range(3):
            path = f"{place}/{number * 100 + i}.jpg"
            paint(folder / "images" / path, number % 3, number + i)
            md5 = hashlib.md5((folder / "images" / path).read_bytes()).hexdigest()
            rows.append(f"https://example.org/{i}.jpg\t{md5}\t{path}\t{number}\t1\t1\t40\t36\tnull\tnull")
            tested += [path] if i == 1 else []
    species = [
        f"{number}\t{name}\tGenus species\t{name.lower().replace(' ', '_').replace('-', '_').replace(chr(39), '')}"
        for number, name in enumerate(load_card("birdsnap").classes, 1)
    ]
    write_lines(folder / "species.txt", ["id\tcommon\tscientific\tdir", *species])
    write_lines(folder / "test_images.txt", ["path", *tested])
    if listing == "images.txt":
        header = "url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\tback_x\tback_y"
        write_lines(folder / "images.txt", [header, *rows])
    else:
        write_lines(folder / "all-ims", [row.split("\t")[2] for row in rows])
    return folder


def synset(label):
    """Return the made-up folder of a class; sorted, they are in the order of the labels."""
    return f"n{1_440_764 + 7 * label:08d}"


def make_imagenet(root, classes=1000):
    """One train image a class; three classes have an image in val."""
    folder = root / "imagenet"
    paint(folder / "picture.png", 1, 1)
    picture = folder / "picture.jpeg"
    Image.open(folder / "picture.png").save(picture)
    for label in range(classes):
        for split in ("train", "val"):
            (folder / split / synset(label)).mkdir(parents=True)
        (folder / "train" / synset(label) / f"{synset(label)}_1.JPEG").write_bytes(picture.read_bytes())
    for label in {0, 1, classes - 1}:
        (folder / "val" / synset(label) / f"ILSVRC2012_val_{label + 1:08d}.JPEG").write_bytes(picture.read_bytes())
    return folder


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
