"""`data.train_fraction`: nested, stratified, the same for all seeds, counted by the plan, apart from whole sets."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from run_folders import write_run

from workbench import fit, load_recipe
from workbench.analysis.report import make_report
from workbench.analysis.report_sections import briefly
from workbench.analysis.report_wandb import read_export
from workbench.cli.app import app
from workbench.data.fractions import part_of_train, part_stamp, rows_of_part
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.splits import ImageTable
from workbench.specs.card import DatasetCard, SplitSizes, images_of_part
from workbench.specs.errors import UserError
from workbench.training.evaluate import evaluate
from workbench.training.plan import plan

FRACTIONS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.999, 1)


def a_set(sizes=(300, 100, 37, 10, 2, 1), seed=0):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return [f"{label}/{i}" for i, label in enumerate(labels)], labels


def test_each_part_is_inside_the_next_and_keeps_every_class():
    ids, labels = a_set()
    before = np.zeros(len(ids), dtype=bool)
    for fraction in FRACTIONS:
        kept = part_of_train(ids, labels, labels, fraction)
        assert kept.sum() == max(6, round(fraction * len(ids))) == images_of_part(len(ids), 6, fraction)
        assert not (before & ~kept).any()
        assert set(labels[kept]) == set(range(6))
        before = kept


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_classes_keep_their_shares(fraction):
    ids, labels = a_set((10,) * 102)
    kept = part_of_train(ids, labels, labels, fraction)
    counts = np.bincount(labels[kept])
    assert set(counts) <= {int(fraction * 10), -int(-fraction * 10 // 1)}
    assert kept.sum() == round(fraction * 1020)


def test_the_choice_follows_the_ids_and_not_their_order_and_another_salt_is_another_draw():
    ids, labels = a_set((50, 50))
    kept = part_of_train(ids, labels, labels, 0.3)
    turned = np.random.default_rng(1).permutation(len(ids))
    again = part_of_train([ids[i] for i in turned], labels[turned], labels[turned], 0.3)
    assert np.array_equal(kept[turned], again)
    assert not np.array_equal(kept, part_of_train(ids, labels, labels, 0.3, "/draw1"))


def test_several_labels_keep_every_class_too():
    labels = np.zeros((60, 4), dtype=bool)
    labels[:, 0] = True
    labels[::2, 1] = True
    labels[[3, 4], 2] = True
    labels[[3, 5], 3] = True
    ids = [f"i{i}" for i in range(60)]
    table = ImageTable(ids, [None] * 60, labels, ["train"] * 60, tuple("abcd"))
    for fraction in (0.001, 0.1, 0.5):
        rows = rows_of_part(table, np.arange(60), fraction)
        assert labels[rows].any(0).all(), fraction
        assert len(rows) <= max(4, round(60 * fraction))


def test_the_card_counts_as_the_files_do():
    card = DatasetCard("x", num_classes=102, sizes=SplitSizes(1020, 1020, 6149))
    assert card.training_images("train", 0.1, 0.25) == 255
    assert card.training_images("train+selection", 0.1, 0.25) == 510
    assert card.training_images("train", 0.1, 0.001) == 102
    assert card.training_images("train", 0.1) == 1020
    assert DatasetCard("x", sizes=SplitSizes(1000)).training_images("train", 0.1, 0.5) is None  # classes not known


def test_the_plan_counts_the_part_by_the_card():
    loaded = load_recipe("flowers_b0_cpu", ["data.train_fraction=0.25", "data.train_on=train", "model.weights=null"])
    assert "255 training images by its card" in dict(plan(loaded).facts)["dataset"]


def module(folder_set, **options):
    options = {"holdout_fraction": 0.25, **options}
    return ImageDataModule(folder_set.parent, card="folder", path=folder_set, resolution=32, **options)


def test_only_what_is_trained_on_becomes_smaller(folder_set):
    whole, part = module(folder_set), module(folder_set, train_fraction=0.5)
    for split in ("selection", "test"):
        assert np.array_equal(whole.rows(split), part.rows(split)), split
    assert len(part.rows("train")) == 18
    assert set(part.rows("train")) < set(whole.rows("train"))
    assert np.bincount(part.table.labels[part.rows("train")]).tolist() == [6, 6, 6]
    assert set(module(folder_set, train_fraction=0.25, seed=5).rows("train")) < set(part.rows("train"))
    assert len(module(folder_set, train_fraction=0.5, train_on="train+selection").rows("train")) == 24
    assert part.table.stamps == (*whole.table.stamps, "partial: trained on 50 % of train")
    listed = module(folder_set, train_fraction=0.5)
    listed.list_only()
    assert set(listed.table.ids[row] for row in listed.rows("train")) == {part.table.ids[r] for r in part.rows("train")}


def test_a_fit_on_a_part_says_so_everywhere(tiny_recipe):
    options = ["data.train_fraction=0.5", "train.total_epochs=1"]
    loaded = load_recipe(str(tiny_recipe), options)
    assert plan(loaded).lengths.epoch_steps == 2  # 18 of 36 images, in eights
    assert "18 training images" in dict(plan(loaded).facts)["dataset"]
    outcome = fit(loaded.recipe)
    stamp = "partial: trained on 50 % of train"
    splits = json.loads((outcome.folder / "splits.json").read_text())
    assert (splits["counts"], splits["train_fraction"]) == ({"train": 18, "selection": 12, "test": 12}, 0.5)
    assert len(splits["train"]) == 18
    assert stamp in splits["stamps"]
    assert stamp in outcome.result["stamps"]
    assert stamp in (outcome.folder / "report.html").read_text()
    assert stamp in evaluate(outcome.folder, "selection")["stamps"]
    with pytest.raises(UserError, match="images are not in the train split that this run had"):
        evaluate(outcome.folder, "selection", ["data.train_fraction=1"])


def test_a_part_is_never_averaged_with_the_whole(tmp_path):
    for seed, fraction in enumerate((1.0, 0.25, 0.1)):
        stamps = [part_stamp(fraction)] if fraction < 1 else []
        write_run(tmp_path / str(seed), seed=seed, changes={"data.train_fraction": fraction}, stamps=stamps, arch="b7")
    report = make_report([tmp_path])
    assert [row.num_seeds for row in report.measured] == [1, 1, 1]
    by_stamp = {row.stamps: row for row in report.measured}
    assert set(by_stamp) == {"", "partial: trained on 25 % of train", "partial: trained on 10 % of train"}
    assert by_stamp["partial: trained on 25 % of train"].beside == "98.8: not comparable, part of the set"
    assert "(part of the set)" in briefly(report)


def test_an_export_of_a_part_is_stamped(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(
        "Name,data.card,model.arch,train.seed,data.train_fraction,test/mean_per_class\n"
        "a,flowers,b0,0,0.25,0.9\nb,flowers,b0,0,1,0.9\n"
    )
    runs, _ = read_export(path)
    assert [run.stamps for run in runs] == [("partial: trained on 25 % of train",), ()]


@pytest.mark.parametrize("given", ["0", "1.5", "0.0001", "half"])
def test_a_share_out_of_range_is_refused(tiny_recipe, given):
    with pytest.raises(UserError, match="data.train_fraction") as error:
        load_recipe(str(tiny_recipe), [f"data.train_fraction={given}"])
    assert given in str(error.value)


def test_a_part_smaller_than_a_batch_is_refused_before_anything():
    with pytest.raises(UserError) as error:
        load_recipe("flowers_b0_cpu", ["data.train_fraction=0.01", "data.batch_size=128"])
    assert "128, but the training split has 102 images" in str(error.value)


def test_the_key_is_shown_with_its_unit():
    shown = CliRunner().invoke(app, ["show", "--keys"]).output
    (told,) = [line for line in shown.splitlines() if "data.train_fraction" in line]
    assert "a smaller share inside a greater one. [default 1.0; fraction" in told
