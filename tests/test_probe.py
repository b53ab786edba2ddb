"""A probe: embeddings that are kept, checked and made again; a run folder that every other verb takes."""

import json
import shutil
import signal

import pytest
import torch
from click.testing import CliRunner
from conftest import paint
from safetensors.torch import save_file
from test_fit import read_rows

from workbench import evaluate, load_recipe
from workbench.analysis.compare_files import read_tested
from workbench.analysis.report_runs import find_runs
from workbench.cli import app as command_line
from workbench.data import image_datamodule
from workbench.data.image_rows import ImageRows
from workbench.specs.errors import UserError
from workbench.training import building, embeddings, kept_features
from workbench.training.embeddings import embedded_split
from workbench.training.probe import ProbeOptions, probe
from workbench.training.recipe_numbers import Lengths
from workbench.training.results import scores_from_predictions
from workbench.training.schedules import PhasePlan


def tiny(path, *overrides):
    return load_recipe(str(path), ["train.precision=fp32", *overrides])


@pytest.fixture
def parts(tiny_recipe):
    """Return a function that builds the classifier and the set of a recipe, kept embeddings in a new folder."""

    def build(*overrides):
        loaded = tiny(tiny_recipe, "data.prepared_root=prepared", *overrides)
        torch.manual_seed(loaded.recipe.train.seed)
        data = building.build_data(loaded.recipe, loaded.card)
        lengths = Lengths(1, 1, (PhasePlan("head", 1, 1.0),), 1)
        return building.build_classifier(loaded.recipe, data, lengths), data

    return build


@pytest.fixture
def passes(monkeypatch):
    """Count what is embedded."""
    seen = []
    real = embeddings._embed
    monkeypatch.setattr(embeddings, "_embed", lambda *a: seen.append((a[2], len(a[3]))) or real(*a))
    return seen


def kept(split="train"):
    (path,) = [path for path in embedded_files() if f"-{split}-" in path.name]
    return path


def embedded_files():
    from pathlib import Path

    return sorted(Path("prepared/embeddings").glob("*.safetensors"))


def directly(classifier, data, split, mirrored=False):
    images = torch.cat([batch.images for batch in data.eval_dataloader(split)])
    from workbench.data.transforms import normalise

    with torch.no_grad():
        return classifier.eval().embed(normalise(images.flip(-1) if mirrored else images, data.preprocessing))


def test_embeddings_are_what_the_network_gives_and_are_kept(parts, passes):
    weights = "model.weights=embedded/blossoms"  # random ones hardly tell a picture from its mirror image
    classifier, data = parts(weights)
    assert (directly(classifier, data, "train") - directly(classifier, data, "train", True)).abs().max() > 0.01
    for mirrored in (False, True):
        made = embedded_split(classifier, data, "train", mirrored=mirrored)
        torch.testing.assert_close(made.features, directly(classifier, data, "train", mirrored))
        assert made.rows.tolist() == data.rows("train").tolist()
        assert made.targets.tolist() == data.table.labels[made.rows].tolist()
    assert passes == [("train", 36)] * 2
    again = embedded_split(*parts(weights), "train")
    assert passes == [("train", 36)] * 2
    assert torch.equal(again.features, embedded_split(classifier, data, "train").features)
    both = embedded_split(*parts(weights, "data.train_on=train+selection"), "train")
    assert passes[2:] == [("selection", 12)]
    assert (len(both.rows), sorted(both.rows.tolist())) == (48, both.rows.tolist())
    few = embedded_split(classifier, data, "test", rows=data.rows("test")[[5, 1]])
    assert passes[3:] == [("test", 2)]
    torch.testing.assert_close(few.features, directly(classifier, data, "test")[[5, 1]])


@pytest.mark.parametrize(
    "change",
    [["train.seed=5"], ["data.eval_resize=36"], ["model.bn_eps=0.01"], ["data.holdout_fraction=0.3"]],
    ids=["weights", "preprocessing", "epsilon", "rows"],
)
def test_whatever_decides_a_feature_makes_it_anew(parts, passes, change):
    embedded_split(*parts(), "train")
    embedded_split(*parts(*change), "train")
    assert len(passes) == len(embedded_files()) == 2
    embedded_split(*parts(), "train", stage="stage3")
    embedded_split(*parts(), "train", precision="bf16-mixed")
    assert len(passes) == 4


