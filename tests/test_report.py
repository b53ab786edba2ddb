"""Runs beside the paper's tables: averaged only where nothing but the seed differs, each with its interval and n."""

import json
import math

import pytest
from click.testing import CliRunner
from PIL import Image
from run_folders import read_rows, write_run

from workbench.analysis.report import make_report, write_report
from workbench.analysis.report_pages import to_html, to_markdown
from workbench.analysis.report_printed import points
from workbench.analysis.report_sections import briefly, sections
from workbench.specs.errors import UserError
from workbench.specs.published import TABLE_5, published_for

# Table 5 again: card, previous best, its accuracy and parameters (M), the EfficientNet, its accuracy, ratio
PRINTED = """
cifar10 NASNet-A 98.0 85 b0 98.1 21 | cifar10 GPipe 99.0 556 b7 98.9 8.7
cifar100 NASNet-A 87.5 85 b0 88.1 21 | cifar100 GPipe 91.3 556 b7 91.7 8.7
birdsnap Inception-v4 81.8 41 b5 82.0 1.5 | birdsnap GPipe 83.6 556 b7 84.3 8.7
cars Inception-v4 93.4 41 b3 93.6 4.1 | cars DAT 94.8 - b7 94.7 -
flowers Inception-v4 98.5 41 b5 98.5 1.5 | flowers DAT 97.7 - b7 98.8 -
aircraft Inception-v4 90.9 41 b3 90.7 4.1 | aircraft DAT 92.9 - b7 92.9 -
pets ResNet-152 94.5 58 b4 94.8 5.6 | pets GPipe 95.9 556 b6 95.4 14
food101 Inception-v4 90.8 41 b4 91.5 2.4 | food101 GPipe 93.0 556 b7 93.0 8.7
"""


def rows_of(report, **wanted):
    return [row for row in report.rows if all(getattr(row, key) == value for key, value in wanted.items())]


def only(rows):
    (row,) = rows
    return row


def test_table_5_is_as_printed():
    printed = [half.split() for line in PRINTED.strip().splitlines() for half in line.split(" | ")]
    number = {"-": None}
    expected = [
        (
            card,
            other,
            float(p),
            number[m] if m in number else float(m),
            arch,
            float(q),
            number[r] if r in number else float(r),
        )
        for card, other, p, m, arch, q, r in printed
    ]
    found = [(r.card, r.other, r.other_percent, r.other_params_m, r.arch, r.percent, r.ratio) for r in TABLE_5]
    assert found == expected
    # the paper's own geometric means of the ratios
    for against, mean in (("public", 4.7), ("reported", 9.6)):
        ratios = [row.ratio for row in TABLE_5 if row.against == against and row.ratio]
        assert math.prod(ratios) ** (1 / len(ratios)) == pytest.approx(mean, abs=0.05)
    assert {(r.card, r.document) for r in TABLE_5 if r.document} == {("birdsnap", 88.3), ("aircraft", 91.4)}
    assert published_for("cars", "b7").accuracy == 0.947
    assert published_for("cars", "b0") is None


def test_seeds_of_one_recipe_become_one_row_with_students_interval(tmp_path):
    for seed, score in enumerate((0.8, 0.9, 0.7)):
        moved = {
            "data.root": f"/disk{seed}",
            "track.runs_dir": f"r{seed}",
            "track.tags": [str(seed)],
            "data.num_workers": seed,
        }
        write_run(tmp_path / f"r{seed}", seed=seed, score=score, changes=moved)
    row = only(make_report([tmp_path]).measured)
    assert (row.percent, row.num_seeds, row.seeds, row.num_images) == (pytest.approx(80), 3, "0 1 2", 1000)
    assert (row.low, row.high) == pytest.approx((80 - 24.84, 80 + 24.84), abs=0.01)
    assert (row.lowest, row.highest) == (70, 90)
    assert "over seeds" in row.interval_of


def test_one_run_has_the_interval_of_its_images_and_says_so(tmp_path):
    write_run(tmp_path / "r", score=0.985, arch="b5", interval=[0.98, 0.99])
    row = only(make_report([tmp_path / "r"]).measured)
    assert (row.low, row.high, row.interval_of) == (98, 99, "over images, one run")
    assert row.beside == "98.5: inside the interval"
    assert row.params_m == pytest.approx(28.340784)  # protocol.md 1.2, without the head
    assert row.reduction == "1.4x fewer than Inception-v4"


