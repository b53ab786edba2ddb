"""What counts as the same images in a report, which stamps make a part of a set, and runs that are odd."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from run_folders import write_run

from workbench import card_files
from workbench.analysis import report_figure
from workbench.analysis.report import make_report, write_report
from workbench.analysis.report_sections import briefly
from workbench.training.evaluate import _images_digest, evaluate

HELD_OUT = "test held out of train by hash: 18 images"


@pytest.fixture
def drawn(monkeypatch):
    """Rows that the figure draws, of Flowers only so that it is quick."""
    rows = []
    monkeypatch.setattr(report_figure, "CARDS", ("flowers",))
    monkeypatch.setattr(report_figure, "_panel", lambda axes, name, own: rows.extend(own))
    return rows


def only(rows):
    (row,) = rows
    return row


@pytest.mark.parametrize("stamp", [HELD_OUT, "not used: the copy's split extra (see data.hub.splits)"])
def test_a_stamp_that_is_no_missing_part_is_a_flag(tmp_path, stamp, drawn):
    expect = {"metric": "test/mean_per_class", "low": 0.8, "high": 0.9, "num_seeds": 2, "measured": "here"}
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, score=0.85 + seed / 100, arch="b7", expect=expect, stamps=[stamp])
    report = make_report([tmp_path])
    row = only(report.measured)
    assert (row.num_seeds, row.stamps, row.expected) == (2, "", "inside")
    assert stamp in row.flags
    assert "interval" in row.beside
    write_report(report, tmp_path / "out")
    assert drawn == [row]
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"row 1: {stamp}" in text
    assert "part of the set" not in text + briefly(report)


def test_a_part_is_never_averaged_with_whole_sets_and_not_drawn(tmp_path, drawn):
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed=seed, arch="b7", stamps=["partial: 3 of 4 test images", HELD_OUT])
    write_run(tmp_path / "whole", seed=2, arch="b7", stamps=[HELD_OUT])
    report = make_report([tmp_path])
    assert [(row.num_seeds, row.stamps) for row in report.measured] == [(1, ""), (2, "partial: 3 of 4 test images")]
    write_report(report, tmp_path / "out")
    assert drawn == report.measured[:1]
    assert "never averaged with whole sets: partial: 3 of 4" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(("dataset", "rows"), [("folder", 2), ("csv", 2), ("hub", 2), ("my_own", 2), ("flowers", 1)])
def test_two_folders_with_the_same_names_are_two_sets_unless_the_card_counts_its_images(tmp_path, dataset, rows):
    for seed, path in enumerate(("/a/photos", "/b/photos")):
        write_run(tmp_path / str(seed), dataset, seed, metric="top1", changes={"data.path": path})
    report = make_report([tmp_path])
    assert len(report.measured) == rows
    if rows == 2:
        assert [row.differs for row in report.measured] == ["data.path: /a/photos", "data.path: /b/photos"]


def test_an_export_tells_two_folders_apart_too(tmp_path):
    (tmp_path / "e.csv").write_text(
        "Name,data.card,model.arch,train.seed,data.path,test/top1\n"
        "one,folder,b0,0,/a,0.8\ntwo,folder,b0,1,/b,0.9\nthree,cars,b0,0,/a,0.8\nfour,cars,b0,1,/b,0.9\n"
    )
    assert sorted(row.runs for row in make_report([], [tmp_path / "e.csv"]).measured) == ["one", "three four", "two"]


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        ("/x/b0.pth", "../y/b0.pth", 1),
        ("/x/b0.pth", "/x/b1.pth", 2),
        ("runs/a/model.safetensors", "runs/b/model.safetensors", 2),
        ("torchvision/imagenet", "hub/imagenet", 2),
    ],
)
def test_a_weights_file_is_told_by_its_name(tmp_path, first, second, rows):
    for seed, weights in enumerate((first, second)):
        write_run(tmp_path / str(seed), seed=seed, changes={"model.weights": weights})
    assert len(make_report([tmp_path]).measured) == rows


def write_evaluation(path, run, **more):
    scores = {"loss": 1.0, "top1": 0.5, "n": 10, "interval95": [0.4, 0.6]} | more.pop("scores", {})
    told = {"model": str(run), "dataset": "imagenet", "split": "test", "metric": "top1", "test_openings": 1}
    path.write_text(json.dumps({**told, "scores": scores, "stamps": [], **more}))
    return path


def test_two_evaluations_of_one_model_on_other_images_are_two_rows(tmp_path):
    run = write_run(tmp_path / "r", dataset="imagenet", score=0.77)
    (run / "model.json").write_text(json.dumps({"provenance": {"recipe": {"train": {"seed": 0}}}, "arch": arch()}))
    files = [
        write_evaluation(tmp_path / "30.json", run, scores={"n": 30}),
        write_evaluation(tmp_path / "77.json", run, scores={"n": 77}),
        write_evaluation(tmp_path / "other.json", run, scores={"n": 77}, ids_sha256="ab" * 32),
        write_evaluation(tmp_path / "again.json", run, scores={"n": 77}, ids_sha256="ab" * 32),
    ]
    report = make_report(files)
    assert sorted(row.num_images for row in report.measured) == [30, 77, 77]
    assert any("same seed again" in row.flags for row in report.measured)


def arch():
    return {"name": "b0", "width": 1.0, "depth": 1.0, "resolution": 224, "dropout": 0.2}


def test_the_pictures_tell_two_sets_apart_whose_card_does_not_count_them():
    def digest(dataset, names, pictures, rows):
        table = SimpleNamespace(ids=names, labels=np.arange(len(names)))
        card = card_files.load_card(dataset)
        return _images_digest(SimpleNamespace(table=table, facts={"sha256": pictures}, card=card), np.array(rows))

    one = digest("folder", ["a", "b"], ["00", "11"], [0, 1])
    assert digest("folder", ["a", "b"], ["00", "11"], [1, 0]) == one
    assert digest("folder", ["a", "b"], ["00", "12"], [0, 1]) != one
    assert digest("folder", ["a", "b"], ["00", "11"], [0]) != one
    assert digest("flowers", ["a", "b"], ["00"], [0, 1]) == digest("flowers", ["a", "b"], ["12"], [0, 1])


def test_an_evaluation_says_which_images_it_scored(finished_run, tmp_path):
    run = shutil.copytree(finished_run.folder, tmp_path / "run")  # opening test leaves a record in the folder
    chosen = evaluate(run, "selection")["ids_sha256"]
    assert chosen == evaluate(run, "selection")["ids_sha256"]
    assert len(chosen) == 64
    assert chosen != evaluate(run, "test")["ids_sha256"]


SCORES = {"loss": 0.5, "mean_per_class": 0.9, "top1": 0.9, "n": 9, "openings": 1}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"test": {**SCORES, "top1": float("nan")}}, "its top1 is nan"),
        ({"test": {**SCORES, "loss": float("inf")}}, "its loss is inf"),
        ({"test": {**SCORES, "mean_per_class": "0.9"}}, "its mean_per_class is 0.9"),
        ({"test": {**SCORES, "mean_per_class": 90}}, "its mean_per_class is 90"),
        ({"test": {**SCORES, "interval95": [0.8]}}, r"its interval95 is [0.8]"),
        ({"test": {**SCORES, "interval95": [float("nan"), 1]}}, "its interval95 is [nan, 1]"),
        (
            {"test": {**SCORES, "interval95": [0.1, 0.2]}},
            "its mean_per_class, 0.9, is outside its interval95, [0.1, 0.2]",
        ),
        ({"test": {**SCORES, "n": "9"}}, "its n is 9"),
        ({"test": None}, "scores neither on selection nor on test"),
        ({"test": [0.9]}, "its scores are [0.9]"),
        ({"seed": [1]}, "its seed is [1]"),
        ({"stamps": None}, "damaged"),
        ({"metric": "top6"}, "'top6'"),
    ],
)
def test_an_odd_run_is_left_out_with_the_reason_and_the_others_are_reported(tmp_path, result, reason):
    write_run(tmp_path / "good")
    odd = write_run(tmp_path / "odd", seed=1, result=result)
    report = make_report([tmp_path])
    assert only(report.measured).num_seeds == 1
    left = only(report.left_out)
    assert left.name == str(odd)
    assert reason in left.reason


@pytest.mark.parametrize("expect", [[1], {"metric": "test/top1", "low": "x", "high": 1}, {"metric": 1}])
def test_an_odd_expectation_is_left_out(tmp_path, expect):
    write_run(tmp_path / "good")
    write_run(tmp_path / "odd", seed=1, expect=expect)
    assert "its about.expect" in only(make_report([tmp_path]).left_out).reason


def test_an_odd_evaluation_is_left_out(tmp_path):
    run = write_run(tmp_path / "r", dataset="imagenet", score=0.77)
    odd = write_evaluation(tmp_path / "odd.json", run, scores={"top1": float("nan")})
    report = make_report([run, odd])
    assert len(report.measured) == 1
    assert only(report.left_out).name == str(odd)
    assert "its top1 is nan" in only(report.left_out).reason


def test_an_interval_that_rounding_puts_beside_the_score_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(report_figure, "CARDS", ("flowers",))
    write_run(tmp_path / "r", score=0.97, interval=[0.97 + 1e-12, 0.98])
    row = only(make_report([tmp_path]).measured)
    assert row.low > row.percent
    report_figure.draw_figure_6([row], tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000
