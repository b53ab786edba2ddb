"""A whole fit: the run folder, its honesty, its phases, its restart."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file
from wandb_files import wandb_read

from workbench import evaluate, fit, load_recipe
from workbench.specs.errors import UserError
from workbench.specs.metric_names import LOGGED
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.metrics_csv import read_metrics
from workbench.training.results import scores_from_predictions

FILES = {
    "recipe.yaml",
    "command.txt",
    "environment.json",
    "splits.json",
    "pixels.json",
    "metrics.csv",
    "result.json",
    "predictions.csv",
    "logits.safetensors",
    "model.safetensors",
    "model.json",
    "report.html",
    "log.txt",
    "test_openings.json",
    "wandb.json",
    "checkpoints/last.ckpt",
    "checkpoints/best.safetensors",
}


def files_of(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("wandb/")}


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder_holds_what_the_contract_says(finished_run):
    assert files_of(finished_run.folder) == FILES
    result = json.loads((finished_run.folder / "result.json").read_text())
    contract = {"recipe", "arch", "weights", "dataset", "selection", "test", "steps", "epochs", "images_per_second"}
    assert contract | {"seconds", "peak_memory_bytes", "seed"} <= set(result)
    assert {"n", "interval95"} <= set(result["test"])
    assert (result["steps"], result["epochs"], result["test"]["n"]) == (24 * 4, 24, 12)
    assert result["images_per_second"] > 0
    assert result["peak_memory_bytes"] > 2**20


def test_every_score_can_be_computed_again_from_predictions(finished_run):
    rows = read_rows(finished_run.folder / "predictions.csv")
    test = finished_run.result["test"]
    assert len(rows) == test["n"]
    for name, value in scores_from_predictions(rows, 3).items():
        assert value == pytest.approx(test[name], abs=1e-6), name
    # and once more without our code, on the columns alone
    right = [row["class"] == row["predicted"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(test["top1"])
    shares = [
        sum(r for r, row in zip(right, rows, strict=True) if row["class"] == c) / sum(row["class"] == c for row in rows)
        for c in ("red", "green", "blue")
    ]
    assert sum(shares) / 3 == pytest.approx(test["mean_per_class"])


def test_the_fit_learns(finished_run):
    assert finished_run.result["test"]["top1"] > 0.6


def test_splits_are_disjoint_and_test_was_opened_once(finished_run):
    splits = json.loads((finished_run.folder / "splits.json").read_text())
    ids = [set(splits[name]) for name in ("train", "selection", "test")]
    assert [len(i) for i in ids] == [36, 12, 12]
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    openings = json.loads((finished_run.folder / "test_openings.json").read_text())
    assert [o["purpose"] for o in openings] == ["fit"]
    assert finished_run.result["test"]["openings"] == 1


def test_metrics_rows_have_the_fixed_columns_phases_and_rates(finished_run):
    path = finished_run.folder / "metrics.csv"
    assert tuple(read_rows(path)[0]) == LOGGED
    rows = read_metrics(path)
    trained = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in trained] == list(range(2, 97, 2))
    assert [row["phase"] for row in trained] == [0] * 2 + [1] * 46
    validated = [row for row in rows if "val/top1" in row]
    assert [row["step"] for row in validated] == [32, 64, 96]
    # cosine starts anew in each phase, at the peak
    assert trained[2]["train/lr"] > trained[1]["train/lr"]


def test_the_selection_score_is_that_of_the_saved_weights(finished_run, folder_set):
    again = evaluate(finished_run.folder, "selection")
    kept = {k: v for k, v in finished_run.result["selection"].items() if k != "step"}
    assert again["scores"].pop("interval95") == pytest.approx(kept.pop("interval95"))
    assert again["scores"] == pytest.approx(kept, rel=1e-4)
    best = max(row["val/top1"] for row in read_metrics(finished_run.folder / "metrics.csv") if "val/top1" in row)
    assert kept["top1"] == pytest.approx(best)
    assert again["test_openings"] is None


def test_the_page_shows_the_scores_and_asks_nobody(finished_run):
    page = (finished_run.folder / "report.html").read_text()
    assert f"{100 * finished_run.result['test']['top1']:.2f} %" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_the_w_and_b_file_holds_config_and_metrics(finished_run):
    (path,) = (finished_run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    config, history, tags, exit_code = {}, {}, [], None
    for record in wandb_read(path):
        if record.HasField("run"):
            tags = list(record.run.tags) or tags
        for update in (*record.run.config.update, *record.config.update):
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        for item in record.history.item:
            name = item.key or ".".join(item.nested_key)
            history.setdefault(name, []).append(json.loads(item.value_json))
        if record.HasField("exit"):
            exit_code = record.exit.exit_code
    tables = {name for name in history if name.startswith(("test/confusion", "test/mistakes"))}
    assert config["optim"]["lr"] == 0.003
    assert config["train"]["phases"][0]["train"] == "head"
    assert tags == ["tested"]
    assert len(history["train/loss"]) == 48
    assert history["val/top1"][-1] == pytest.approx(
        [r["val/top1"] for r in read_metrics(finished_run.folder / "metrics.csv") if "val/top1" in r][-1]
    )
    assert history["test/top1"][-1] == pytest.approx(finished_run.result["test"]["top1"])
    assert tables
    assert exit_code == 0


def tiny(path, *overrides):
    return load_recipe(str(path), overrides).recipe


def test_closed_test_is_never_touched(tiny_recipe, folder_set, tmp_path, monkeypatch):
    touched = []
    import workbench.data.image_rows as image_rows

    real = image_rows.load_image
    monkeypatch.setattr(image_rows, "load_image", lambda source: touched.append(str(source)) or real(source))
    outcome = fit(tiny(tiny_recipe, "train.open_test=false", "train.total_epochs=1"))
    assert touched
    assert not [path for path in touched if "/test/" in path]
    assert outcome.result["test"] is None
    assert not (outcome.folder / "predictions.csv").exists()
    assert not (outcome.folder / "test_openings.json").exists()


def test_train_and_selection_together_leave_nothing_to_choose_by(tiny_recipe):
    outcome = fit(tiny(tiny_recipe, "data.train_on=train+selection", "train.total_epochs=1"))
    splits = json.loads((outcome.folder / "splits.json").read_text())
    assert splits["counts"] == {"train": 48, "selection": 0, "test": 12}
    assert outcome.result["selection"] is None
    assert outcome.result["test"]["n"] == 12


def test_micro_batches_change_the_batch_statistics_only(tiny_recipe):
    """With BatchNorm fixed, no dropout and SGD, 4 x 2 images give the weights of 1 x 8 up to rounding."""
    options = ["optim.name=sgd", "model.frozen_bn=true", "model.dropout=0", "model.drop_path=0", "train.total_epochs=1"]
    whole = fit(tiny(tiny_recipe, *options))
    cut = fit(tiny(tiny_recipe, *options, "train.micro_batch_size=2"))
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (whole, cut))
    assert whole.result["steps"] == cut.result["steps"]
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny_recipe):
    runs = [fit(tiny(tiny_recipe, "train.total_epochs=1", f"train.seed={seed}")) for seed in (1, 1, 2)]
    first, same, other = (load_file(run.folder / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["classifier.1.weight"], other["classifier.1.weight"])


def test_head_only_phase_leaves_the_backbone_bit_for_bit(tiny_recipe, tmp_path):
    torch.manual_seed(0)
    start = EfficientNetClassifier("tiny", 3).net.state_dict()
    weights = tmp_path / "start.pth"
    torch.save(start, weights)
    options = [f"model.weights={weights}", "train.phases=[{train: head}]", "train.total_epochs=2"]
    trained = load_file(fit(tiny(tiny_recipe, *options)).folder / "model.safetensors")
    for name in start:
        assert torch.equal(trained[name], start[name]) == name.startswith("features."), name


def test_nan_stops_the_fit_and_names_the_steps(tiny_recipe, tmp_path):
    options = ["optim.name=sgd", "optim.lr=100", "optim.momentum=0.9999", "train.total_epochs=30"]
    with pytest.raises(UserError) as error:
        fit(tiny(tiny_recipe, *options, "track.wandb=offline"))
    assert "step " in str(error.value)
    assert "lower optim.lr" in str(error.value)
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert not (run / "result.json").exists()
    assert "Traceback" in (run / "log.txt").read_text()
    (path,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    exits = [record.exit.exit_code for record in wandb_read(path) if record.HasField("exit")]
    assert exits == [1]


KILLED = """
import sys, os
from workbench import load_recipe, fit
from workbench.training.monitor import LastCheckpoint
write = LastCheckpoint.write
def write_and_die(self, trainer):
    write(self, trainer)
    if trainer.global_step == int(sys.argv[2]):
        os._exit(9)