@pytest.mark.parametrize(
    ("low", "word"), [(0.90, "outside, above"), (0.988, "inside"), (0.987, "inside"), (0.9881, "outside, below")]
)
def test_which_side_of_the_interval_the_published_value_lies_on(tmp_path, low, word):
    write_run(tmp_path / "r", arch="b7", score=low + 0.001, interval=[low, low + 0.002])
    assert only(make_report([tmp_path]).measured).beside == f"98.8: {word} the interval"


def test_two_recipes_are_never_averaged_and_what_differs_is_named(tmp_path):
    write_run(tmp_path / "a", seed=0, changes={"optim.lr": 0.01})
    write_run(tmp_path / "b", seed=1, changes={"optim.lr": 0.003})
    report = make_report([tmp_path])
    assert [row.num_seeds for row in report.measured] == [1, 1]
    assert [row.differs for row in report.measured] == ["optim.lr: 0.01", "optim.lr: 0.003"]
    assert "flowers, b0, rows 1, 2: optim.lr: 0.01 vs 0.003" in to_markdown("", sections(report))


@pytest.mark.parametrize("other", [{"labels": "1"}, {"ids": ["a", "c"]}])
def test_other_images_or_labels_are_never_averaged(tmp_path, other):
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, **other)
    report = make_report([tmp_path])
    assert len(report.measured) == 2
    assert list(report.differing[0][3]) == ["test ids and labels (hash)"]


def test_a_part_of_the_set_has_its_own_row_is_stamped_and_not_compared(tmp_path):
    write_run(tmp_path / "a", seed=0, arch="b7")
    write_run(tmp_path / "b", seed=1, arch="b7", stamps=["partial: 30 of 6149 test images"])
    report = make_report([tmp_path])
    whole, part = report.measured
    assert (whole.num_seeds, part.num_seeds, whole.stamps) == (1, 1, "")
    assert part.beside == "98.8: not comparable, part of the set"
    write_report(report, tmp_path / "out")
    for name in ("report.md", "report.html", "report.csv"):
        assert "partial: 30 of 6149 test images" in (tmp_path / "out" / name).read_text(), name
    assert "(part of the set)" in briefly(report)


def test_the_same_seed_twice_is_one_seed(tmp_path):
    for name in ("r1", "r2"):
        write_run(tmp_path / name, seed=3)
    row = only(make_report([tmp_path, tmp_path / "r1"]).measured)
    assert row.num_seeds == 1
    assert f"same seed again: {tmp_path / 'r2'}" in row.flags


@pytest.mark.parametrize(
    ("score", "word"), [(0.84875, "inside"), (0.8487, "below"), (0.86, "inside"), (0.87125, "inside"), (0.88, "above")]
)
def test_what_a_recipe_expects_is_checked(tmp_path, score, word):
    expect = {"metric": "test/top1", "low": 0.8488, "high": 0.8713, "num_seeds": 3, "measured": "here"}
    write_run(tmp_path / "r", dataset="blossoms", arch="tiny", score=score, name="mine", expect=expect)
    report = make_report([tmp_path])
    row = only(report.measured)
    assert row.expected == word
    assert f"expected test/top1 84.88 to 87.13 (3 seeds; here); measured {100 * score:.2f}: {word}" in briefly(report)


def test_an_expectation_of_another_recipe_says_what_was_changed(tmp_path):
    expect = {"metric": "test/top1", "low": 0.8, "high": 0.9, "num_seeds": 3, "measured": "here"}
    write_run(tmp_path / "r", dataset="blossoms", arch="tiny", name="quickstart", score=0.85, expect=expect)
    sentence = only(make_report([tmp_path]).measured).expectation
    assert "data.batch_size" in sentence
    assert "more differ in this run from the recipe of that name" in sentence
    write_run(
        tmp_path / "p", dataset="blossoms", arch="b0", score=0.2, expect=expect, stamps=["partial: 3 of 4 test images"]
    )
    assert only(make_report([tmp_path / "p"]).measured).expected == "not comparable"
    write_run(tmp_path / "n", dataset="blossoms", arch="b1", expect={"metric": "test/top1", "low": None, "high": None})
    assert only(make_report([tmp_path / "n"]).measured).expected == "not checked"


