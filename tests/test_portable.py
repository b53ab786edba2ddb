"""The portable model: same answers elsewhere, without lightning or wandb."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from workbench import EfficientNetClassifier, load_model
from workbench.specs.errors import UserError

BLOCKED = """
import sys
for name in ("lightning", "wandb", "torchmetrics", "datasets"):
    sys.modules[name] = None
import torch, workbench
model = workbench.load_model(sys.argv[1])
assert not model.training
torch.manual_seed(0)
images = torch.randn(2, 3, 32, 32)
print([model.classes, model.preprocessing.crop, model(images).tolist()])
"""


def test_it_loads_with_neither_lightning_nor_wandb(finished_run):
    done = subprocess.run([sys.executable, "-c", BLOCKED, finished_run.folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    classes, crop, logits = ast.literal_eval(done.stdout)
    model = load_model(finished_run.folder)
    assert (classes, crop) == (("blue", "green", "red"), 32)
    torch.manual_seed(0)
    torch.testing.assert_close(torch.tensor(logits), model(torch.randn(2, 3, 32, 32)))


def test_classifier_round_trip_keeps_answers_classes_and_preprocessing(finished_run, tmp_path, folder_set):
    first = EfficientNetClassifier.load(finished_run.folder)
    first.save(tmp_path / "again")
    second = EfficientNetClassifier.load(tmp_path / "again" / "model.safetensors")
    pictures = sorted((folder_set / "test" / "red").iterdir())[:3]
    assert first.predict(pictures) == second.predict(pictures)
    assert second.preprocessing == first.preprocessing
    assert second.provenance["result"]["seed"] == 0
    answer = first.predict(pictures)[0]
    assert sum(answer.values()) == pytest.approx(1)
    assert list(answer.values()) == sorted(answer.values(), reverse=True)


def test_predict_takes_arrays_and_leaves_the_mode_alone(finished_run):
    model = EfficientNetClassifier.load(finished_run.folder).train()
    array = np.zeros((50, 40, 3), dtype=np.uint8)
    (alone,), (first, *_) = model.predict([array]), model.predict([array] * 3)
    assert alone == pytest.approx(first, rel=1e-3)
    assert model.training


def test_a_checkpoint_rebuilds_without_fetching_weights(tmp_path, folder_set):
    import lightning

    from workbench.data.datamodules import ImageFolderDataModule

    weights = tmp_path / "start.pth"
    torch.save(EfficientNetClassifier("tiny", 3).net.state_dict(), weights)
    data = ImageFolderDataModule(path=folder_set, resolution=32, batch_size=8)
    model = EfficientNetClassifier("tiny", 3, str(weights), network={"drop_path": 0.1})
    trainer = lightning.Trainer(max_steps=1, logger=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    weights.unlink()
    again = EfficientNetClassifier.load_from_checkpoint(tmp_path / "x.ckpt")
    assert again.preprocessing == model.preprocessing
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again.eval()(images), model.cpu().eval()(images))


def test_a_head_of_your_own_is_saved_and_comes_back_with_its_module(tmp_path):
    model = EfficientNetClassifier("tiny", 4)
    model.replace_head(nn.Sequential(nn.Linear(model.net.num_features, 4), nn.Tanh()))
    model.eval().save(tmp_path)
    with pytest.raises(UserError, match="head=module"):
        load_model(tmp_path)
    head = nn.Sequential(nn.Linear(model.net.num_features, 4), nn.Tanh())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(load_model(tmp_path, head)(images), model(images))


def test_multi_label_trains_and_answers_with_independent_probabilities(tmp_path):
    import lightning

    torch.manual_seed(0)
    images = torch.randn(24, 3, 32, 32)
    targets = torch.stack([images[:, 0].mean((1, 2)) > 0, images[:, 1].mean((1, 2)) > 0], 1).float()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, targets), batch_size=8)
    model = EfficientNetClassifier("tiny", 2, task="multi_label", classes=["a", "b"], optim={"name": "adamw"})
    trainer = lightning.Trainer(
        max_epochs=2, logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False
    )
    trainer.fit(model, loader, loader)
    assert "val/mean_average_precision" in trainer.callback_metrics
    model.save(tmp_path)
    answer = EfficientNetClassifier.load(tmp_path).predict([np.zeros((40, 40, 3), dtype=np.uint8)])[0]
    assert set(answer) == {"a", "b"}
    assert all(0 <= p <= 1 for p in answer.values())


def test_freeze_and_unfreeze_by_name():
    model = EfficientNetClassifier("tiny", 4)
    model.freeze()
    assert [n for n, p in model.net.named_parameters() if p.requires_grad] == [
        "classifier.1.weight",
        "classifier.1.bias",
    ]
    model.freeze(up_to="stage2")
    assert model.net.frozen == {"stem", "stage1", "stage2"}
    model.unfreeze()
    assert all(p.requires_grad for p in model.net.parameters())


@pytest.mark.parametrize("damage", ["tensors", "json", "other"])
def test_damaged_models_are_named(finished_run, tmp_path, damage):
    EfficientNetClassifier.load(finished_run.folder).save(tmp_path)
    if damage == "tensors":
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "json":
        (tmp_path / "model.json").write_text("{")
    else:
        description = json.loads((tmp_path / "model.json").read_text())
        (tmp_path / "model.json").write_text(json.dumps({**description, "sha256": "0" * 64}))
    with pytest.raises(UserError) as error:
        load_model(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="single_label, multi_label"):
        EfficientNetClassifier("tiny", 2, task="both")
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        EfficientNetClassifier("tiny", 2, classes=["a"])


def test_a_second_fit_has_its_own_length(tmp_path, folder_set):
    import lightning

    from workbench.data.datamodules import ImageFolderDataModule

    data = ImageFolderDataModule(path=folder_set, resolution=32, batch_size=21)
    model = EfficientNetClassifier("tiny", 3)
    quiet = {"logger": False, "accelerator": "cpu", "default_root_dir": tmp_path, "enable_checkpointing": False}
    for epochs in (1, 3):
        lightning.Trainer(max_epochs=epochs, **quiet).fit(model, datamodule=data)
        assert model.lr_factor(2 * epochs) == pytest.approx(0)
        assert model.lr_factor(2 * epochs - 1) > 0


def test_the_preprocessing_that_was_trained_with_travels(tmp_path, folder_set):
    import lightning

    from workbench.data.datamodules import ImageFolderDataModule

    data = ImageFolderDataModule(path=folder_set, resolution=48, batch_size=21)
    model = EfficientNetClassifier("tiny", 3)
    assert model.preprocessing.crop == 64
    quiet = {"logger": False, "accelerator": "cpu", "default_root_dir": tmp_path, "enable_checkpointing": False}
    lightning.Trainer(max_steps=1, **quiet).fit(model, datamodule=data)
    model.save(tmp_path / "saved")
    assert load_model(tmp_path / "saved").preprocessing == data.preprocessing
    assert data.preprocessing.crop == 48


def test_starting_from_a_run_keeps_its_batchnorm_and_preprocessing(finished_run):
    from workbench.models.weights import facts_of_weights
    from workbench.specs.architectures import ARCHS

    facts = facts_of_weights(str(finished_run.folder / "model.safetensors"), ARCHS["tiny"])
    assert (facts.bn_eps, facts.bn_momentum, facts.preprocessing.crop) == (1e-3, 0.1, 32)
    again = EfficientNetClassifier("tiny", 3, str(finished_run.folder / "model.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), load_model(finished_run.folder)(images))
