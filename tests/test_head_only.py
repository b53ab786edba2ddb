"""Phases that train the head alone on unchanging images go by embeddings, and give what the images would give."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from test_fit import KILLED

from workbench import evaluate, fit, load_recipe
from workbench.training import head_only
from workbench.training.metrics_csv import read_metrics

CENTER = ["augment.crop=center", "train.precision=fp32"]
HEAD = ["train.phases=[{train: head}]", *CENTER]
LINE = "trains on embeddings"


def tiny(path, *overrides):
    return load_recipe(str(path), overrides).recipe


def both_ways(recipe, monkeypatch, *overrides):
    """Fit by embeddings, then the same by images."""
    fast = fit(tiny(recipe, *overrides))
    monkeypatch.setattr(head_only, "feed", lambda classifier, data, *_: data)
    slow = fit(tiny(recipe, *overrides))
    return fast, slow


def log_of(outcome):
    return (outcome.folder / "log.txt").read_text()


def check_same(fast, slow):
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (fast, slow))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name} {text}")
    rows = [read_metrics(outcome.folder / "metrics.csv") for outcome in (fast, slow)]
    assert [sorted(row) for row in rows[0]] == [sorted(row) for row in rows[1]]
    for left, right in zip(*rows, strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
    for split in ("selection", "test"):
        assert fast.result[split]["loss"] == pytest.approx(slow.result[split]["loss"], rel=1e-4)
        assert fast.result[split]["top1"] == slow.result[split]["top1"]
    assert set(fast.result) == set(slow.result)


@pytest.mark.parametrize("flip", [0, 0.5])
def test_a_head_only_fit_gives_what_the_images_give(tiny_recipe, monkeypatch, flip):
    options = [*HEAD, f"augment.flip={flip}", "model.dropout=0.3", "train.ema_half_life_fraction=0.2"]
    options += ["model.weights=embedded/blossoms"]  # random ones hardly tell a picture from its mirror image
    fast, slow = both_ways(tiny_recipe, monkeypatch, *options, "train.micro_batch_size=4")
    assert LINE in log_of(fast)
    assert LINE not in log_of(slow)
    check_same(fast, slow)
    again = evaluate(fast.folder, "selection")
    assert again["scores"]["loss"] == pytest.approx(fast.result["selection"]["loss"], rel=1e-4)


def test_no_image_is_passed_twice(tiny_recipe, monkeypatch):
    from workbench.models.staged import StagedNet

    seen = {"embed": 0, "embed_stage": 0}
    for name in seen:
        real = getattr(StagedNet, name)

        def counted(net, images, *rest, name=name, real=real):
            seen[name] += len(images)
            return real(net, images, *rest)

        monkeypatch.setattr(StagedNet, name, counted)
    fresh = [*HEAD, "data.prepared_root=prepared", "augment.flip=0.5"]
    counts = fit(tiny(tiny_recipe, *fresh, "train.total_epochs=6")).folder / "splits.json"
    counts = json.loads(counts.read_text())["counts"]
    once = 2 * counts["train"] + counts["selection"] + counts["test"]
    assert seen == {"embed": 0, "embed_stage": once}
    fit(tiny(tiny_recipe, *fresh, "train.seed=1"))  # other random weights: other features
    assert seen["embed_stage"] == 2 * once
    fit(tiny(tiny_recipe, *fresh))
    assert seen["embed_stage"] == 2 * once


def test_images_take_over_where_the_backbone_trains(tiny_recipe, monkeypatch):
    phases = "train.phases=[{train: head, epochs: 2}, {train: stage5, epochs: 1}, {train: head}]"
    options = [phases, *CENTER, "train.total_epochs=4", "train.num_validations=4", "model.drop_path=0.1"]
    fast, slow = both_ways(tiny_recipe, monkeypatch, *options)
    assert "phase of 2 epochs" in log_of(fast)
    check_same(fast, slow)


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 12])
def test_a_killed_run_goes_on_to_the_same_bits(tiny_recipe, tmp_path, step):
    options = ["train.phases=[{train: head, epochs: 2}, {train: stage5}]", *CENTER, "train.total_epochs=4"]
    options += ["train.pick=last", "model.dropout=0.2"]  # and no validation after the first epoch
    undisturbed = fit(tiny(tiny_recipe, *options))
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, tiny_recipe, str(step), *options, f"track.runs_dir={killed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 9, done.stderr
    (run,) = (killed / "tiny").iterdir()
    resumed = fit(load_recipe(str(run / "recipe.yaml")).recipe, resume=run)
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (undisturbed, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (run / "predictions.csv").read_text() == (undisturbed.folder / "predictions.csv").read_text()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["augment.policy=trivialaugment"], "augment.policy=trivialaugment, not none"),
        (["augment.crop=random"], "augment.crop=random, not center"),
        (["train.phases=[{train: head, steps: 9}, {train: all}]"], "step 9 is not the end of an epoch of 4"),
        (["train.total_epochs=1"], "shorter than the 2 epochs"),
        (["augment.mixup_alpha=0.2", "augment.cutout=0.1"], None),
        (["train.phases=[{train: stage5}]"], None),
    ],
)
def test_where_images_are_needed_they_are_taken_and_the_log_says_why(tiny_recipe, overrides, told):
    outcome = fit(tiny(tiny_recipe, *HEAD, *overrides, "train.open_test=false"))
    assert LINE not in log_of(outcome)
    assert ("passes every image each epoch" in log_of(outcome)) == (told is not None)
    assert told is None or told in log_of(outcome)


@pytest.mark.parametrize(("memory", "told"), [(272_000, ()), (271_998, ("its features take",))])
def test_features_and_their_copies_must_fit_half_of_what_this_process_may_have(monkeypatch, memory, told):
    monkeypatch.setattr(head_only, "group_memory", lambda: memory)
    count = {"train": 1000, "selection": 100, "test": 300}
    data = SimpleNamespace(crop="center", augment={}, mixup_alpha=0, cutmix_alpha=0, rows=lambda s: range(count[s]))
    lengths = SimpleNamespace(phases=[SimpleNamespace(train="head", steps=20)], epoch_steps=10, total_steps=20)
    obstacles = head_only.head_only_part(data, lengths, num_features=10).obstacles
    assert [text[: len(told[0])] if told else text for text in obstacles] == list(told)


def test_test_stays_closed_while_it_should(tiny_recipe, monkeypatch):
    import workbench.data.image_rows as image_rows

    touched = []
    real = image_rows.load_image
    monkeypatch.setattr(image_rows, "load_image", lambda source: touched.append(str(source)) or real(source))
    fit(tiny(tiny_recipe, *HEAD, "train.open_test=false", "train.seed=77"))
    assert touched
    assert not [path for path in touched if "/test/" in path]
