"""report.html: what it says is what the files say, and a person can use it: phone, dark, keyboard, no network."""

import base64
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from browser import browser
from PIL import Image
from run_folders import write_run
from safetensors.numpy import save_file

from workbench import fit, load_recipe
from workbench.specs.errors import UserError
from workbench.specs.published import published_for
from workbench.training import page_charts, page_classes, page_mistakes, run_page
from workbench.training.calibration import calibration_error
from workbench.training.cam_pictures import Look
from workbench.training.metrics_csv import MetricsCsv
from workbench.training.page_again import page_again
from workbench.training.page_classes import Outputs

MANY, PER_CLASS = 200, 10
HOSTILE = "</script><script>window.hit = 1</script><img src=http://127.0.0.1:9/x onerror='window.hit = 1'>"
MOST_BYTES = 3_000_000
READABLE = 4.5
"""Least contrast of text, WCAG 2.2, level AA."""


def outputs_of(targets, predicted, size, sure=4.0, names=None):
    logits = np.random.default_rng(0).normal(0, 0.3, (len(targets), size)).astype(np.float32)
    logits[np.arange(len(targets)), predicted] += sure + np.linspace(0, 4, len(targets), dtype=np.float32)
    names = names or tuple(f"class {i}" for i in range(size))
    return Outputs("test", names, tuple(f"{i}.jpg" for i in range(len(targets))), logits, np.asarray(targets))


def write_whole_run(folder, outputs, **result):
    """Write a finished run with all that a page is made from."""
    spent = {"epochs": 10.0, "images_per_second": 7.7, "seconds": 8000.0, "peak_memory_bytes": 2**31}
    published = dataclasses.asdict(published_for("flowers", "b5"))
    result = {"source": "a test", **spent, "published": published, **result}
    write_run(folder, arch="b5", result=result, steps=100)
    logger = MetricsCsv(folder / "metrics.csv", epoch_steps=10)
    for step in range(5, 101, 5):
        row = {"phase": int(step > 30), "train/loss": 5 / step, "train/lr": 0.01, "val/mean_per_class": step / 200}
        logger.log_metrics(row, step)
    (folder / "command.txt").write_text("workbench fit --recipe x <b>\n")
    (folder / "environment.json").write_text(json.dumps({"torch": "2", "git": {"commit": "0" * 40, "changed": True}}))
    told = {"counts": {"train": 5, "test": len(outputs.ids)}, "test": outputs.ids, "labels_sha256": "1" * 64}
    (folder / "splits.json").write_text(json.dumps(told))
    (folder / "model.json").write_text(json.dumps({"classes": outputs.classes, "sha256": "2" * 64}))
    save_file({"test": outputs.logits, "test_targets": outputs.targets}, folder / "logits.safetensors")
    return folder


@pytest.fixture(scope="module")
def many():
    """200 classes, of which class 3 is mostly taken for 150, and each 7th image for its neighbour; hostile names."""
    targets = np.repeat(np.arange(MANY), PER_CLASS)
    predicted = np.where(np.arange(len(targets)) % 7 == 0, (targets + 1) % MANY, targets)
    predicted[3 * PER_CLASS : 3 * PER_CLASS + 8] = 150
    names = tuple(HOSTILE if i == 3 else f"class {i:03d} of some length" for i in range(MANY))
    return outputs_of(targets, predicted, MANY, names=names)


@pytest.fixture(scope="module")
def big_page(many, tmp_path_factory):
    """The page of 200 classes with noise for pictures, which JPEG makes least of."""
    noise = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    seen = Look(noise, np.random.default_rng(2).random((224, 224), np.float32), "x", 0.5, "cam")
    folder = write_whole_run(tmp_path_factory.mktemp("many") / "run", many)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_mistakes, "look", lambda model, images: [seen])
        result = json.loads((folder / "result.json").read_text())
        text = run_page.render(folder, result, many, object(), {place: None for place in many.worst(20)})
    path = folder / "report.html"
    path.write_text(text)
    return path


