"""`workbench data` as it is typed, and scores without leaked test images."""

import json
import shutil
import sys

import pytest
from conftest import TINY_RECIPE, fill_in, paint
from original_layouts import make_pets

from workbench import evaluate, fit, load_recipe
from workbench.cli import app
from workbench.specs.errors import UserError


@pytest.fixture
def typed(monkeypatch, capsys):
    """Return a function that runs a command in this process: (exit code, output, errors)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, words)])
        try:
            app.main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def photos(tmp_path):
    """Twelve train and four test pictures of two classes, all different."""
    for hue, name in enumerate(("red", "blue")):
        for i in range(6):
            paint(tmp_path / "photos" / "train" / name / f"{i}.png", hue, 10 * hue + i, (240, 230))
        for i in range(2):
            paint(tmp_path / "photos" / "test" / name / f"{i}.png", hue, 100 + 10 * hue + i, (240, 230))
    return tmp_path / "photos"


def test_prepare_prints_the_folder_and_says_what_it_holds(typed, tmp_path):
    make_pets(tmp_path)
    code, out, err = typed("data", "prepare", "pets", f"data.root={tmp_path}")
    assert code == 0
    assert out == f"{tmp_path}/prepared/pets\n"
    assert f"from original files in {tmp_path}/oxford-iiit-pet" in err
    assert "37 classes" in err


def test_list_says_what_is_prepared(typed, tmp_path):
    make_pets(tmp_path)
    typed("data", "prepare", "pets", f"data.root={tmp_path}")
    code, out, _ = typed("data", "list", "--json", f"data.root={tmp_path}")
    rows = {row["dataset"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["pets"]["prepared"] > 0
    assert rows["cars"]["prepared"] is None
    assert rows["cars"]["sources"] == "original, hub"
    names = {"cifar10", "cifar100", "birdsnap", "cars", "flowers", "aircraft", "pets", "food101", "imagenet"}
    assert names <= set(rows)
    assert "original, torchvision, hub" in typed("data", "list")[1]


def test_doctor_exits_0_for_a_sound_set_and_writes_its_page(typed, photos):
    code, out, _ = typed("data", "doctor", "folder", f"data.path={photos}")
    assert code == 0
    assert "nothing that can make a figure wrong" in out
    page = out.splitlines()[-1]
    assert page.endswith("doctor.html")
    assert "Your own image folder, examined" in open(page).read()


def test_doctor_exits_3_and_names_what_is_wrong(typed, photos, tmp_path):
    shutil.copy(photos / "train" / "red" / "0.png", photos / "test" / "blue" / "9.png")
    page = tmp_path / "page.html"
    words = ["data", "doctor", "folder", f"data.path={photos}", "--json", "--page", page, "--resolution", 400]
    code, out, _ = typed(*words)
    found = {finding["kind"]: finding for finding in json.loads(out)["findings"]}
    assert code == 3
    assert found["exact_across"]["ids"] == [["train/red/0.png", "test/blue/9.png"]]
    assert found["conflict_exact"]["severity"] == "wrong"
    assert found["small"]["count"] == 17
    assert "test/blue/9.png" in page.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "petz"], "did you mean 'pets'?"),
        (["prepare", "pets", "optim.lr=1"], "leave out what is not about the dataset"),
        (["prepare", "pets", "data.rooot=x"], "did you mean 'data.root'?"),
        (["prepare", "hub"], "add data.hub.id=OWNER/NAME"),
        (["prepare", "folder", "data.path=nowhere"], "no such file or folder"),
        (["prepare", "pets", "data.download=false", "data.root=nowhere"], "not tried, as data.download=false"),
        (["doctor", "folder", "data.path=."], "fill the folder"),
    ],
)
def test_mistakes_exit_2_and_teach(typed, words, says):
    code, _, err = typed("data", *words)
    assert code == 2
    assert says in err
    assert "do this:" in err


def test_a_page_that_cannot_be_written_is_said(typed, photos):
    code, _, err = typed("data", "doctor", "folder", f"data.path={photos}", "--page", "no/such/page.html")
    assert code == 2
    assert "no/such" in err


def test_scores_are_given_without_test_images_that_were_trained_on(typed, photos, tmp_path):
    shutil.copy(photos / "train" / "red" / "0.png", photos / "test" / "red" / "leaked.png")
    recipe = tmp_path / "leaky.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, photos, tmp_path))
    overrides = ["data.train_on=train+selection", "train.total_epochs=1", "data.batch_size=6"]
    outcome = fit(load_recipe(str(recipe), overrides).recipe)
    found = evaluate(outcome.folder, without_leaks=True)
    assert found["leaked"] == ["test/red/leaked.png"]
    assert found["scores"]["n"] == 5
    assert found["scores_without_leaks"]["n"] == 4
    code, out, _ = typed("evaluate", outcome.folder, "--without-leaks")
    assert code == 0
    assert "without 1 leaked" in out


def test_dropped_images_are_listed_and_counted_in_the_run(photos, tmp_path):
    victim = photos / "train" / "red" / "3.png"
    victim.write_bytes(victim.read_bytes()[:200])
    recipe = tmp_path / "drop.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, photos, tmp_path))
    overrides = ["data.on_bad_image=drop", "train.total_epochs=1", "data.batch_size=6"]
    outcome = fit(load_recipe(str(recipe), overrides).recipe)
    splits = json.loads((outcome.folder / "splits.json").read_text())
    assert splits["dropped"] == ["train/red/3.png"]
    assert outcome.result["dropped"] == 1
    assert "dropped: 1 train images that do not decode" in outcome.result["stamps"]
    assert outcome.result["source"] == f"files in {photos}"


def test_a_plan_counts_a_set_without_preparing_it(typed, photos, tmp_path):
    recipe = tmp_path / "planned.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, photos, tmp_path).replace(str(photos.parent), str(tmp_path / "sets")))
    recipe.write_text(recipe.read_text().replace(f"path: {tmp_path / 'sets'}/photos", f"path: {photos}"))
    code, out, _ = typed("fit", "--recipe", recipe, "--plan", "data.batch_size=4")
    assert code == 0
    assert "8 training images as found on disk" in out
    assert not (tmp_path / "sets").exists()


def test_a_run_whose_labels_changed_is_not_scored(photos, tmp_path):
    rows = [
        f"{split}/{name}/{i}.png,{name},{split}"
        for split, n in (("train", 6), ("test", 2))
        for name in ("red", "blue")
        for i in range(n)
    ]
    listing = photos / "list.csv"
    listing.write_text("\n".join(["path,label,split", *rows]))
    recipe = tmp_path / "listed.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, photos, tmp_path))
    overrides = ["data.card=csv", f"data.path={listing}", "train.total_epochs=1", "data.batch_size=6"]
    outcome = fit(load_recipe(str(recipe), overrides).recipe)
    assert evaluate(outcome.folder)["scores"]["n"] == 4
    listing.write_text(
        "\n".join(
            [
                "path,label,split",
                *(row.replace(",red", ",x").replace(",blue", ",red").replace(",x", ",blue") for row in rows),
            ]
        )
    )
    with pytest.raises(UserError, match="other labels than this run had"):
        evaluate(outcome.folder)


def test_leaks_are_not_looked_for_where_that_means_nothing(photos, tmp_path, finished_run):
    with pytest.raises(UserError, match="another set than the run's own"):
        evaluate(finished_run.folder, "test", [f"data.path={photos}"], without_leaks=True)


def test_a_test_split_of_leaks_alone_has_no_score(photos, tmp_path):
    shutil.rmtree(photos / "test")
    for name in ("red", "blue"):
        for i in range(2):
            (photos / "test" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / "train" / name / f"{i}.png", photos / "test" / name)
    recipe = tmp_path / "leaky.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, photos, tmp_path))
    overrides = ["data.train_on=train+selection", "train.total_epochs=1", "data.batch_size=6"]
    found = evaluate(fit(load_recipe(str(recipe), overrides).recipe).folder, without_leaks=True)
    assert len(found["leaked"]) == 4
    assert found["scores_without_leaks"] is None