def test_damaged_and_foreign_files_are_made_again(parts, passes, caplog):
    caplog.set_level("INFO", "workbench")
    made = embedded_split(*parts(), "train").features
    whole = kept().read_bytes()
    kept().write_bytes(whole[:-7])
    assert torch.equal(embedded_split(*parts(), "train").features, made)
    kept().write_bytes(whole[:-40] + bytes([whole[-40] ^ 64]) + whole[-39:])
    assert torch.equal(embedded_split(*parts(), "train").features, made)
    assert caplog.text.count("is damaged: its features are computed again") == 2
    first = kept()
    embedded_split(*parts("train.seed=5"), "train")
    (other,) = set(embedded_files()) - {first}
    shutil.copy(other, first)
    assert torch.equal(embedded_split(*parts(), "train").features, made)
    save_file({"features": made}, first)  # whole, but by nobody who says what it is of
    assert torch.equal(embedded_split(*parts(), "train").features, made)
    assert len(passes) == 6
    assert first.read_bytes() == whole


@pytest.mark.parametrize("library", [embeddings.torch, embeddings.torchvision, embeddings.PIL])
def test_another_version_may_decode_or_resize_otherwise(parts, passes, monkeypatch, library):
    embedded_split(*parts(), "test")
    monkeypatch.setattr(library, "__version__", "0.0")
    embedded_split(*parts(), "test")
    assert len(passes) == 2


def test_what_was_embedded_before_a_stop_is_not_embedded_again(parts, passes, monkeypatch):
    expected = embedded_split(*parts(), "train").features
    for path in embedded_files():
        path.unlink()
    monkeypatch.setattr(embeddings, "PART", 8)
    monkeypatch.setattr(image_datamodule, "EVAL_BATCH", 4)
    real, done = ImageRows.__getitem__, []

    def stopped(rows, item):
        if len(done) == 30:
            raise KeyboardInterrupt
        done.append(item)
        return real(rows, item)

    monkeypatch.setattr(ImageRows, "__getitem__", stopped)
    with pytest.raises(KeyboardInterrupt):
        embedded_split(*parts(), "train")
    assert len(embedded_files()) == 3
    embedded_files()[0].write_bytes(b"damaged")
    monkeypatch.setattr(ImageRows, "__getitem__", real)
    torch.testing.assert_close(embedded_split(*parts(), "train").features, expected)
    assert [count for _, count in passes[1:-1]] == [36]
    assert passes[-1][1] in (36, 28, 20)  # from the first part that is not there
    assert len(embedded_files()) == 1


def test_where_nothing_can_be_kept_it_goes_on(parts, passes, monkeypatch, caplog):
    caplog.set_level("INFO", "workbench")

    def full(path, tensors):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(kept_features, "save_tensors", full)
    first = embedded_split(*parts(), "train").features
    assert torch.equal(embedded_split(*parts(), "train").features, first)
    assert len(passes) == 2
    assert "embeddings are not kept" in caplog.text
    assert "No space left" in caplog.text


def test_the_run_folder_is_one_that_other_verbs_take(tiny_recipe, finished_run, tmp_path):
    options = ProbeOptions(flips=True, neighbours=(1, 5), shots=(1, 4), draws=3, strengths=(1e-3, 1e-1, 1.0))
    outcome = probe(tiny(tiny_recipe).recipe, options)
    result, folder = outcome.result, outcome.folder
    assert json.loads((folder / "result.json").read_text()) == result
    assert set(result) - {"probe"} == set(finished_run.result)
    assert set(result["tracking"]) == set(finished_run.result["tracking"])
    grid = result["probe"]["grid"]
    assert [row["strength"] for row in grid] == [1e-3, 1e-1, 1.0]
    best = max(grid, key=lambda row: (row["top1"], -row["loss"]))
    assert result["probe"]["strength"] == best["strength"]
    assert result["selection"]["top1"] == best["top1"] > 0.4
    for name, value in scores_from_predictions(read_rows(folder / "predictions.csv"), 3).items():
        assert value == pytest.approx(result["test"][name], abs=1e-6), name
    assert [o["purpose"] for o in json.loads((folder / "test_openings.json").read_text())] == ["probe"]
    assert [row["shots"] for row in result["probe"]["few_shot"]] == [1, 4]
    assert all(row["lowest"] <= row["mean"] <= row["highest"] for row in result["probe"]["few_shot"])
    assert [row["neighbours"] for row in result["probe"]["nearest"]] == [1, 5]
    assert f"{100 * result['test']['top1']:.2f} %" in (folder / "report.html").read_text()
    assert load_recipe(str(folder / "recipe.yaml")).recipe.augment.crop == "center"
    for split in ("selection", "test"):  # the model's own pass over the images
        scores = evaluate(folder, split)["scores"]
        assert scores["loss"] == pytest.approx(result[split]["loss"], rel=1e-3)
        assert scores["top1"] == result[split]["top1"]
    assert len(read_tested(folder).rows) == 12
    runs, left_out = find_runs([folder, finished_run.folder])
    assert not left_out
    assert runs[0].kind != runs[1].kind
    assert runs[0].settings["probe"] == "top"
    again = probe(tiny(tiny_recipe).recipe, options)  # nothing is drawn anew
    assert again.result["probe"]["grid"] == grid
    assert again.result["probe"]["few_shot"] == result["probe"]["few_shot"]