def test_a_page_of_200_classes_is_small_and_names_nothing_outside(big_page):
    text = big_page.read_text()
    assert len(text) < MOST_BYTES
    assert text.count("data:image/jpeg") == 40
    assert "<script>window" not in text
    assert "<img src=http" not in text
    assert "x &lt;b&gt;" in text
    assert "98.5 %" in text  # what the paper prints for B5 on Flowers


def test_by_keyboard_in_a_browser(big_page, many):
    from selenium.webdriver.common.keys import Keys

    with browser() as page:
        page.open(big_page)
        assert page.requests() == [big_page.as_uri()]
        assert not page.errors()
        assert page.driver.execute_script("return window.hit") is None
        assert page.lowest_contrasts()[0][0] >= READABLE
        table = page.driver.find_element("css selector", "table.sortable")
        heads = table.find_elements("css selector", "th[scope=col]")
        assert [head.get_attribute("aria-sort") for head in heads][:3] == ["none", "none", "ascending"]
        assert HOSTILE in table.find_element("css selector", "tbody tr").text  # 2 or fewer of 10 right: worst first
        for _ in range(60):
            page.press(Keys.TAB)
            if page.focused() == "class":
                break
        page.press(Keys.ENTER)
        assert heads[0].get_attribute("aria-sort") == "ascending"
        assert "Sorted by class, lowest first" in page.driver.find_element("id", "sorted").text
        page.press(Keys.TAB, Keys.TAB, Keys.SPACE, Keys.SPACE)  # the shares, highest first
        assert [head.get_attribute("aria-sort") for head in heads][:3] == ["none", "none", "descending"]
        shares = "return [...document.querySelectorAll('table.sortable td:nth-child(3)')].map(e => Number(e.dataset.v))"
        shown = page.driver.execute_script(shares)
        assert shown[0] > shown[-1]
        assert shown == sorted(shown, reverse=True)
        for _ in range(20):
            page.press(Keys.TAB)
            if page.focused().startswith("Confusion matrix"):
                break
        told = page.driver.find_element("css selector", ".matrix output")
        assert told.text == f"{HOSTILE} taken for class 150 of some length: 8 of 10"
        page.press("n")
        counts = many.confusion - np.diag(np.diag(many.confusion))
        assert told.text.endswith(f": {np.sort(counts.ravel())[-2]} of 10")
        before = told.text
        page.press(Keys.ARROW_DOWN)
        assert told.text != before
        sheet = page.driver.find_element("css selector", ".sheet")
        width = sheet.size["width"]
        page.press("+")
        assert sheet.size["width"] == pytest.approx(2 * width, abs=2)


def test_on_a_phone_in_the_dark(big_page):
    with browser(width=390, height=844, dark=True) as page:
        page.open(big_page)
        assert page.overflow() <= 0
        ratio, element, text = page.lowest_contrasts()[0]
        assert ratio >= READABLE, (element, text)
        paper = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert max(int(part) for part in paper[4:-1].split(",")) < 60


def test_without_scripts_everything_is_there_but_sorting(big_page):
    with browser(scripts=False) as page:
        page.open(big_page)
        text = page.driver.find_element("tag name", "main").text
        assert "class 150 of some length" in text
        assert "Most often taken for each other" in text
        assert not page.driver.find_element("css selector", ".controls").is_displayed()
        assert not page.driver.find_elements("css selector", "th button")


def test_classes_pairs_and_matrix_count_what_was_answered():
    outputs = outputs_of([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], 4)
    rows = {row["name"]: row for row in page_classes.class_rows(outputs)}
    assert list(rows) == ["class 0", "class 1", "class 2"]  # class 3 has no image and no answer
    assert rows["class 0"] == {
        **{"name": "class 0", "n": 3, "right": 1 / 3, "precision": 1 / 2, "taken_for": "class 1", "times": 2}
    }
    (pair,) = page_classes.confused_pairs(outputs)
    assert pair == {"first": "class 0", "second": "class 1", "times": 3, "forth": "2 of 3", "back": "1 of 2"}
    drawn = page_classes.matrix(outputs)
    place = [drawn["names"].index(name) for name in outputs.classes]
    assert drawn["rows"][place[0]][place[1]] == 2
    assert drawn["totals"][place[3]] == 0


