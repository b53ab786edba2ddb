"""Memory that is out and numbers that are not finite: what a fit says, keeps, mends, and replays."""

import json

import pytest
import torch
from faulty_fits import HALVES, refused, runs_of, tiny
from safetensors.torch import load_file, save_file

from workbench import fit
from workbench.specs.errors import UserError
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.nan_capture import FiniteCheck
from workbench.training.replay import replay


def out_of_memory(above, times):
    """Return a training step that PyTorch's allocator refuses, so many times, above a number of images."""
    inner, refusals = EfficientNetClassifier.training_step, []

    def training_step(self, batch, batch_idx):
        if self.global_step >= 5 and len(batch[0]) > above and len(refusals) < times:
            refusals.append(self.global_step)
            torch.empty(2**56)
        return inner(self, batch, batch_idx)

    return training_step


def test_out_of_memory_says_what_to_lower(tiny_recipe, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(EfficientNetClassifier, "training_step", out_of_memory(0, 1))
    problem, _ = refused(tiny(tiny_recipe, *HALVES), capfd)
    assert problem.given.startswith("out of memory; ")
    assert "allocate" in problem.given
    for key in ("train.micro_batch_size", "model.recompute", "data.resolution"):
        assert key in problem.remedy


def test_a_micro_batch_of_the_fits_own_choice_is_halved_once_and_the_fit_goes_on(
    tiny_recipe, tmp_path, monkeypatch, capfd
):
    """Without dropout and moving statistics, micro-batches make no difference but rounding."""
    plain = ["optim.name=sgd", "model.frozen_bn=true", "model.dropout=0", "model.drop_path=0", "train.pick=last"]
    plain += ["train.total_epochs=3", "train.num_validations=1"]
    undisturbed = fit(tiny(tiny_recipe, *plain))
    capfd.readouterr()
    with monkeypatch.context() as refusing:
        refusing.setattr(EfficientNetClassifier, "training_step", out_of_memory(4, 9))
        outcome = fit(tiny(tiny_recipe, *plain, "train.micro_batch_size=auto"))
    said = capfd.readouterr().err
    assert said.count("out of memory in step 6 with 8 images at a time: going on from the last checkpoint with 4") == 1
    assert "BatchNorm takes its statistics from 4 images at a time" in said
    kept = json.loads((outcome.folder / "runtime.json").read_text())
    assert kept["runtime"]["micro_batch_size"] == 4
    assert kept["lowered"] == {"from": 8, "to": 4, "failed_step": 6}
    a, b = (load_file(one.folder / "model.safetensors") for one in (outcome, undisturbed))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(EfficientNetClassifier, "training_step", out_of_memory(0, 9))
    problem, _ = refused(tiny(tiny_recipe, *plain, "train.micro_batch_size=auto"), capfd)
    assert "the micro-batch was lowered before, from 8 to 4" in problem.given


def poisoned(kind, times=99):
    """Return a training step that goes wrong in the second micro-batch of step 6, in one of two ways."""
    inner, done = EfficientNetClassifier.training_step, []

    def training_step(self, batch, batch_idx):
        is_there = batch_idx == 3 and getattr(self.trainer, "global_step", 5) == 5 if self._trainer else batch_idx == 3
        if not is_there or len(done) >= times:
            return inner(self, batch, batch_idx)
        done.append(batch_idx)
        if kind == "gradients":
            zero = (self.net.classifier[1].bias * 0).sum()
            return inner(self, batch, batch_idx) + zero.sqrt()
        with torch.no_grad():
            self.net.classifier[1].weight[0, 0] = float("inf")
        return inner(self, batch, batch_idx)

    return training_step


FIRST = {
    "weights": "the weights before this step: classifier.1.weight",
    "gradients": "a gradient: Function 'MulBackward0' returned nan values in its 0th output.",
}


@pytest.mark.parametrize("kind", FIRST)
def test_the_micro_batch_that_is_not_finite_is_named_and_can_be_replayed(
    tiny_recipe, tmp_path, monkeypatch, capfd, kind
):
    monkeypatch.setattr(EfficientNetClassifier, "training_step", poisoned(kind))
    problem, said = refused(tiny(tiny_recipe, *HALVES, "track.log_every_steps=100"), capfd)
    (run,) = runs_of(tmp_path)
    facts = json.loads((run / "capture" / "capture.json").read_text())
    assert (facts["step"], facts["epoch"], facts["failed"]) == (6, 1, 1 if kind == "weights" else None)
    assert [part["batch_idx"] for part in facts["micro_batches"]] == [2, 3]
    ids = [name for part in facts["micro_batches"] for name in part["ids"]]
    assert len(set(ids)) == 8
    assert set(ids) <= set(json.loads((run / "splits.json").read_text())["train"])
    named = ids[4:] if kind == "weights" else ids
    assert f"images {', '.join(named)}" in problem.given
    assert "step 6 (epoch 1" in problem.given
    assert "lower optim.lr" in problem.remedy
    assert f"python -m workbench replay {run / 'capture'}" in problem.remedy
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = replay(run)
    assert (done.step, done.epoch, done.first) == (6, 1, FIRST[kind])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert "fit --resume" not in said, "the same would happen again"


def test_a_replay_has_the_very_numbers_of_the_fit_and_finds_the_layer(tiny_recipe, tmp_path, monkeypatch, capfd):
    losses = []
    inner = EfficientNetClassifier.training_step

    def training_step(self, batch, batch_idx):
        losses.append(inner(self, batch, batch_idx))
        return losses[-1] * (float("nan") if (self.global_step, batch_idx) == (5, 3) else 1)

    monkeypatch.setattr(EfficientNetClassifier, "training_step", training_step)
    refused(tiny(tiny_recipe, *HALVES, "augment.mixup_alpha=0.4", "model.drop_path=0.2", "model.dropout=0.3"), capfd)
    monkeypatch.undo()
    (run,) = runs_of(tmp_path)
    done = replay(run / "capture")
    assert done.first is None
    assert done.losses == tuple(float(loss) for loss in losses[-2:])
    path = run / "capture" / "weights.safetensors"
    weights = load_file(path)
    weights["classifier.1.weight"] = torch.full_like(weights["classifier.1.weight"], 3e38)
    save_file(weights, path)
    done = replay(run)
    assert done.first == "the output of classifier.1 (Linear)"
    assert len(done.ids) == 4


def test_a_gpu_finds_the_step_on_a_second_way_from_the_last_checkpoint(tiny_recipe, tmp_path, monkeypatch, capfd):
    """There a micro-batch is not looked at until the interval has gone wrong."""
    monkeypatch.setattr(FiniteCheck, "_looks", lambda self, pl_module: self.through is not None)
    monkeypatch.setattr(EfficientNetClassifier, "training_step", poisoned("weights"))
    problem, said = refused(tiny(tiny_recipe, *HALVES, "track.log_every_steps=4"), capfd)
    assert "train/loss is nan somewhere within steps 5 to 8: going back to find the step" in said
    assert "step 6 (epoch 1, micro-batch 2 of 2)" in problem.given
    (run, *_) = runs_of(tmp_path)
    assert (run / "capture" / "weights.safetensors").is_file()
    monkeypatch.undo()
    monkeypatch.setattr(FiniteCheck, "_looks", lambda self, pl_module: self.through is not None)
    monkeypatch.setattr(EfficientNetClassifier, "training_step", poisoned("weights", times=1))
    problem, _ = refused(tiny(tiny_recipe, *HALVES, "track.log_every_steps=4"), capfd)
    assert "not finite by step 8, but finite when the same steps were done again" in problem.given


def test_replay_asks_for_a_capture(tmp_path):
    with pytest.raises(UserError, match=r"no capture.json in it(.|\n)*a run that stopped"):
        replay(tmp_path)
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "capture.json").write_text("[1")
    with pytest.raises(UserError, match="run the fit again"):
        replay(tmp_path)
