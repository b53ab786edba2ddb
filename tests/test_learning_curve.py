"""The learning curve: laws that are known, intervals that hold, and runs that belong on one curve or do not."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from run_folders import write_run
from scipy.optimize import least_squares
from scipy.stats import norm

from workbench.analysis import learning_curve
from workbench.analysis.learning_curve import Measured, fit_law, forecast, over_images
from workbench.analysis.learning_curve_page import COLUMNS, briefly, make_card, sections, write_card
from workbench.analysis.learning_curve_runs import curve_of_runs, spread_of
from workbench.cli.app import app
from workbench.data.fractions import part_stamp
from workbench.models.tensor_files import save_tensors
from workbench.specs.errors import UserError
from workbench.training.metrics import interval95
from workbench.training.results import SplitResult

SIZES = [102, 255, 510, 1020]


def errors_of(law, sizes):
    scale, exponent, floor = law
    return np.array([scale * n**-exponent + floor for n in sizes])


@pytest.mark.parametrize("law", [(2.5, 0.5, 0), (0.9, 0.1, 0), (30, 1.3, 0)])
def test_a_law_without_noise_is_found_again(law):
    found = fit_law(SIZES, errors_of(law, SIZES), np.array([1.0, 5, 2, 3]))
    assert (found.scale, found.exponent, found.floor) == pytest.approx(law, rel=1e-4)
    assert found.error(2040) == pytest.approx(law[0] * 2040 ** -law[1], rel=1e-5)


@pytest.mark.parametrize("law", [(3, 0.5, 0.05), (50, 1.1, 0.2), (2.5, 0.5, 0)])
def test_a_law_with_a_floor_is_found_again(law):
    sizes = [100, 200, 400, 800, 1600]
    found = fit_law(sizes, errors_of(law, sizes), np.ones(5), has_floor=True)
    assert (found.scale, found.exponent, found.floor) == pytest.approx(law, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("has_floor", [False, True])
def test_the_fit_is_the_least_squares_of_float64(has_floor):
    rng = np.random.default_rng(3)
    sizes, weights = np.array([50.0, 100, 200, 400, 800]), rng.uniform(1, 9, 5)
    for _ in range(10):
        errors = errors_of((2, 0.4, 0.05), sizes) * rng.uniform(0.9, 1.1, 5)

        def off(x, errors=errors):
            floor = x[2] if has_floor else 0
            return np.sqrt(weights) * (np.exp(x[0]) * (sizes / 800) ** -x[1] + floor - errors)

        bounds = ([-20, 0, 0], [5, 3, 1])
        best = min(
            (least_squares(off, [-2, b, 0.01], bounds=bounds, xtol=1e-15) for b in (0.2, 1)), key=lambda s: s.cost
        )
        found = fit_law(sizes, errors, weights, has_floor)
        own = np.log(found.scale * 800**-found.exponent), found.exponent, found.floor
        assert 0.5 * (off(own) ** 2).sum() == pytest.approx(best.cost, rel=1e-6)
        assert found.error(1600) == pytest.approx(np.exp(best.x[0]) * 2 ** -best.x[1] + best.x[2] * has_floor, abs=1e-4)


def test_several_sets_of_errors_are_fitted_as_each_alone():
    rng = np.random.default_rng(0)
    errors = errors_of((2, 0.4, 0), SIZES) * rng.uniform(0.8, 1.2, (7, 4))
    together = fit_law(SIZES, errors, np.ones(4))
    for row, own in enumerate(errors):
        assert together.exponent[row] == fit_law(SIZES, own, np.ones(4)).exponent


def test_no_error_that_falls_is_no_law_that_promises():
    found = fit_law(SIZES, np.array([0.1, 0.12, 0.11, 0.13]), np.ones(4))
    assert found.exponent == 0
    assert found.error(10_000) == pytest.approx(found.error(102))


def draws_of(law, sizes, repeats, num_scored=1000, noise=0.05, seed=0):
    """Simulate trainings: images are easy or hard for all of them alike, and each training is a little off the law."""
    rng = np.random.default_rng(seed)
    hard, measured = rng.standard_normal(num_scored), []
    for error, size, count in zip(errors_of(law, sizes), sizes, repeats, strict=True):
        for repeat in range(count):
            own = error * math.exp(noise * rng.standard_normal() - noise**2 / 2)
            right = 0.8 * hard + 0.6 * rng.standard_normal(num_scored) >= norm.ppf(own)
            measured.append(Measured(size, float(right.mean()), right, repeat))
    return measured


LABELS = np.arange(1000) % 10


@pytest.mark.parametrize(
    ("law", "sizes", "repeats"),
    [
        ((2.5, 0.5, 0), SIZES, (5, 5, 5, 1)),
        ((2.5, 0.5, 0), SIZES, (1,) * 4),
        ((3, 0.5, 0.05), [*SIZES, 2040], (3,) * 5),
    ],
)
def test_the_intervals_hold_what_twice_the_images_bring(law, sizes, repeats, monkeypatch):
    """Of 25 simulated curves at least 21: with 95 % coverage fewer would be one chance in 140 (binomial)."""
    monkeypatch.setattr(learning_curve, "RESAMPLES", 300)
    now, then = 1 - errors_of(law, [sizes[-1], 2 * sizes[-1]])
    held = gained = 0
    for seed in range(25):
        found = forecast(draws_of(law, sizes, repeats, seed=seed), LABELS, "top1")
        assert found.score95[0] <= found.score <= found.score95[1]
        held += found.score95[0] <= then <= found.score95[1]
        gained += found.gain95[0] <= then - now <= found.gain95[1]
    assert min(held, gained) >= 21


def test_a_floor_is_taken_only_where_it_is_supported():
    clear = forecast(draws_of((60, 1.0, 0.2), [100, 200, 400, 800, 1600], (3,) * 5, noise=0.02), LABELS, "top1")
    assert clear.has_floor
    assert clear.score == pytest.approx(1 - errors_of((60, 1.0, 0.2), [3200])[0], abs=0.02)
    absent = forecast(draws_of((2.5, 0.5, 0), SIZES, (3,) * 4), LABELS, "top1")
    assert not absent.has_floor
    assert absent.law.floor == 0


@pytest.mark.parametrize(
    ("sizes", "scores", "words"),
    [
        ([100], [0.5], "no law from 1 size: it takes 3 or more"),
        ([100, 1000], [0.5, 0.8], "no law from 2 sizes: it takes 3 or more"),
        ([600, 800, 1000], [0.5, 0.6, 0.7], "no law: 1000 images are less than 2 times 600; measure fewer images too"),
        ([100, 500, 1000], [1, 1, 1], "no law: nothing is wrong at any size"),
        (
            [100, 200, 400],
            [0.9, 0.8, 0.6],
            "no law: more images did not lower the error here; repeat the sizes with other seeds before believing it",
        ),
    ],
)
def test_it_says_why_it_promises_nothing(sizes, scores, words):
    measured = [Measured(n, s, np.arange(1000) < 1000 * s, 0) for n, s in zip(sizes, scores, strict=True)]
    assert forecast(measured, LABELS, "top1") == words


def test_images_drawn_again_vary_as_shares_do():
    right = np.stack([np.arange(1000) % 10 < 7, np.arange(1000) % 10 < 9])
    for metric in ("top1", "mean_per_class"):
        scores = over_images(right, LABELS, metric, np.random.default_rng(0))
        assert scores.mean(0) == pytest.approx([0.7, 0.9], abs=0.002), metric
        assert scores.std(0) == pytest.approx([math.sqrt(0.21 / 1000), math.sqrt(0.09 / 1000)], rel=0.1), metric
    assert np.corrcoef(scores.T)[0, 1] == pytest.approx(math.sqrt(7 / 3 / 9), abs=0.1)  # the same images for both


def test_a_score_that_is_no_mean_over_images_has_the_noise_of_training_only():
    measured = [
        Measured(n, s + d, None, r) for n, s in ((100, 0.5), (300, 0.7), (900, 0.8)) for r, d in ((0, 0), (1, 0.02))
    ]
    found = forecast(measured, np.zeros(50, dtype=int), "mean_average_precision")
    assert found.noise == "the noise of training (6 repeats)"


def test_the_images_that_a_score_was_averaged_over_by_class_count_through_its_spread():
    sizes = ((100, 0.5), (400, 0.75), (1600, 0.875))  # on a law: nothing else varies
    wide, narrow = (
        forecast([Measured(n, s, None, 0, "", d) for n, s in sizes], np.zeros(50, dtype=int), "mean_average_precision")
        for d in (0.05, 0.005)
    )
    assert "the 50 scored images" in wide.noise
    width = [found.score95[1] - found.score95[0] for found in (wide, narrow)]
    assert width[0] > 3 * width[1]


def test_the_spread_of_a_mean_average_precision_is_that_of_other_images():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(400, 5, generator=generator) < 0.3).float()
    logits = targets + torch.randn(400, 5, generator=generator)
    found = spread_of(SplitResult("selection", "mean_average_precision", logits, targets, torch.arange(400)))
    others = []
    for _ in range(60):
        targets = (torch.rand(400, 5, generator=generator) < 0.3).float()
        logits = targets + torch.randn(400, 5, generator=generator)
        result = SplitResult("selection", "mean_average_precision", logits, targets, torch.arange(400))
        others.append(result.scores()["mean_average_precision"])
    assert found == pytest.approx(np.std(others), rel=0.4)


# runs


def write_trained(folder, fraction, seed, score, ids=200, split="selection", **more):
    """Write a run on a part of train whose `score` share of the scored images is right."""
    tested, stamps = split == "test", [part_stamp(fraction)] if fraction < 1 else []
    changes = {"data.train_fraction": fraction, **more.pop("changes", {})}
    score = round(score * ids) / ids
    write_run(folder, "cifar10", seed, score, test=tested, stamps=stamps, changes=changes, **more)
    targets = torch.arange(ids) % 10
    answers = torch.where(torch.arange(ids) < round(score * ids), targets, (targets + 1) % 10)
    logits = torch.nn.functional.one_hot(answers, 10).float()
    save_tensors(folder / "logits.safetensors", {split: logits, f"{split}_targets": targets})
    names = [f"i{number}" for number in range(ids)]
    splits = {"counts": {"train": round(5000 * fraction)}, split: names, "labels_sha256": "0"}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture
def runs(tmp_path):
    law = {0.1: 0.7, 0.25: 0.8, 0.5: 0.85, 1.0: 0.9}
    for fraction, score in law.items():
        for seed in (0, 1):
            write_trained(tmp_path / "runs" / f"{fraction}-{seed}", fraction, seed, score + 0.01 * seed)
    return tmp_path / "runs"


def test_runs_become_a_card(runs, tmp_path):
    card = make_card(curve_of_runs([runs]))
    assert [row["images"] for row in card.rows] == [500, 1250, 2500, 5000]
    assert [row["score"] for row in card.rows] == pytest.approx([0.705, 0.805, 0.855, 0.905])
    first = card.rows[0]
    assert (first["repeats_low"], first["repeats_high"]) == pytest.approx((0.705 - 0.0635, 0.705 + 0.0635), abs=1e-4)
    wilson = interval95("top1", np.arange(200) < 141, np.zeros(200))
    assert (first["images_low"], first["images_high"]) == pytest.approx(wilson)
    assert card.law.num_images == 10_000
    out = write_card(card, tmp_path / "out")
    assert [path.name for path in out] == ["learning_curve.md", "learning_curve.csv", "learning_curve.png"]
    with out[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["what"] for row in rows] == ["measured"] * 4 + ["forecast"]
    assert float(rows[-1]["law"]) == pytest.approx(card.law.score, rel=1e-5)
    text = out[0].read_text()
    assert briefly(card) in text
    assert "top1 on the 200 selection images" in text
    assert "the selection images also chose the weights" in text
    assert "the noise of training (8 repeats)" in text
    assert out[2].read_bytes()[:4] == b"\x89PNG"


def test_the_verb_prints_the_table_the_line_and_the_files(runs, tmp_path):
    done = CliRunner().invoke(app, ["curve", str(runs), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[2].startswith("| 500 | 2 | 70.50 | ")
    assert lines[-4].startswith(
        "cifar10_b0: b0 on cifar10: top1 on selection 70.50 % with 500 training images, 90.50 %"
    )
    assert "twice the images (10000) would bring" in lines[-4]
    assert lines[-3:] == [str(tmp_path / "out" / f"learning_curve.{kind}") for kind in ("md", "csv", "png")]


def test_two_sizes_are_shown_without_a_promise(tmp_path):
    for fraction in (0.5, 1.0):
        write_trained(tmp_path / str(fraction), fraction, 0, 0.8)
    card = make_card(curve_of_runs([tmp_path]))
    assert briefly(card).endswith("no law from 2 sizes: it takes 3 or more")
    assert [row["law"] for row in card.rows] == [None, None]
    assert len(write_card(card, tmp_path / "out")) == 3


def test_the_same_part_and_seed_counts_once_and_unfinished_runs_are_told(runs):
    write_trained(runs / "z-again", 0.1, 0, 0.2)
    (runs / "z-stopped").mkdir()
    (runs / "z-stopped" / "recipe.yaml").write_text("{}")
    curve = curve_of_runs([runs])
    assert len(curve.measured) == 8
    assert f"not counted, the same seed and part again: {runs / 'z-again'}" in curve.notes
    assert any(note.startswith(f"left out: {runs / 'z-stopped'}: not finished") for note in curve.notes)


def test_seeds_that_change_nothing_are_one_training(tmp_path):
    for fraction, score in {0.1: 0.7, 0.25: 0.8, 1.0: 0.9}.items():
        for seed in (0, 1, 2):
            write_trained(tmp_path / f"{fraction}-{seed}", fraction, seed, score, result={"probe": {"stage": "stage7"}})
    curve = curve_of_runs([tmp_path])
    assert [one.repeat for one in curve.measured] == [0, 0, 0]
    assert sum("nothing in it depends on the seed" in note for note in curve.notes) == 6
    assert any("also chose the penalty's strength" in note for note in curve.notes)


def test_a_probe_that_was_stopped_is_not_to_be_resumed(runs):
    (runs / "z-probe").mkdir()
    (runs / "z-probe" / "recipe.yaml").write_text("{}")
    (runs / "z-probe" / "command.txt").write_text("python -m workbench probe --recipe x")
    assert any(note.endswith("z-probe: not finished: probe again") for note in curve_of_runs([runs]).notes)


def refused(runs, *words, **options):
    with pytest.raises(UserError) as error:
        curve_of_runs([runs], **options)
    for word in words:
        assert word in str(error.value)


def test_what_differs_otherwise_is_named_and_may_be_allowed(runs):
    write_trained(runs / "other", 0.75, 0, 0.88, changes={"optim.lr": 0.5, "train.total_epochs": 3})
    refused(runs, "optim.lr: ", "0.5", "train.total_epochs: ", "--but KEY", "leave the others out")
    refused(runs, "optim.lr: ", but=["train.total_epochs"])
    curve = curve_of_runs([runs], but=["optim.lr", "train.total_epochs"])
    assert any(note.startswith("differs too: optim.lr: ") for note in curve.notes)
    assert len(curve.measured) == 9


def test_a_part_of_the_set_is_not_on_the_curve_of_the_whole(runs):
    folder = write_trained(runs / "part", 0.75, 0, 0.88)
    result = json.loads((folder / "result.json").read_text())
    result["stamps"].append("partial: 10 of 50000 train images")
    (folder / "result.json").write_text(json.dumps(result))
    refused(runs, "stamps: ", "partial: 10 of 50000 train images")


def test_other_scored_images_are_refused(runs):
    write_trained(runs / "other", 0.75, 0, 0.88, ids=190)
    refused(runs, "were scored on different selection images or labels", "data.holdout_fraction")


def test_a_closed_test_split_is_not_read(runs):
    refused(runs, "8 of 8 runs have no scores on test", "--split", split="test")


def test_test_is_read_where_the_runs_opened_it(tmp_path):
    for fraction, score in ((0.1, 0.7), (0.5, 0.8), (1.0, 0.9)):
        write_trained(tmp_path / str(fraction), fraction, 0, score, split="test")
    curve = curve_of_runs([tmp_path], "test")
    assert (curve.split, len(curve.labels)) == ("test", 200)
    assert not any("chose the weights" in note for note in curve.notes)


def test_damaged_and_foreign_logits_are_named(runs):
    path = runs / "0.1-0" / "logits.safetensors"
    kept = path.read_bytes()
    path.write_bytes((runs / "1.0-0" / "logits.safetensors").read_bytes())
    refused(runs, "0.1-0", "logits.safetensors gives another top1 than result.json")
    path.write_bytes(kept[:100])
    refused(runs, "logits.safetensors")
    path.unlink()
    refused(runs, "logits.safetensors: no such file")


def test_no_run_at_all_says_so(tmp_path):
    refused(tmp_path, "no finished run: none", "finish some fits first")


def test_a_name_is_no_markup(runs):
    card = make_card(curve_of_runs([runs]))
    odd = type(card.curve)("a|b $x$ <i>", *list(vars(card.curve).values())[1:])
    text = sections(make_card(odd))[0].text[1]
    assert text.startswith("a|b $x$ <i>: ")