LastCheckpoint.write = write_and_die
fit(load_recipe(sys.argv[1], [*sys.argv[3:], "train.checkpoint_minutes=0"]).recipe)
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 12])
def test_a_killed_run_goes_on_to_the_same_bits(tiny_recipe, tmp_path, step):
    options = [
        "train.phases=[{train: head, epochs: 1}, {train: stage5, epochs: 2}, {train: all}]",
        "train.ema_half_life_fraction=0.2",
        "train.total_epochs=5",
        "data.batch_size=8",
        "train.num_validations=5",
        "augment.mixup_alpha=0.4",
        "train.pick=last",
    ]
    undisturbed = fit(tiny(tiny_recipe, *options))
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, tiny_recipe, str(step), *options, f"track.runs_dir={killed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    (run,) = (killed / "tiny").iterdir()
    resumed = fit(load_recipe(str(run / "recipe.yaml")).recipe, resume=run)
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (undisturbed, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name in ("metrics.csv", "predictions.csv"):
        assert (run / name).read_text() == (undisturbed.folder / name).read_text()
    assert resumed.result["selection"] == undisturbed.result["selection"]


def test_a_set_that_has_changed_is_not_scored_as_if_it_were_the_same(tmp_path):
    from conftest import TINY_RECIPE, fill_in, paint

    for hue, name in enumerate(("a", "b")):
        for i in range(20):
            paint(tmp_path / "set" / name / f"{i}.png", hue, i)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(fill_in(TINY_RECIPE, tmp_path / "set", tmp_path))
    outcome = fit(tiny(recipe, "train.total_epochs=1"))
    test_ids = json.loads((outcome.folder / "splits.json").read_text())["test"]
    (tmp_path / "set" / test_ids[0]).unlink()
    with pytest.raises(UserError, match="not in the"):
        evaluate(outcome.folder)


def test_a_start_that_fails_leaves_no_run_folder(tiny_recipe, tmp_path):
    with pytest.raises(UserError):
        fit(tiny(tiny_recipe, "model.weights=/nowhere/x.pth"))
    assert list((tmp_path / "runs" / "tiny").iterdir()) == []


def test_bn_momentum_by_epoch_is_shared_out_among_micro_batches(folder_set, tiny_recipe):
    from workbench.training.recipe_numbers import network_options

    recipe = tiny(tiny_recipe, "model.bn_momentum=null", "model.bn_momentum_by_epoch=true")
    assert network_options(recipe, 195)["bn_momentum"] == pytest.approx(10 / 195)
    recipe.train.micro_batch_size = 2
    assert 1 - (1 - network_options(recipe, 7)["bn_momentum"]) ** 4 == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop_tf"])
def test_every_optimizer_and_schedule_runs(tiny_recipe, name):
    schedule = {"sgd": "cosine", "adamw": "constant", "rmsprop_tf": "exponential"}[name]
    options = [f"optim.name={name}", f"schedule.name={schedule}", "schedule.warmup_epochs=1", "train.total_epochs=2"]
    outcome = fit(tiny(tiny_recipe, *options, "optim.clip_norm=1", "train.ema_decay=0.99", "optim.layer_decay=0.8"))
    assert outcome.result["steps"] == 8


def test_evaluate_refuses_a_set_of_other_classes(finished_run, tmp_path):
    from conftest import paint

    for name in ("red", "green", "violet"):
        for i in range(8):
            paint(tmp_path / name / f"{i}.png", 0, i)
    with pytest.raises(UserError, match="violet"):
        evaluate(finished_run.folder, "test", [f"data.path={tmp_path}"])


@pytest.mark.slow
def test_real_flowers_train_a_step_through_the_shipped_recipe(shared, tmp_path):
    overrides = [
        f"data.root={SHARED / 'data'}",
        f"data.prepared_root={tmp_path / 'prepared'}",
        f"model.weights={SHARED / 'weights' / 'efficientnet_b0_features.pth'}",
        "data.train_on=train",
        "train.open_test=false",
        "train.phases=[]",
        "train.total_steps=2",
        "schedule.warmup_epochs=0",
        "data.resolution=64",
        "data.eval_resolution=32",
        "data.eval_resize=32",
        "track.wandb=off",
        f"track.runs_dir={tmp_path}",
    ]
    outcome = fit(load_recipe("flowers_b0_cpu", overrides).recipe)
    assert outcome.result["selection"]["n"] == 1020
    assert outcome.result["steps"] == 2
