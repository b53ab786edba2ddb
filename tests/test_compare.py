"""Two runs on the same images: every number against one worked out by hand or another way."""

import csv
import math

import numpy as np
import pytest
from click.testing import CliRunner
from run_folders import read_rows, write_predictions, write_run
from safetensors.numpy import save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from workbench.analysis import compare_pairs
from workbench.analysis.compare import compare
from workbench.analysis.compare_calibration import calibrate, calibration_error, fit_temperature, halves, loss_of
from workbench.analysis.compare_sections import sections, write_comparison
from workbench.analysis.report_pages import to_markdown
from workbench.specs.errors import UserError

# id, class, predicted, confidence, probability of the class, rank: the second run loses a and wins c
FIRST = [
    ("a", "x", "x", 0.9, 0.9, 1),
    ("b", "x", "x", 0.8, 0.8, 1),
    ("c", "y", "x", 0.7, 0.3, 2),
    ("d", "y", "y", 0.6, 0.6, 1),
]
SECOND = [
    ("d", "y", "y", 0.9, 0.9, 1),
    ("c", "y", "y", 0.6, 0.6, 1),
    ("a", "x", "y", 0.8, 0.2, 2),
    ("b", "x", "x", 0.9, 0.9, 1),
]


@pytest.fixture
def two_runs(tmp_path):
    def write(first=FIRST, second=SECOND, **more):
        folders = [
            write_run(tmp_path / name, dataset="blossoms", score=0.75, seed=seed, **more)
            for seed, name in enumerate("pq")
        ]
        for folder, rows in zip(folders, (first, second), strict=True):
            write_predictions(folder, rows)
        return folders

    return write


def value_of(found, quantity):
    (row,) = [row for row in found.values if row["quantity"] == quantity]
    return row


def test_a_table_by_hand(two_runs):
    found = compare(*two_runs())
    top1 = value_of(found, "top1")
    assert (top1["first"], top1["second"], top1["difference"], top1["n"]) == (0.75, 0.75, 0, 4)
    assert (top1["first_low"], top1["first_high"]) == (0.74, 0.76)  # the run's own interval
    together = {row["quantity"]: row["value"] for row in found.values if row["value"] is not None}
    assert together == {
        **{"same answer": 2, "both right": 2, "only first right": 1, "only second right": 1},
        **{"both wrong, same answer": 0, "both wrong, different answers": 0, "McNemar's exact p": 1.0},
    }
    assert value_of(found, "mean_per_class")["first"] == 0.75
    assert compare_pairs.class_rows(found.paired) == [
        {"class": "x", "n": 2, "first_right": 2, "second_right": 1, "won": 0, "lost": 1, "net": -1},
        {"class": "y", "n": 2, "first_right": 1, "second_right": 2, "won": 1, "lost": 0, "net": 1},
    ]
    (lost,) = compare_pairs.flips(found.paired, won=False)
    assert (lost["id"], lost["first_answer"], lost["second_answer"], lost["second_confidence"]) == ("a", "x", "y", 0.8)
    assert [row["id"] for row in compare_pairs.flips(found.paired, won=True)] == ["c"]


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(1, 7, 18 / 256), (7, 1, 18 / 256), (0, 5, 2 / 32), (3, 3, 1), (0, 0, 1)]
)
def test_mcnemars_p_is_the_binomial_sum(lost, won, p):
    assert compare_pairs.mcnemar(lost, won) == pytest.approx(p)
    if lost + won:
        assert compare_pairs.mcnemar(lost, won) == binomtest(lost, lost + won).pvalue


def paired_at_random(n, classes, seed):
    rng = np.random.default_rng(seed)
    ranks = [rng.choice([1, 2, 7], n, p=p) for p in ((0.7, 0.2, 0.1), (0.8, 0.15, 0.05))]
    names = rng.choice(
        [f"c{i}" for i in range(classes)], n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    )
    blank = np.array([""] * n)
    return compare_pairs.Paired(tuple(map(str, range(n))), names, (blank, blank), (blank, blank), tuple(ranks))


