"""`predict`: every way to name pictures, three formats, what cannot be read, views, and temperatures."""

import csv
import io
import json
import os
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import paint
from safetensors.numpy import load_file
from scipy.special import softmax
from torchvision.transforms.v2 import functional

from workbench.cli import predict_verb
from workbench.cli.answer_lines import LINES, write_answers
from workbench.cli.app import app
from workbench.data.images import load_image
from workbench.data.transforms import normalise
from workbench.data.views import VIEWS, view_transform
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing
from workbench.training import answers, calibration
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.picture_paths import Wanted, wanted_pictures


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "plain"
    torch.manual_seed(0)
    sizes = {"resize": 40, "crop": 32}
    made = EfficientNetClassifier("tiny", 4, classes=["ape", "bee", "=cat", "dog"], preprocessing=sizes)
    norms = [module for module in made.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    made.net.train()(torch.randn(16, 3, 32, 32))  # else an untrained network says the same of every picture
    torch.nn.init.normal_(made.net.classifier[-1].weight, std=0.3)
    made.save(folder)
    return folder


@pytest.fixture
def calibrated(model, tmp_path):
    made = EfficientNetClassifier.load(model)
    made.calibration = {"temperature": 0.5, "split": "selection", "n": 200}
    made.save(tmp_path / "calibrated")
    return tmp_path / "calibrated"


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(("b.png", "a.png", "deep/er/c.PNG", "deep/z.jpg")):
        paint(tmp_path / "photos" / name, number, number, size=(60, 48))
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


def predict(*words, stdin=None, code=0):
    done = CliRunner().invoke(app, ["predict", *map(str, words)], input=stdin)
    if isinstance(done.exception, UserError):
        assert code == 2, done.exception
        return str(done.exception)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def csv_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def paths_of(*words, stdin=b""):
    return [wanted.name for wanted in wanted_pictures([str(word) for word in words], io.BytesIO(stdin))]


def test_every_way_to_name_pictures_keeps_the_order(model, photos, tmp_path):
    in_order = [str(photos / name) for name in ("a.png", "b.png", "deep/er/c.PNG", "deep/z.jpg")]
    assert paths_of(photos) == in_order
    assert paths_of(photos / "b.png", photos, photos / "a.png") == [in_order[1], *in_order, in_order[0]]
    assert paths_of(f"{photos}/*.png") == in_order[:2]
    assert paths_of(f"{photos}/**/*.[pP][nN][gG]") == in_order[:3]
    lines = f"{in_order[1]}\r\n\n{photos}/deep\n{in_order[0]}".encode()
    assert paths_of("-", stdin=lines) == [in_order[1], *in_order[2:], in_order[0]]
    rows = csv_of(predict(model, "-", "--format", "csv", "--top", "1", stdin=lines).stdout)
    assert [row["path"] for row in rows] == [in_order[1], *in_order[2:], in_order[0]]
    odd = photos / "[1]*.png"  # a file that is named like a pattern is itself
    os.link(in_order[0], odd)
    assert paths_of(odd) == [str(odd)]


def test_a_list_keeps_its_other_columns_and_counts_from_its_folder(model, photos, tmp_path, monkeypatch):
    listed = photos / "list.CSV"
    listed.write_text("\ufeffwho,path,class,rank\nme,deep/z.jpg,dog,'=1+1\nyou,a.png\n", encoding="utf-8")
    rows = csv_of(predict(model, listed, photos / "b.png", "--format", "csv", "--top", "1").stdout)
    assert [row["path"] for row in rows] == ["deep/z.jpg", "a.png", str(photos / "b.png")]
    assert [row["who"] for row in rows] == ["me", "you", ""]
    assert [row["given_class"] for row in rows] == ["dog", "", ""]
    assert rows[0]["given_rank"] == "'=1+1", "defused again"
    assert list(rows[0]) == ["path", "rank", "class", "probability", "calibrated", "who", "given_class", "given_rank"]
    lines = [json.loads(line) for line in predict(model, listed, "--format", "jsonl").stdout.splitlines()]
    assert lines[0]["given"] == {"who": "me", "class": "dog", "rank": "=1+1"}
    monkeypatch.chdir(photos)
    written = tmp_path / "answers.csv"
    predict(model, "deep/z.jpg", "--out", written, "--top", "1")
    (again,) = wanted_pictures([str(written)], io.BytesIO())
    assert (again.name, again.path.resolve()) == ("deep/z.jpg", photos / "deep/z.jpg"), "its own answers name pictures"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "column `path` or `image`"),
        (b"file\na.png\n", "the header 'file'"),
        (b"path;label\na.png;x\n", "separated by commas"),
        (b"path,path\na,b\n", "the column 'path' twice"),
        (b"path\na,b\n", "list.csv:2"),
        (b"path,x\n,b\n", "no path"),
        (b"path\n", "no lines below the header"),
        (b"path\n\xff\xfe\n", "not a CSV file in UTF-8"),
    ],
)
def test_lists_that_are_none_are_told(model, tmp_path, content, said):
    (tmp_path / "list.csv").write_bytes(content)
    text = predict(model, tmp_path / "list.csv", code=2)
    assert said in text
    assert "list.csv" in text


