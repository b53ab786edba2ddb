"""Datamodules: the test gate, mixing, workers' errors, and use in a plain Trainer."""

import lightning
import pytest
import torch
from conftest import paint

from workbench import EfficientNetClassifier
from workbench.data.datamodules import ImageFolderDataModule
from workbench.data.image_rows import Batch
from workbench.specs.errors import UserError


def module(folder_set, **options):
    options = {"path": folder_set, "resolution": 32, "batch_size": 6, **options}
    return ImageFolderDataModule(**options)


def quiet_trainer(tmp_path, **options):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "accelerator": "cpu", **options}
    return lightning.Trainer(
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False, **options
    )


def test_it_is_an_ordinary_datamodule_in_an_ordinary_trainer(folder_set, tmp_path):
    data = module(folder_set)
    model = EfficientNetClassifier("tiny", data.num_classes, classes=data.classes, optim={"name": "adamw"})
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 42 // 6
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    assert set(scores) == {"test/loss", "test/top1", "test/top5", "test/mean_per_class"}


def test_every_epoch_of_a_fit_has_its_own_order(folder_set, tmp_path):
    seen = []

    class Recording(EfficientNetClassifier):
        def training_step(self, batch, batch_idx):
            seen.append((batch.epoch, batch.index.tolist()))
            return super().training_step(batch, batch_idx)

    data = module(folder_set, micro_batch_size=3)
    quiet_trainer(tmp_path, max_epochs=3, accumulate_grad_batches=2).fit(Recording("tiny", 3), datamodule=data)
    assert [epoch for epoch, _ in seen] == [0] * 14 + [1] * 14 + [2] * 14
    orders = {tuple(i for epoch, index in seen if epoch == e for i in index) for e in range(3)}
    assert len(orders) == 3


def test_the_test_split_stays_closed_while_fitting(folder_set, tmp_path):
    class Peeking(EfficientNetClassifier):
        def on_train_batch_end(self, *args):
            self.trainer.datamodule.test_dataloader()

    data = module(folder_set)
    with pytest.raises(RuntimeError, match="test split stays closed while fitting"):
        quiet_trainer(tmp_path).fit(Peeking("tiny", 3), datamodule=data)


def test_evaluation_loaders_hold_every_image_once_in_order(folder_set):
    data = module(folder_set)
    for split, count in (("train", 42), ("selection", 6), ("test", 12)):
        rows = torch.cat([batch.index for batch in data.eval_dataloader(split)])
        assert rows.tolist() == data.rows(split).tolist()
        assert len(rows) == count


def test_fewer_images_than_a_batch_are_refused(folder_set, tmp_path):
    data = module(folder_set, batch_size=43)
    with pytest.raises(UserError, match=r"43, but the training split has 42 images(.|\n)*lower data\.batch_size"):
        quiet_trainer(tmp_path).fit(EfficientNetClassifier("tiny", 3), datamodule=data)


@pytest.mark.parametrize(
    "augment", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 1, "cutmix_alpha": 1}]
)
def test_mixed_targets_sum_to_one_and_are_a_function_of_the_batch(folder_set, tmp_path, augment):
    data = module(folder_set, augment=augment)
    data.trainer = quiet_trainer(tmp_path)
    data.trainer.training = True
    batch = next(iter(data.train_dataloader()))
    mixed = data.on_after_batch_transfer(batch, 0)
    torch.manual_seed(99)
    again = data.on_after_batch_transfer(batch, 0)
    assert mixed.targets.shape == (6, 3)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(6))
    assert torch.equal(mixed.images, again.images)
    assert torch.equal(mixed.targets, again.targets)
    data.trainer.training = False
    assert torch.equal(data.on_after_batch_transfer(batch, 0).targets, batch.targets)


def test_mix_probability_0_leaves_targets_alone(folder_set, tmp_path):
    data = module(folder_set, augment={"mixup_alpha": 1.0, "mix_probability": 0.0})
    data.trainer = quiet_trainer(tmp_path)
    data.trainer.training = True
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(data.on_after_batch_transfer(batch, 0).targets, batch.targets)


@pytest.fixture
def broken_set(tmp_path):
    """Two classes of six pictures, of which one is cut off."""
    for name in ("a", "b"):
        for i in range(6):
            paint(tmp_path / "set" / "train" / name / f"{i}.png", 0, i)
    broken = tmp_path / "set" / "train" / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    return tmp_path / "set"


def test_broken_images_are_all_named_before_a_fit(broken_set):
    with pytest.raises(UserError) as error:
        ImageFolderDataModule(path=broken_set).setup()
    assert "1 of 12 images that cannot be used" in str(error.value)
    assert "train/b/3.png: 60 bytes that do not decode" in str(error.value)
    assert "data.on_bad_image=drop" in str(error.value)


def test_broken_images_are_left_out_and_counted_when_asked(broken_set):
    data = ImageFolderDataModule(path=broken_set, on_bad_image="drop")
    assert len(data.table.ids) == 11
    assert data.dropped == ("train/b/3.png",)
    assert "dropped: 1 train images that do not decode" in data.table.stamps
    for position, name in enumerate(data.table.ids):
        assert data.table.images[position] == broken_set / name
        assert len(data.facts["sha256"]) == 11


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_stops_the_fit_and_is_named(broken_set, tmp_path, workers):
    data = ImageFolderDataModule(path=broken_set, resolution=32, batch_size=2, num_workers=workers, on_bad_image="drop")
    data.setup()
    victim = broken_set / data.table.ids[data.rows("train")[0]]
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(UserError) as error:
        quiet_trainer(tmp_path, limit_val_batches=0, max_epochs=3).fit(
            EfficientNetClassifier("tiny", 2), datamodule=data
        )
    assert str(victim) in str(error.value)
    assert "do this:" in str(error.value)


def test_unknown_options_are_refused(folder_set):
    with pytest.raises(TypeError, match="shuffle"):
        module(folder_set, shuffle=True)


def test_batches_unpack_as_pairs(folder_set):
    images, targets = next(iter(module(folder_set).train_dataloader()))[:2]
    assert images.shape == (6, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert targets.dtype == torch.int64
    assert Batch._fields == ("images", "targets", "index", "epoch", "first", "before")