@pytest.mark.parametrize("metric", ["top1", "top5", "mean_per_class"])
def test_the_interval_of_the_difference_is_that_of_drawing_images_again(metric):
    paired = paired_at_random(400, 5, seed=1)
    rng = np.random.default_rng(7)
    within = 5 if metric == "top5" else 1
    change = (paired.ranks[1] <= within).astype(float) - (paired.ranks[0] <= within)
    groups = [np.flatnonzero(paired.classes == name) for name in sorted(set(paired.classes))]
    groups = groups if metric == "mean_per_class" else [np.arange(400)]
    drawn = [np.mean([change[rng.choice(group, len(group))].mean() for group in groups]) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert compare_pairs.difference95(paired, metric) == pytest.approx((low, high), abs=0.006)
    assert low < compare_pairs.score(paired, 1, metric) - compare_pairs.score(paired, 0, metric) < high


def test_a_class_of_one_image_has_an_interval_that_holds_the_truth():
    rng, held = np.random.default_rng(0), 0
    blank = np.array([""] * 50)
    for _ in range(500):
        change = rng.choice([1, -1, 0], 50, p=[0.2, 0.1, 0.7])
        ranks = np.where(change < 0, 1, 2), np.where(change > 0, 1, 2)
        names = np.array([f"c{i}" for i in range(50)])
        paired = compare_pairs.Paired(tuple(names), names, (blank, blank), (blank, blank), ranks)
        low, high = compare_pairs.difference95(paired, "mean_per_class")
        held += low <= 0.1 <= high
    assert held / 500 > 0.92


def test_the_calibration_error_by_hand():
    # bins of a fifteenth: 0.95 and 0.97 share the last, 0.40 is the upper end of the sixth, 0.41 is in the seventh
    confidence = np.array([0.95, 0.97, 0.40, 0.41, 1.0])
    right = np.array([True, False, True, False, True])
    by_hand = (abs((0.95 + 0.97 + 1.0) - 2) + abs(0.40 - 1) + abs(0.41 - 0)) / 5
    assert calibration_error(confidence, right) == pytest.approx(by_hand)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def logits_at(temperature, n=3000, classes=5, seed=0):
    """Logits whose softmax at `temperature` is the truth that the targets are drawn from."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, classes)) * 2
    targets = np.array([rng.choice(classes, p=p) for p in softmax(true, axis=1)])
    return (true * temperature).astype(np.float32), targets


def test_the_temperature_is_the_one_of_least_loss():
    logits, targets = logits_at(2.5)
    logits = logits.astype(np.float64)
    found = fit_temperature(logits, targets)
    reference = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(len(targets)), targets].mean(),
        bounds=(0.1, 10),
        method="bounded",
    )
    assert found == pytest.approx(reference.x, rel=1e-4)
    grid = np.linspace(found - 0.2, found + 0.2, 41)
    assert min(loss_of(logits, targets, t) for t in grid) >= loss_of(logits, targets, found) - 1e-12
    assert found == pytest.approx(2.5, rel=0.06)  # what the targets were drawn with
    assert loss_of(logits, targets) == pytest.approx(-log_softmax(logits, axis=1)[np.arange(3000), targets].mean())


def write_logits(folder, temperature, with_selection):
    logits, targets = logits_at(temperature)
    tensors = {"test": logits, "test_targets": targets}
    if with_selection:
        other, chosen = logits_at(temperature, seed=1)
        tensors |= {"selection": other, "selection_targets": chosen}
    save_file(tensors, folder / "logits.safetensors")
    shares = softmax(logits.astype(np.float64), axis=1)
    ranks = 1 + (shares > shares[np.arange(len(targets)), targets][:, None]).sum(1)
    rows = [
        (f"{i}", f"c{t}", f"c{p.argmax()}", p.max(), p[t], r)
        for i, (t, p, r) in enumerate(zip(targets, shares, ranks, strict=True))
    ]
    write_predictions(folder, rows)


@pytest.mark.parametrize("with_selection", [True, False])
def test_calibration_after_the_temperature(tmp_path, with_selection):
    folder = write_run(tmp_path / "r", dataset="blossoms")
    write_logits(folder, 3.0, with_selection)
    found = calibrate(folder, read_rows(folder / "predictions.csv"))
    assert found.temperatures == pytest.approx([3.0] * (1 if with_selection else 2), rel=0.1)
    assert found.ece > 0.1 > 0.03 > found.ece_after
    assert found.loss_after < found.loss
    assert ("3000 selection images" if with_selection else "cross-fitted") in found.how


def test_each_half_is_scaled_by_the_temperature_of_the_other(tmp_path):
    folder = write_run(tmp_path / "r", dataset="blossoms")
    write_logits(folder, 3.0, with_selection=False)
    rows = read_rows(folder / "predictions.csv")
    found, half = calibrate(folder, rows), halves([row["id"] for row in rows])
    logits, targets = logits_at(3.0)
    own = [fit_temperature(logits[half == i].astype(np.float64), targets[half == i]) for i in (0, 1)]
    assert found.temperatures == (own[1], own[0])
    assert own[0] != pytest.approx(own[1], rel=1e-3)
    scaled = logits / np.where(half == 0, own[1], own[0])[:, None]
    assert found.loss_after == pytest.approx(loss_of(scaled, targets), rel=1e-6)


def test_halves_depend_on_ids_alone():
    ids = [f"image{i}" for i in range(101)]
    half = dict(zip(ids, halves(ids), strict=True))
    assert sum(half.values()) == 51
    turned = dict(zip(ids[::-1], halves(ids[::-1]), strict=True))
    assert turned == half


def test_without_logits_or_with_those_of_another_run_nothing_is_made_up(two_runs, tmp_path):
    folders = two_runs()
    write_logits(write_run(tmp_path / "other", dataset="blossoms"), 1.0, False)
    (tmp_path / "other" / "logits.safetensors").rename(folders[1] / "logits.safetensors")
    found = compare(*folders)
    assert "not known (the run has no logits file)" in found.calibrations[0].how
    assert "not of these predictions" in found.calibrations[1].how
    assert value_of(found, "calibration error after temperature")["first"] is None
    (folders[1] / "logits.safetensors").write_bytes(b"no")
    assert "damaged" in compare(*folders).calibrations[1].how


def test_other_images_labels_or_sets_are_refused_with_how_many(two_runs, tmp_path):
    folders = two_runs(second=[*SECOND[:2], ("e", "x", "x", 0.9, 0.9, 1)])
    with pytest.raises(UserError, match=r"2 test images are only in .*p, 1 only in .*q, 2 in both"):
        compare(*folders)
    write_predictions(folders[1], [("a", "y", "y", 0.9, 0.9, 1), *SECOND[:2], SECOND[3]])
    with pytest.raises(
        UserError, match="1 of 4 test images have another class in the second run, such as a: 'x' and 'y'"
    ):
        compare(*folders)
    cars = write_run(tmp_path / "cars", dataset="cars")
    write_predictions(cars, FIRST)
    with pytest.raises(UserError, match="blossoms and cars"):
        compare(folders[0], cars)


def test_what_is_no_tested_run_is_refused(two_runs, tmp_path):
    first, second = two_runs()
    closed = write_run(tmp_path / "closed", dataset="blossoms", test=False)
    with pytest.raises(UserError, match="its test split was not opened"):
        compare(first, closed)
    (second / "result.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        compare(first, second)
    with pytest.raises(UserError, match="no recipe.yaml"):
        compare(first, tmp_path)
    write_predictions(first, [FIRST[0], FIRST[0]])
    with pytest.raises(UserError, match="an id twice"):
        compare(first, first)


def test_what_a_reader_must_know_is_noted(two_runs):
    first, second = two_runs(stamps=["partial: 4 of 8"], openings=2, changes={"optim.lr": 0.5})
    found = compare(first, second)
    assert found.settings == {"train.seed": ("0", "1")}
    assert f"{first}: partial: 4 of 8" in found.notes
    assert f"{second}: test opened 2 times" in found.notes
    assert "both are the same run" in compare(first, first).notes
    write_predictions(first, [*FIRST[:3], ("d", "y", "x", 0.6, 0.4, 2)])
    assert any("does not give the top1 of result.json" in note for note in compare(first, second).notes)


def test_of_multi_label_runs_it_says_what_is_not_available(two_runs):
    folders = two_runs(metric="mean_average_precision")
    for folder in folders:
        with (folder / "predictions.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "has x", "probability of x"), ("a", 1, 0.9), ("b", 0, 0.2)])
    found = compare(*folders)
    assert value_of(found, "mean_average_precision")["first"] == 0.75
    text = to_markdown("", sections(found))
    assert "Not available for them: an interval of the difference, agreement, McNemar's test" in text


def test_names_are_escaped_and_no_cell_is_a_formula(two_runs, tmp_path):
    name = "<script>alert(1)</script>"
    rename = lambda rows: [("=" + i, c.replace("x", name), p.replace("x", name), *rest) for i, c, p, *rest in rows]  # noqa: E731
    folders = two_runs(rename(FIRST), rename(SECOND))
    write_comparison(compare(*folders), tmp_path / "out")
    page, text = ((tmp_path / "out" / file).read_text() for file in ("compare.html", "compare.md"))
    assert "<script" not in page + text
    assert "&lt;script&gt;" in page
    rows = read_rows(tmp_path / "out" / "compare_flips.csv")
    assert [(row["id"], row["flip"]) for row in rows] == [("'=c", "wrong to right"), ("'=a", "right to wrong")]
    assert {row["class"] for row in read_rows(tmp_path / "out" / "compare_classes.csv")} == {name, "y"}


def test_a_real_run_has_logits_that_give_its_predictions(finished_run):
    from safetensors.numpy import load_file

    tensors = load_file(finished_run.folder / "logits.safetensors")
    assert {name: (str(t.dtype), t.shape) for name, t in tensors.items()} == {
        **{"selection": ("float32", (12, 3)), "selection_targets": ("int64", (12,))},
        **{"test": ("float32", (12, 3)), "test_targets": ("int64", (12,))},
    }
    shares = softmax(tensors["test"].astype(np.float64), axis=1)
    rows = read_rows(finished_run.folder / "predictions.csv")
    assert [float(row["confidence"]) for row in rows] == pytest.approx(shares.max(1), rel=1e-8)
    own = shares[np.arange(12), tensors["test_targets"]]
    assert [float(row["class_probability"]) for row in rows] == pytest.approx(own, rel=1e-8)
    loss = loss_of(tensors["selection"].astype(np.float64), tensors["selection_targets"])
    assert loss == pytest.approx(finished_run.result["selection"]["loss"], rel=1e-5)


def test_the_command_compares_a_real_run_and_shows_its_pictures(finished_run, tmp_path):
    import shutil

    from workbench.cli.compare_verb import command

    other = tmp_path / "other"
    shutil.copytree(finished_run.folder, other)
    rows = read_rows(other / "predictions.csv")
    right = next(row for row in rows if row["class_rank"] == "1")
    right |= {"predicted": "none of these", "class_rank": "2"}
    write_predictions(other, [tuple(row.values()) for row in rows])
    arguments = [str(finished_run.folder), str(other), "--out", "out"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == "out/compare.html"
    assert f"{-100 / 12:+.2f}" in done.output
    assert "fitted on 12 selection images" in done.output
    assert "predictions.csv does not give" in done.output
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "http" not in page
    assert math.isclose(float(read_rows(tmp_path / "out" / "compare.csv")[0]["difference"]), -1 / 12, rel_tol=1e-5)