def test_words_that_mean_no_picture_are_told_all_at_once(model, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "empty", "none/*.jpg", "nowhere.csv", "-", "/dev/zero", photos]
    text = predict(model, *words, stdin=b"\n", code=2)
    for said in (
        "empty: no picture in this folder",
        "none/*.jpg: no file is named so",
        "nowhere.csv\n  given:    No such file",
        "nothing on standard input",
        "/dev/zero\n  given:    a device",
    ):
        assert said in text, said
    assert "photos" not in text


@pytest.mark.parametrize("form", predict_verb.FORMATS)
def test_what_cannot_be_read_is_listed_at_the_end_and_the_rest_answered(model, photos, tmp_path, form):
    (photos / "aa.jpg").write_bytes(b"no picture \x1b[2J")
    whole = (photos / "a.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    words = [photos / "gone.jpg", photos, "--batch", "2", "--top", "1"]
    done = predict(model, *words, "--format", form, code=3)
    answered = [name for name in ("a.png", "b.png", "c.PNG", "z.jpg") if name in done.stdout]
    assert answered == ["a.png", "b.png", "c.PNG", "z.jpg"]
    assert not re.search(r"aa\.jpg|half\.png|gone\.jpg", done.stdout)
    assert "3 of 7 pictures could not be read, and have no answer:" in done.stderr
    told = done.stderr.split("answer:\n")[1].splitlines()
    assert [re.search(r"(\w+\.\w+):", line)[1] for line in told] == ["gone.jpg", "aa.jpg", "half.png"]
    assert "no JPEG, PNG" in told[1]
    if form != "table":
        out = tmp_path / f"answers.{form}"
        assert predict(model, *words, "--out", out, code=3).stdout == f"{out}\n"
        assert out.read_text() == done.stdout


def test_nothing_readable_still_says_so(model, tmp_path):
    done = predict(model, tmp_path / "x.jpg", "--format", "csv", code=3)
    assert done.stdout == "path,rank,class,probability,calibrated\n"
    assert "1 of 1 pictures" in done.stderr
    assert predict(model, tmp_path / "x.jpg", code=3).stdout == ""


def test_the_three_formats_say_the_same(model, photos):
    rows = csv_of(predict(model, photos, "--format", "csv", "--top", "2").stdout)
    lines = [json.loads(line) for line in predict(model, photos, "--format", "jsonl", "--top", "2").stdout.splitlines()]
    table = predict(model, photos, "--top", "2").stdout.splitlines()
    assert len(rows) == len(table) == 2 * len(lines) == 8
    assert len({row["probability"] for row in rows}) == 8
    told = [(line["path"], answer) for line in lines for answer in line["answers"]]
    for number, (row, (path, answer), shown) in enumerate(zip(rows, told, table, strict=True)):
        assert row["path"] == path
        assert row["rank"] == str(number % 2 + 1)
        assert float(row["probability"]) == answer["probability"]
        assert row["class"].removeprefix("'") == answer["class"]
        assert shown.endswith(f"{100 * answer['probability']:6.2f} %  {answer['class']}")
        assert shown.startswith(path) == (number % 2 == 0)
    assert {line["calibrated"] for line in lines} == {False}
    assert set(predict_verb.FORMATS) == set(LINES)
    assert set(predict_verb.VIEWS) == set(VIEWS)


def test_names_of_files_and_classes_cannot_act_on_a_terminal(photos, capsys):
    made = EfficientNetClassifier("tiny", 2, classes=["a", "c"], preprocessing={"resize": 40, "crop": 32})
    made.classes = ("a\x1b[2J", "c")
    odd = photos / "x\x1b[2J\n.png"
    os.link(photos / "a.png", odd)
    batch = [([0], torch.tensor([[0.9, 0.1]]), torch.tensor([[0, 1]]))]
    for form, lines in LINES.items():
        text = "".join(text for _, text in lines([Wanted(odd, str(odd))], made, batch))
        write_answers(iter([(0, text)]), None, 1)
        printed = capsys.readouterr().out
        assert "\x1b" not in printed, form
        assert "\\x1b" in printed or "\\u001b" in printed


def by_hand(classifier, file, views, temperature=1.0):
    """Return the mean over views of softmax(logits / T), written out."""
    made = classifier.preprocessing
    image = functional.resize(load_image(file), [made.resize], antialias=True, interpolation=3)
    crop, (height, width) = made.crop, image.shape[1:]
    places = [((height - crop) // 2, (width - crop) // 2)]
    places += [(0, 0), (0, width - crop), (height - crop, 0), (height - crop, width - crop)]
    crops = [image[:, y : y + crop, x : x + crop] for y, x in places]
    crops = {"none": crops[:1], "flip": [crops[0], crops[0].flip(2)], "five-crop": crops}.get(views) or [
        *crops,
        *(c.flip(2) for c in crops),
    ]
    with torch.inference_mode():
        logits = torch.cat([classifier(normalise(c[None], made)) for c in crops]).numpy()
    return softmax(logits.astype(np.float64) / temperature, axis=1).mean(0)


@pytest.mark.parametrize("views", predict_verb.VIEWS)
def test_views_are_averaged(model, calibrated, photos, views):
    files = [photos / "deep/z.jpg", photos / "a.png", photos / "b.png"]
    for folder, temperature in ((model, 1.0), (calibrated, 0.5)):
        classifier = EfficientNetClassifier.load(folder)
        found = list(answers.answered_batches(classifier, files, 4, views=views))
        assert [place for places, _, _ in found for place in places] == [0, 1, 2]
        shares = torch.cat([values.gather(1, order.argsort(1)) for _, values, order in found])
        expected = np.stack([by_hand(classifier, file, views, temperature) for file in files])
        np.testing.assert_allclose(shares.numpy(), expected, atol=2e-5)
        assert np.ptp(expected, axis=0).max() > 0.05, "the pictures are told apart"


def test_the_verb_takes_views(model, photos):
    words = [model, photos / "a.png", "--format", "csv", "--top", "1"]
    plain, flipped = (csv_of(predict(*words, "--tta", views).stdout)[0] for views in ("none", "ten-crop"))
    assert plain["probability"] != flipped["probability"]
    assert float(flipped["probability"]) == pytest.approx(
        by_hand(EfficientNetClassifier.load(model), photos / "a.png", "ten-crop").max(), abs=2e-5
    )


def test_crops_that_do_not_exist_are_refused():
    for made in (Preprocessing(32, 32, squash=True), Preprocessing(24, 32)):
        with pytest.raises(UserError, match="larger than its crop"):
            view_transform(made, "ten-crop")
        assert view_transform(made, "flip")(torch.zeros(3, 50, 40, dtype=torch.uint8)).shape == (2, 3, 32, 32)


def test_calibrated_answers_say_so_and_raw_ones_do_not(calibrated, model, photos):
    done = predict(calibrated, photos, "--format", "csv", "--top", "1")
    assert "temperature 0.5, fitted on 200 selection images; --raw leaves it out" in done.stderr
    assert {row["calibrated"] for row in csv_of(done.stdout)} == {"yes"}
    raw = predict(calibrated, photos, "--format", "csv", "--top", "1", "--raw")
    assert "temperature" not in raw.stderr
    assert raw.stdout == predict(model, photos, "--format", "csv", "--top", "1").stdout
    files = sorted(photos.glob("*.png"))
    loaded = EfficientNetClassifier.load(calibrated)
    by_python = [max(answer.values()) for answer in loaded.predict(files)]
    by_verb = [float(row["probability"]) for row in csv_of(done.stdout)[:2]]
    assert by_python == pytest.approx(by_verb, abs=2e-6)


def test_a_temperature_belongs_to_the_weights_it_was_fitted_with(calibrated, tmp_path):
    loaded = EfficientNetClassifier.load(calibrated)
    assert loaded.calibration["n"] == 200
    loaded.replace_head(torch.nn.Linear(loaded.net.num_features, 4))
    assert loaded.calibration is None
    described = json.loads((calibrated / "model.json").read_text())
    for odd in ({"temperature": 0, "n": 9}, {"temperature": "1", "n": 9}, {"temperature": 1.0}, [1], {"n": 1}):
        (calibrated / "model.json").write_text(json.dumps({**described, "calibration": odd}))
        with pytest.raises(UserError, match="not a temperature of a number of images"):
            EfficientNetClassifier.load(calibrated)


def test_the_temperature_is_that_of_least_loss_and_only_where_it_can_be_known():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 5)) * 2
    targets = np.array([rng.choice(5, p=p) for p in softmax(truth, axis=1)])
    found = calibration.calibration_of((3.0 * truth).astype(np.float32), targets)
    assert found["temperature"] == pytest.approx(3.0, rel=0.1)
    assert found["n"] == 4000
    assert found["loss_after"] < found["loss"]
    assert found["ece_after"] < 0.03 < found["ece"]
    few = calibration.LEAST_IMAGES
    assert calibration.calibration_of(truth[:few], targets[:few]) is not None
    assert calibration.calibration_of(truth[: few - 1], targets[: few - 1]) is None
    assert calibration.calibration_of(truth, truth.argmax(1)) is None, "always right: no end to the confidence"
    assert calibration.calibration_of(np.full_like(truth, np.nan), targets) is None
    assert calibration.calibration_of(truth, np.eye(5)[targets]) is None, "several labels an image"


def test_a_fit_keeps_the_temperature_of_its_selection_and_no_score_changes(tiny_recipe, folder_set, monkeypatch):
    from workbench import fit, load_recipe

    monkeypatch.setattr(calibration, "LEAST_IMAGES", 10)
    monkeypatch.setattr(calibration, "is_at_an_end", lambda temperature: False)
    done = fit(load_recipe(str(tiny_recipe), ["train.total_epochs=1"]).recipe)
    kept = json.loads((done.folder / "model.json").read_text())["calibration"]
    logits = load_file(done.folder / "logits.safetensors")
    assert kept["n"] == len(logits["selection_targets"]) == done.result["selection"]["n"]
    assert kept["temperature"] == calibration.fit_temperature(
        logits["selection"].astype(float), logits["selection_targets"]
    )
    assert kept["loss"] == pytest.approx(done.result["selection"]["loss"], abs=1e-6)
    confidences = [float(row["confidence"]) for row in csv_of((done.folder / "predictions.csv").read_text())]
    assert confidences == pytest.approx(softmax(logits["test"].astype(float), axis=1).max(1), abs=1e-6)
    shown = csv_of(predict(done.folder, folder_set / "test", "--format", "csv", "--top", "1").stdout)
    scaled = softmax(logits["test"].astype(float) / kept["temperature"], axis=1).max(1)
    assert sorted(float(row["probability"]) for row in shown) == pytest.approx(sorted(scaled), abs=1e-4)