def test_the_picture_of_a_matrix_has_its_cells(many):
    drawn = page_classes.matrix(many)
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(drawn["picture"].split(",")[1]))))
    order = [many.classes.index(name) for name in drawn["names"]]
    counts = many.confusion[np.ix_(order, order)]
    assert sorted(order) == list(range(MANY))
    assert pixels.shape == (MANY, MANY, 4)
    assert ((pixels[..., 3] > 0) == (counts > 0)).all()
    assert {(i, j): n for i, j, n in drawn["cells"]} == {(i, j): counts[i, j] for i, j in zip(*counts.nonzero())}  # noqa: B905
    assert drawn["totals"] == [PER_CLASS] * MANY


def test_classes_that_are_confused_become_neighbours():
    targets = np.repeat(np.arange(20), 10)
    twin = (targets + 10) % 20  # 0 with 10, 1 with 11, ...
    outputs = outputs_of(targets, np.where(np.arange(200) % 2 == 0, twin, targets), 20)
    order = page_classes.similarity_order(outputs)
    assert all(abs(order.index(i) - order.index(i + 10)) == 1 for i in range(10))


def test_the_bars_of_calibration_are_its_error():
    outputs = outputs_of(np.arange(90) % 3, np.arange(90) % 3 ^ (np.arange(90) % 5 == 0), 4, sure=0.0)
    sure, right = outputs.probabilities.max(1), outputs.predicted == outputs.targets
    bins, error = page_charts.reliability(sure, right)
    assert sum(bar.n for bar in bins) == 90
    assert error == pytest.approx(sum(bar.n * abs(bar.right - bar.confidence) for bar in bins) / 90, abs=1e-6)
    assert error == calibration_error(sure, right)
    assert all(bar.low <= bar.confidence <= bar.high for bar in bins)
    assert outputs.tempered(2.0).max() < outputs.probabilities.max()
    assert outputs.tempered(2.0).sum(1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("ends", [(0, 1), (0.97, 0.981), (3e-9, 2e-3), (5, 5), (0, 0), (-2, 1200), (99.99999, 100)])
def test_ticks_are_round_and_hold_the_ends(ends):
    found = page_charts.ticks(*ends)
    assert found[0] <= ends[0]
    assert found[-1] >= ends[1] - 1e-12
    assert 2 <= len(found) <= 8
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_curves_mark_phases_and_thin_long_runs():
    rows = [{"step": s, "phase": s > 4000, "train/loss": 1 / s, "val/top1": 0.5} for s in range(1, 9001)]
    result = {"metric": "top1", "epochs": 90.0, "steps": 9000}
    loss, top1 = page_charts.curves(rows, result, ["head", "from stage3 on"])
    assert [name for _, name in loss.marks] == ["head", "from stage3 on"]
    assert len(loss.lines[0].points) <= 400
    assert loss.x_ticks[-1][1].startswith("epoch ")
    assert "at epoch 89" in loss.told
    assert "50" in top1.told


def test_pictures_stop_in_time_and_never_stop_a_page(monkeypatch, many, caplog):
    found = page_mistakes.mistakes(many)
    monkeypatch.setattr(page_mistakes, "MOST_SECONDS", -1.0)
    assert "Pictures of the first 0" in page_mistakes.add_pictures(found, object(), [None] * len(found))
    monkeypatch.setattr(page_mistakes, "MOST_SECONDS", 9.0)
    assert "could not be drawn" in page_mistakes.add_pictures(found, object(), [b"no picture"] * len(found))
    assert "a picture for report.html was not drawn" in caplog.text
    assert "crop" not in found[0]


def test_a_page_that_cannot_be_made_is_logged_and_no_more(tmp_path, caplog):
    run_page.write_page(tmp_path, {"metric": "top1"}, None, None)
    assert "report.html was not made" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_fit_leaves_a_page_with_pictures_and_it_can_be_made_again(tiny_recipe):
    phases = "train.phases=[{train: head, epochs: 1}, {train: stage3}]"
    fitted = fit(load_recipe(str(tiny_recipe), ["train.total_epochs=2", "optim.lr=0.0001", phases]).recipe)
    folder, test = fitted.folder, fitted.result["test"]
    text = (folder / "report.html").read_text()
    wrong = round(test["n"] * (1 - test["top1"]))
    assert wrong > 0
    assert text.count("data:image/jpeg") == 2 * wrong
    assert "tiny on colours" in text
    assert "head for 1 epoch; then from stage3 on" in text
    (folder / "report.html").unlink()
    page, missing = page_again(folder)
    assert (page.read_text(), missing) == (text, "")
    page, missing = page_again(folder, pictures=False)
    assert "data:image/jpeg" not in page.read_text()
    assert run_page.NO_PICTURES in page.read_text()


def test_without_the_images_a_page_is_made_and_says_so(finished_run, tmp_path, capsys):
    from click.testing import CliRunner

    from workbench.cli import page_verb

    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    recipe = (folder / "recipe.yaml").read_text().replace("/colours", "/gone")
    (folder / "recipe.yaml").write_text(recipe)
    done = CliRunner().invoke(page_verb.command, [str(folder)])
    assert done.exit_code == 0, done.output
    assert "without pictures" in done.output
    assert "/gone" in done.output
    assert done.output.rstrip().endswith("report.html")
    with pytest.raises(UserError, match="gone2"):
        page_again(folder, [f"data.path={tmp_path}/gone2"])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "result.json").unlink(), "a finished run"),
        (lambda folder: (folder / "logits.safetensors").write_bytes(b"no tensors"), "restore them"),
        (lambda folder: (folder / "metrics.csv").write_text("step,train/loss\n1,high\n"), "restore them"),
        (lambda folder: (folder / "result.json").write_text("{}"), "restore them"),
        (lambda folder: (folder / "splits.json").write_text('{"test": ["a"]}'), "restore them"),
        (lambda folder: (folder / "recipe.yaml").unlink(), "a run folder"),
    ],
)
def test_what_is_no_whole_run_is_told(tmp_path, spoil, told):
    folder = write_whole_run(tmp_path / "run", outputs_of([0, 1, 1], [0, 1, 0], 2))
    assert run_page.remake(folder).stat().st_size > 10_000
    (folder / "report.html").unlink()
    spoil(folder)
    with pytest.raises(UserError, match=told):
        page_again(folder, pictures=False)
    assert not (folder / "report.html").exists()


def test_a_key_that_does_nothing_here_is_refused(tmp_path):
    folder = write_whole_run(tmp_path / "run", outputs_of([0, 1, 1], [0, 1, 0], 2))
    with pytest.raises(UserError, match=r"optim\.lr=1"):
        page_again(folder, ["optim.lr=1"])


def test_a_multi_label_run_shows_average_precision(tmp_path):
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    logits = np.array([[3, -1, 0], [2, 1, 0], [-1, -2, 0], [1, -3, 0]], np.float32)
    outputs = Outputs("test", ("a", "b", "c"), tuple("wxyz"), logits, targets)
    rows = {row["name"]: row for row in page_classes.class_rows(outputs)}
    assert rows["a"] == {"name": "a", "n": 2, "average_precision": pytest.approx(1.0)}
    assert rows["b"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert rows["c"]["average_precision"] is None
    text = run_page.remake(write_whole_run(tmp_path / "run", outputs)).read_text()
    assert "average precision" in text
    assert "Confusions" not in text