def test_what_a_reader_must_know_is_flagged(tmp_path):
    write_run(tmp_path / "r", openings=3, result={"dropped": 2, "leaked": ["a", "b"]})
    flags = only(make_report([tmp_path]).measured).flags
    assert flags == "test opened 3 times; 2 images dropped that do not decode; 2 test images leaked from train"


def test_runs_that_never_opened_test_are_listed_apart_best_first(tmp_path):
    sweep = tmp_path / "sweeps" / "mine"
    for place, score in enumerate((0.5, 0.9, 0.7)):
        write_run(sweep / "runs" / "cars_b0" / str(place), dataset="cars", test=False, score=score, seed=0)
    write_run(sweep / "runs" / "final" / "0", dataset="cars", score=0.8)
    (sweep / "final.json").write_text("{}")
    (sweep / "runs" / "cars_b0" / "9").mkdir()
    (sweep / "runs" / "cars_b0" / "9" / "recipe.yaml").write_text("")
    report = make_report([sweep])
    assert [row.percent for row in rows_of(report, table="selection only")] == pytest.approx([90, 70, 50])
    assert only(report.measured).percent == 80
    assert "not finished" in only(report.left_out).reason
    assert "3 runs on the selection split only" in briefly(report)


def test_imagenet_runs_stand_in_table_2_with_what_the_document_says(tmp_path):
    write_run(tmp_path / "r", dataset="imagenet", score=0.7711, interval=[0.768, 0.775], steps=0)
    report = make_report([tmp_path])
    printed = rows_of(report, table="Table 2", what="published")
    assert [row.model for row in printed] == ["EfficientNet-B0", "ResNet-50", "DenseNet-169"]
    assert (printed[1].percent, printed[1].document, printed[1].params_m) == (76.0, 76.3, 26)
    row = only(report.measured)
    assert (row.top5, row.params_m) == (99, 5.288548)
    assert (row.beside, row.flags) == ("77.1: inside the interval", "evaluated without training")
    assert "76.0 (document: 76.3)" in to_html("", sections(report), "report.jinja")
    write_run(tmp_path / "b1", dataset="imagenet", arch="b1", score=0.79)
    assert "| 11 (document: 11.3) |" in to_markdown("", sections(make_report([tmp_path])))


def test_an_evaluation_is_a_row_of_its_own(tmp_path):
    run = write_run(tmp_path / "r", dataset="imagenet", score=0.77)
    scores = {"loss": 1.0, "top1": 0.5, "top5": 0.6, "mean_per_class": 0.5, "n": 10, "interval95": [0.4, 0.6]}
    told = {"model": str(run), "dataset": "imagenet", "split": "test", "metric": "top1", "scores": scores}
    (tmp_path / "e.json").write_text(json.dumps({**told, "test_openings": 4, "stamps": []}))
    report = make_report([run, tmp_path / "e.json"])
    assert sorted(row.percent for row in report.measured) == [50, 77]
    assert "test opened 4 times" in only(rows_of(report, source="evaluation")).flags
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(UserError, match="not an evaluation.*'split'"):
        make_report([tmp_path / "odd.json"])


EXPORT = """Name,State,data.card,model.arch,optim.lr,train.seed,data.root,test/top1,val/top1,test/loss
one,finished,cars,b0,0.01,0,/a,0.80,0.7,1
two,finished,cars,b0,0.01,1,/b,0.90,0.7,1
three,finished,cars,b0,0.1,2,/b,0.95,0.7,1
four,crashed,cars,b0,0.1,2,/b,0.95,0.7,1
"=cmd()",finished,cars,b0,0.1,3,/b,,0.6,1
five,finished,cars,b0,0.1,4,/b,NaN,,1
six,finished,,b0,0.1,4,/b,0.9,,1
"""


