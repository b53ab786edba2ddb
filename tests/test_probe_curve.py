"""`probe --fractions`: a curve from embeddings, with no image scored by a strength that it chose, and test closed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from workbench import load_recipe
from workbench.analysis.learning_curve import forecast
from workbench.analysis.probe_curve import CurveOptions, curve_of_embedded, halves, probe_curve
from workbench.cli import app as command_line
from workbench.cli.app import app
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.splits import ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError
from workbench.training import embeddings
from workbench.training.embeddings import Embedded
from workbench.training.softmax_probe import solve

CLASSES = 5


class Features(ImageDataModule):
    """A set of which only the table is needed."""

    def __init__(self, table):
        super().__init__(card=DatasetCard("made", layout="blossoms", num_classes=CLASSES))
        self._table = table


def made(num_train=400, num_selection=300, noise=2.0, seed=0):
    """Return train and selection of Gaussian classes, and their set."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_train + num_selection) % CLASSES
    middles = rng.standard_normal((CLASSES, 16))
    features = torch.from_numpy(middles[labels] + noise * rng.standard_normal((len(labels), 16))).float()
    names = ["train"] * num_train + ["selection"] * num_selection
    ids = [f"i{i}" for i in range(len(labels))]
    table = ImageTable(ids, [None] * len(labels), labels, names, tuple("abcde"))
    targets = torch.from_numpy(labels)
    rows = np.arange(len(labels))
    cut = [
        Embedded(features[part], targets[part], rows[part])
        for part in (slice(num_train), slice(num_train, len(labels)))
    ]
    return *cut, Features(table)


def curve_of(options, **shape):
    train, selection, data = made(**shape)
    return curve_of_embedded(train, selection, data, options, "made")


def test_more_images_are_better_and_draws_differ_below_the_whole():
    curve = curve_of(CurveOptions((0.05, 0.1, 0.25, 0.5, 1), draws=3, strengths=(0.01, 0.1, 1.0)))
    sizes = [one.num_images for one in curve.measured]
    assert sizes == [20] * 3 + [40] * 3 + [100] * 3 + [200] * 3 + [400]
    scores = [np.mean([one.score for one in curve.measured if one.num_images == n]) for n in (20, 100, 400)]
    assert scores[0] < scores[1] < scores[2]
    assert len({one.score for one in curve.measured[:3]}) > 1
    for one in curve.measured:
        assert one.right.mean() == pytest.approx(one.score)
    assert forecast(curve.measured, curve.labels, curve.metric).num_images == 800


def test_each_half_is_scored_by_the_strength_that_is_best_on_the_other():
    train, selection, data = made()
    options = CurveOptions((1.0,), strengths=(1e-3, 1e-1, 10.0))
    (one,) = curve_of_embedded(train, selection, data, options, "made").measured
    second = halves([data.table.ids[row] for row in selection.rows])
    grid = solve(train.features, train.targets, CLASSES, options.strengths)
    answers = np.stack([s.logits(selection.features).argmax(1).numpy() for s in grid])
    right = answers == selection.targets.numpy()
    losses = np.stack(
        [
            torch.nn.functional.cross_entropy(s.logits(selection.features), selection.targets, reduction="none")
            for s in grid
        ]
    )
    expected = np.zeros(len(second), dtype=bool)
    for fold in (second, ~second):
        best = max(range(3), key=lambda i: (right[i][~fold].mean(), -losses[i][~fold].mean()))
        expected[fold] = right[best][fold]
    assert np.array_equal(one.right, expected)


def test_halves_follow_the_ids_and_are_even():
    ids = [f"i{i}" for i in range(101)]
    second = halves(ids)
    assert second.sum() == 50
    turned = np.random.default_rng(0).permutation(101)
    assert np.array_equal(halves([ids[i] for i in turned]), second[turned])


def test_mirrored_images_go_with_their_own():
    train, selection, data = made()
    twice = Embedded(train.features.repeat(2, 1), train.targets.repeat(2), np.tile(train.rows, 2))
    options = CurveOptions((0.25,), draws=1, strengths=(0.1,))
    (one,), (two,) = (curve_of_embedded(part, selection, data, options, "").measured for part in (train, twice))
    assert (one.num_images, two.num_images) == (100, 100)
    assert np.array_equal(one.right, two.right)


def test_a_grid_too_narrow_is_told():
    curve = curve_of(CurveOptions((1.0,), strengths=(1e-6, 1e-5)))
    assert any(note.startswith("2 of 2 chosen strengths are at the rim") for note in curve.notes)


# the whole of it


@pytest.fixture
def tiny(tiny_recipe):
    return lambda *more: load_recipe(str(tiny_recipe), ["data.prepared_root=prepared", *more]).recipe


def test_the_verb_writes_the_card_and_leaves_test_closed(tiny_recipe, monkeypatch):
    seen = []
    real = embeddings._embed
    monkeypatch.setattr(embeddings, "_embed", lambda *a: seen.append((a[2], len(a[3]))) or real(*a))
    command = ["probe", "--recipe", str(tiny_recipe), "--fractions", ".2,.5,1", "--draws", "2", "--out", "out"]
    done = CliRunner().invoke(app, [*command, "data.prepared_root=prepared"])
    assert done.exit_code == 0, done.output
    assert seen == [("train", 36), ("selection", 12)]
    lines = [line for line in done.output.splitlines() if line.startswith(("| 7 ", "| 18 ", "| 36 "))]
    assert [line.split(" | ")[1] for line in lines] == ["2", "2", "1"]
    assert "top1 on selection 100.00 % with 7 training images" in done.output
    assert "no law: nothing is wrong at any size" in done.output
    assert not Path("runs").exists()
    assert {path.name for path in Path("out").iterdir()} == {
        *(f"learning_curve.{kind}" for kind in ("md", "csv", "png")),
        "log.txt",
    }
    assert "draw 1, strengths" in Path("out/learning_curve.csv").read_text()


def test_selection_is_scored_on_and_never_trained_on(tiny):
    options = CurveOptions((1.0,), strengths=(1.0,))
    both, train = (probe_curve(tiny(f"data.train_on={parts}"), options) for parts in ("train+selection", "train"))
    assert both.measured[0].num_images == train.measured[0].num_images == 36
    assert np.array_equal(both.measured[0].right, train.measured[0].right)


@pytest.mark.parametrize(
    ("fractions", "overrides", "words"),
    [
        ((0.5, 1.5), [], "1.5"),
        ((0.5,), ["model.head=mlp"], "add model.head=linear"),
    ],
)
def test_what_cannot_be_measured_is_refused(tiny, fractions, overrides, words):
    with pytest.raises(UserError) as error:
        probe_curve(tiny(*overrides), CurveOptions(fractions))
    assert words in str(error.value)


def test_other_questions_are_not_mixed_in(tiny_recipe, monkeypatch, capsys):
    command = ["workbench", "probe", "--recipe", str(tiny_recipe), "--fractions", ".5", "--knn", "1"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        command_line.main()
    assert stop.value.code == 2
    assert "ask for them without --fractions" in capsys.readouterr().err