def test_the_choice_is_made_on_train_and_the_head_solved_for_on_both(tiny_recipe):
    options = ProbeOptions(strengths=(0.01, 0.1))
    alone = probe(tiny(tiny_recipe, "train.open_test=false").recipe, options)
    both = probe(tiny(tiny_recipe, "data.train_on=train+selection").recipe, options)
    assert both.result["probe"]["grid"] == alone.result["probe"]["grid"]
    assert alone.result["test"] is None
    assert not (alone.folder / "test_openings.json").exists()
    assert both.result["selection"] is None
    assert json.loads((both.folder / "splits.json").read_text())["counts"] == {"train": 48, "selection": 0, "test": 12}
    with pytest.raises(UserError, match="--split selection"):
        evaluate(both.folder, "selection")


def test_an_earlier_stage_is_scored_and_leaves_no_model(tiny_recipe):
    outcome = probe(tiny(tiny_recipe).recipe, ProbeOptions(stage="stage2", strengths=(0.01,)))
    assert outcome.result["probe"]["stage"] == "stage2"
    assert outcome.result["test"]["n"] == 12
    assert not (outcome.folder / "model.safetensors").exists()
    with pytest.raises(UserError, match="no model.safetensors"):
        evaluate(outcome.folder)
    runs, _ = find_runs([outcome.folder])
    assert runs[0].settings["probe"] == "stage2"


def test_a_stop_is_answered_in_order_and_leaves_nothing(tiny_recipe, tmp_path, monkeypatch):
    from workbench.training import probe as probing
    from workbench.training.interrupts import Interrupted

    monkeypatch.setattr(probing, "embedded_split", lambda *a, **k: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        probe(tiny(tiny_recipe).recipe)
    assert [path for path in (tmp_path / "runs").rglob("*") if path.name != "tiny"] == []


def test_the_set_is_read_once(tiny_recipe, monkeypatch):
    read, real = [], image_datamodule.read_table
    monkeypatch.setattr(image_datamodule, "read_table", lambda *a: read.append(a) or real(*a))
    probe(tiny(tiny_recipe).recipe, ProbeOptions(strengths=(0.1,)))
    assert len(read) == 1


def test_a_loss_that_is_not_finite_leaves_test_closed(tiny_recipe, tmp_path):
    with pytest.raises(UserError, match=r"strength 1e\+39(.|\n)*at most 1e4"):
        probe(tiny(tiny_recipe).recipe, ProbeOptions(strengths=(1e39,)))
    assert [path for path in (tmp_path / "runs").rglob("*") if path.name != "tiny"] == []


@pytest.mark.parametrize("stage", [[], ["--stage", "stage3"]])
def test_nothing_to_choose_by_is_said_before_anything_is_embedded(tiny_recipe, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(embeddings, "_embed", None)
    for name in "ab":
        paint(tmp_path / "few" / "train" / name / "0.png", 0, 1)
    text = called("--recipe", tiny_recipe, f"data.path={tmp_path / 'few'}", "data.prepared_root=p", *stage)
    assert "no image to choose by" in text


def called(*arguments):
    with pytest.raises(UserError) as error:
        CliRunner().invoke(command_line.app, ["probe", *map(str, arguments)], catch_exceptions=False)
    return str(error.value)


def test_mistakes_are_said_in_words_and_leave_nothing(tiny_recipe, tmp_path):
    recipe = ("--recipe", tiny_recipe)
    assert "model.head=linear" in called(*recipe, "model.head=mlp")
    assert "stem, stage1" in (text := called(*recipe, "--stage", "stage9"))
    assert "stage9" in text
    assert "at most 36" in called(*recipe, "--knn", "1,37")
    for option, given in (
        ("--strengths", "0"),
        ("--strengths", "1,x"),
        ("--knn", "1.5"),
        ("--shots", "-1"),
        ("--knn", "nan"),
        ("--strengths", "1,1e5"),
    ):
        assert f"as in {option}" in called(*recipe, f"{option}={given}")
    folders = list((tmp_path / "runs").rglob("*"))
    assert [path for path in folders if path.name != "tiny"] == []


def test_the_verb_prints_what_was_found(tiny_recipe):
    arguments = ["--recipe", str(tiny_recipe), "--knn", "3", "--shots", "2", "--draws", "2", "--strengths", "0.01,0.1"]
    printed = CliRunner().invoke(command_line.app, ["probe", *arguments], catch_exceptions=False).output
    for words in ("0.1", "nearest neighbours", "images per class", "n = 12 selection, 12 test", "solving"):
        assert words in printed
    assert "tiny/" in printed.strip().splitlines()[-1]