def test_an_export_of_w_and_b_is_grouped_by_what_it_tells(tmp_path):
    (tmp_path / "export.csv").write_text(EXPORT)
    write_run(tmp_path / "r", dataset="cars", seed=5, score=0.7)
    report = make_report([tmp_path / "r"], [tmp_path / "export.csv"])
    pair = only(rows_of(report, source="W&B export", num_seeds=2))
    assert (pair.percent, pair.runs, pair.num_images) == (pytest.approx(85), "one two", None)
    assert "not known" in pair.flags
    alone = only([row for row in report.measured if row.runs == "three"])
    assert (alone.low, alone.beside, alone.differs) == (
        None,
        "none is printed for this arch",
        "from: W&B export; optim.lr: 0.1",
    )
    assert only(rows_of(report, table="selection only")).runs == "=cmd()"
    assert [entry.name for entry in report.left_out] == ["four", "five", "six"]
    write_report(report, tmp_path / "out")
    assert "'=cmd()" in [row["runs"] for row in read_rows(tmp_path / "out" / "report.csv")]


@pytest.mark.parametrize("head", ["Name,optim.lr,test/top1", "Name,data.card,model.arch", ""])
def test_a_csv_that_is_no_such_export_is_refused_with_what_it_lacks(tmp_path, head):
    (tmp_path / "export.csv").write_text(head + "\n")
    with pytest.raises(UserError, match="no column (data.card, model.arch|test/top1)") as error:
        make_report([], [tmp_path / "export.csv"])
    assert "then export it again" in error.value.problems[0].remedy


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        make_report([tmp_path / "none"])
    with pytest.raises(UserError, match="no run folder in them"):
        make_report([tmp_path])
    run = write_run(tmp_path / "r")
    good = write_run(tmp_path / "s")
    (run / "result.json").write_text('{"recipe": "x"}')
    assert "damaged: KeyError: 'test'" in only(make_report([tmp_path]).left_out).reason
    write_run(tmp_path / "nan", score=float("nan"))
    assert "its mean_per_class is nan" in make_report([tmp_path]).left_out[0].reason
    (good / "result.json").unlink()
    with pytest.raises(UserError, match="damaged.*not finished"):
        make_report([tmp_path])


def test_names_are_escaped_everywhere(tmp_path):
    name = "=<script>alert(1)</script>|x"
    write_run(tmp_path / "r", dataset="blossoms", name=name)
    write_report(make_report([tmp_path]), tmp_path / "out")
    page, text = ((tmp_path / "out" / file).read_text() for file in ("report.html", "report.md"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in text
    assert r"\|x" in text
    assert read_rows(tmp_path / "out" / "report.csv")[0]["recipe"] == "'" + name


def test_the_figure_draws_printed_and_measured_points_only(tmp_path):
    # GPipe's own figures on Cars are in its paper, not in Table 5
    assert points("cars") == [("B3", 10, 93.6, True), ("Inception-v4", 41, 93.4, False)] + [
        ("B7", 64, 94.7, True),
        ("GPipe", 556, 94.6, False),
    ]
    write_run(tmp_path / "r", dataset="blossoms", arch="tiny")
    write_report(make_report([tmp_path]), tmp_path / "one")
    write_run(tmp_path / "s", dataset="cars")
    write_report(make_report([tmp_path]), tmp_path / "nine")
    sizes = [Image.open(tmp_path / name / "figure6.png").size for name in ("one", "nine")]
    assert sizes[1][0] > 2 * sizes[0][0]
    assert sizes[1][1] > 2 * sizes[0][1]


def test_the_command_reports_a_real_run(finished_run, tmp_path):
    from workbench.cli.report_verb import command

    done = CliRunner().invoke(command, [str(finished_run.folder), "--out", "out"], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{100 * finished_run.result['test']['top1']:.2f}" in done.output
    assert done.output.splitlines()[-1] == "out/figure6.png"
    row = only([row for row in read_rows(tmp_path / "out" / "report.csv") if row["what"] == "measured"])
    assert (row["num_images"], row["model"], row["metric"]) == ("12", "tiny", "top1")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    with pytest.raises(UserError, match="nothing"):
        CliRunner().invoke(command, [], catch_exceptions=False)
