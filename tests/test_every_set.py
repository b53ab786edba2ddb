"""Each of the nine sets from its original files to batches, and a list of one's own, through the public datamodules."""

import original_layouts
import pytest
import torch
from conftest import paint

import workbench
from workbench import CSVDataModule, EfficientNetClassifier, fit, load_recipe
from workbench.specs.errors import UserError

SETS = {
    "CIFAR10DataModule": original_layouts.make_cifar10,
    "CIFAR100DataModule": original_layouts.make_cifar100,
    "BirdsnapDataModule": original_layouts.make_birdsnap,
    "StanfordCarsDataModule": original_layouts.make_cars,
    "Flowers102DataModule": original_layouts.make_flowers,
    "AircraftDataModule": original_layouts.make_aircraft,
    "PetsDataModule": original_layouts.make_pets,
    "Food101DataModule": original_layouts.make_food101,
    "ImageNetDataModule": original_layouts.make_imagenet,
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_in_its_original_format_becomes_batches(tmp_path, name):
    SETS[name](tmp_path)
    module = getattr(workbench, name)
    with pytest.raises(UserError, match="data.allow_partial=true"):
        module(tmp_path, download=False).setup()
    data = module(tmp_path, download=False, allow_partial=True, resolution=32, batch_size=2, holdout_fraction=0.2)
    data.setup()
    assert any(stamp.startswith("partial: ") for stamp in data.table.stamps)
    assert data.num_classes == data.card.num_classes
    seen = []
    for split in ("train", "test"):
        for images, targets, rows in (batch[:3] for batch in data.eval_dataloader(split)):
            assert images.shape[1:] == (3, 32, 32)
            assert targets.tolist() == data.table.labels[rows.numpy()].tolist()
            seen += rows.tolist()
        assert len(data.rows(split)) > 0
    selection = data.rows("selection").tolist()
    assert not set(selection) & set(seen)
    assert sorted(seen + selection) == list(range(len(data.table.ids)))
    images, targets = next(iter(data.train_dataloader()))[:2]
    assert images.dtype == torch.uint8
    assert targets.dtype == torch.int64


@pytest.fixture
def pictures(tmp_path):
    for hue, name in enumerate(("red", "green")):
        for i in range(8):
            paint(tmp_path / "photos" / f"{name}{i}.png", hue, i)
    return tmp_path / "photos"


def write_list(folder, lines, header="path,label,split"):
    path = folder / "list.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_list_with_splits_is_read_as_it_is_written(pictures):
    splits = ["train"] * 5 + ["val"] + ["test"] * 2
    lines = [f"{name}{i}.png,{name.upper()} one,{splits[i]}" for name in ("red", "green") for i in range(8)]
    data = CSVDataModule(path=write_list(pictures, lines))
    assert data.classes == ("GREEN one", "RED one")
    assert {split: len(data.rows(split)) for split in ("train", "selection", "test")} == {
        "train": 10,
        "selection": 2,
        "test": 4,
    }
    assert data.table.images[0] == pictures / "red0.png"


def test_a_list_without_splits_gets_held_out_ones_that_do_not_depend_on_its_order(pictures):
    lines = [f"{name}{i}.png,{name}" for name in ("red", "green") for i in range(8)]
    chosen = []
    for order in (lines, lines[::-1]):
        data = CSVDataModule(path=write_list(pictures, order, "path,label"))
        chosen.append({split: {data.table.ids[row] for row in data.rows(split)} for split in ("selection", "test")})
        assert any("test held out of train by hash" in stamp for stamp in data.table.stamps)
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    ("header", "lines", "says"),
    [
        ("path,label", ["red0.png,red", "gone.png,red"], "list.csv:3"),
        ("path,label", ["red0.png,red", "gone.png,red"], "gone.png: no such file"),
        ("path,label", ["red0.png,red", "red0.png,green"], "red0.png, as in line 2"),
        ("path,label", ["red0.png,", "red1.png,green"], "no label"),
        ("path,label", [",red", "red1.png,green"], "no path"),
        ("path,label,split", ["red0.png,red,holdout"], "train, val, test or empty"),
        ("file;label", ["red0.png;red"], "separated by commas"),
        ("file,label", ["red0.png,red"], "a header `path,label`"),
        ("path,label", [], "no lines below the header"),
        ("path,label", [f"{i}.png,red" for i in range(30)], "20 more lines like these"),
        ("path,label", ['"red0.png,red'], "not a CSV file"),
    ],
)
def test_mistakes_in_a_list_are_named_with_their_lines(pictures, header, lines, says):
    with pytest.raises(UserError) as error:
        CSVDataModule(path=write_list(pictures, lines, header)).setup()
    assert says in str(error.value)


def test_a_list_in_another_encoding_is_refused(pictures):
    path = pictures / "list.csv"
    path.write_bytes("path,label\nred0.png,r\xf6t\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        CSVDataModule(path=path).setup()


RECIPE = """
data: {card: csv, path: LIST, label_separator: "|", batch_size: 4, resolution: 32, eval_resize: 32, num_workers: 0,
  holdout_fraction: 0.25}
model: {arch: tiny}
optim: {name: adamw, lr: 0.003}
train: {total_epochs: 2, device: cpu}
track: {wandb: off}
"""


def test_several_labels_an_image_train_and_score_from_a_list(pictures, tmp_path):
    lines = [
        f"{name}{i}.png,{'|'.join([name, *(['even'] if i % 2 == 0 else [])])}"
        for name in ("red", "green")
        for i in range(8)
    ]
    (tmp_path / "r.yaml").write_text(RECIPE.replace("LIST", str(write_list(pictures, lines, "path,label"))))
    outcome = fit(load_recipe(str(tmp_path / "r.yaml")).recipe)
    assert outcome.result["metric"] == "mean_average_precision"
    assert 0 < outcome.result["test"]["mean_average_precision"] <= 1
    header = (outcome.folder / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,has even,has green,has red,probability of even,probability of green,probability of red"
    model = EfficientNetClassifier.load(outcome.folder)
    answer = model.predict([pictures / "red0.png"])[0]
    assert set(answer) == {"even", "green", "red"}
    assert sum(answer.values()) != pytest.approx(1, abs=1e-6)
    assert workbench.evaluate(outcome.folder)["scores"]["n"] == outcome.result["test"]["n"]


@pytest.mark.parametrize(
    ("header", "lines", "says"),
    [
        ("path,label", ["red0.png,red", "./red0.png,green"], "./red0.png, as in line 2"),
        ("path,label", ["red0.png,red, scarlet"], "more cells than the header"),
        ("path,label,label", ["red0.png,red,green"], "the column label twice"),
        ("path,label", ['red0.png,"re\nd"'], "a name in one line"),
    ],
)
def test_a_list_that_says_more_than_it_seems_is_refused(pictures, header, lines, says):
    with pytest.raises(UserError) as error:
        CSVDataModule(path=write_list(pictures, lines, header)).setup()
    assert says in str(error.value)


def test_labels_that_differ_in_signs_only_are_classes_of_their_own(pictures):
    names = ["C", "C++", "c", "-1", "1"]
    lines = [f"{kind}{i}.png,{names[(4 * n + i) % 5]}" for n, kind in enumerate(("red", "green")) for i in range(8)]
    assert CSVDataModule(path=write_list(pictures, lines, "path,label")).classes == tuple(sorted(names))
