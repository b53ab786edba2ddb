"""Pictures kept decoded and scaled: what they change (nothing), what damages them, who makes them."""

import errno
import json
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from workbench import fit, load_recipe
from workbench.data import pixel_choice, pixels
from workbench.data.datamodules import ImageFolderDataModule
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.images import load_image
from workbench.data.order import EpochBatches, Place, seeded
from workbench.data.pixel_use import keep_pixels
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing


def photo(seed, size):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes of JPEGs, 24 each to train, 4 to select and 1 to test; one of each is turned by EXIF."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 24), ("val", 4), ("test", 1)):
        for label in (0, 1):
            for i in range(count):
                exif = Image.Exif()
                exif[0x0112] = 6 if i == 1 else 1
                path = root / split / "ab"[label] / f"{i:02d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(100 * label + i, (160, 120) if i % 2 else (48, 40)).save(path, quality=92, exif=exif)
    return root


def module(photos, tmp_path, **options):
    augment = {"min_crop_area": 0.2, "policy": "randaugment", "mixup_alpha": 0.4, **options.pop("augment", {})}
    sizes = {"resolution": 32, "preprocessing": Preprocessing(40, 32), "batch_size": 8}
    return ImageFolderDataModule(
        path=photos, prepared_root=tmp_path / "prepared", augment=augment, **{**sizes, **options}
    )


def drawn(data, ranks=1, epochs=(0, 1), micro=8):
    """Return the batches that every rank draws, mixed as while training."""
    kept = []
    loader = data.train_dataloader()
    for rank in range(ranks):
        batches = EpochBatches(len(loader.dataset), 8, micro, data.seed, rank, ranks, data.is_mixed)
        options = {"collate_fn": loader.collate_fn, "num_workers": data.num_workers}
        for epoch in epochs:
            batches.set_epoch(epoch)
            data.trainer = SimpleNamespace(training=True)
            for batch in DataLoader(loader.dataset, batch_sampler=batches, **options):
                batch = data.on_after_batch_transfer(batch, 0)
                kept.append((batch.images, batch.targets, batch.index))
            data.trainer = None
    return kept


def the_same(one, other):
    pairs = [pair for x, y in zip(one, other, strict=True) for pair in zip(x, y, strict=True)]
    return len(pairs) > 0 and all(torch.equal(a, b) for a, b in pairs)


def stores(tmp_path):
    return sorted((tmp_path / "prepared").glob("*.pixels-*.bin"))


@pytest.mark.parametrize("kind", ["off", "raw", "jpeg"])
def test_workers_do_not_change_a_bit_of_any_batch(photos, tmp_path, kind):
    kept = []
    for workers in (0, 1, 3):
        data = module(photos, tmp_path, num_workers=workers)
        keep_pixels(data, kind, 64, 9)
        kept.append(drawn(data))
    assert the_same(kept[0], kept[1])
    assert the_same(kept[0], kept[2])


@pytest.mark.parametrize(
    "mixing", [{"mixup_alpha": 0.4}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}, {"cutmix_alpha": 1.0}]
)
@pytest.mark.parametrize(
    ("ranks", "micro", "workers"),
    [(1, 4, 0), (2, 1, 0)] + [pytest.param(*p, marks=pytest.mark.slow) for p in ((1, 2, 1), (2, 1, 3))],
)
def test_parts_of_a_batch_are_mixed_as_the_whole(photos, tmp_path, mixing, ranks, micro, workers):
    data = module(photos, tmp_path, augment={**mixing, "mix_probability": 0.7}, num_workers=workers)
    keep_pixels(data, "raw", 64, 9)

    def by_row(batches):
        return {
            int(row): (image, target)
            for images, targets, rows in batches
            for row, image, target in zip(rows, images, targets, strict=True)
        }

    for epoch in (0, 1, 2):
        whole, parts = by_row(drawn(data, 1, [epoch])), by_row(drawn(data, ranks, [epoch], micro))
        assert whole.keys() == parts.keys()
        for row, pair in whole.items():
            assert all(torch.equal(a, b) for a, b in zip(pair, parts[row], strict=True)), row


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_a_whole_batch_is_mixed_by_torchvision(photos, tmp_path, name):
    alphas = {"mixup_alpha": 0.0, name: 0.7}
    data = module(photos, tmp_path, augment=alphas)
    plain = module(photos, tmp_path, augment={"mixup_alpha": 0.0})
    transform = {"mixup_alpha": v2.MixUp, "cutmix_alpha": v2.CutMix}[name](alpha=0.7, num_classes=data.num_classes)
    for (images, targets, rows), mixed in zip(drawn(plain, epochs=[2]), drawn(data, epochs=[2]), strict=True):
        with seeded(data.seed, "mix", 2, int(rows[0])):
            torch.rand(())  # whether to mix
            expected = v2.RandomChoice([transform])(images, targets)
        assert torch.equal(expected[0], mixed[0])
        assert torch.equal(expected[1], mixed[1])


def test_raw_pictures_that_are_not_scaled_change_no_bit(photos, tmp_path):
    options = {"resolution": 64}  # of which no crop is twice as large: none is decoded smaller
    plain, kept = module(photos, tmp_path, **options), module(photos, tmp_path, **options, num_workers=1)
    keep_pixels(kept, "raw", 120, 9)
    assert kept.pixels["train"].open()
    assert the_same(drawn(plain), drawn(kept))


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_evaluation_is_bit_equal_and_training_shows_the_same_regions(photos, tmp_path, kind):
    plain, kept = module(photos, tmp_path), module(photos, tmp_path)
    keep_pixels(kept, kind, 64, 9)
    assert len(stores(tmp_path)) == 2
    for a, b in zip(plain.eval_dataloader("selection"), kept.eval_dataloader("selection"), strict=True):
        assert torch.equal(a.images, b.images)
        assert kept.pixels["selection"] is not None
    options = {"augment": {"policy": "none", "mixup_alpha": 0.0}}
    plain, kept = module(photos, tmp_path, **options), module(photos, tmp_path, **options)
    keep_pixels(kept, kind, 64, 9)
    one, other = plain.train_dataloader().dataset, kept.train_dataloader().dataset
    away = [(one[Place(3, i, i)][0].float() - other[Place(3, i, i)][0].float()).abs().mean() for i in range(len(one))]
    assert max(away) < 10  # of 255: such small pictures lose detail; another region is some 60 away
    assert sum(d == 0 for d in away) >= 24  # those that were small enough


def test_a_centre_crop_is_kept_as_evaluation_leaves_it(photos, tmp_path):
    options = {"augment": {"crop": "center", "policy": "none", "mixup_alpha": 0.0}}
    plain, kept = module(photos, tmp_path, **options), module(photos, tmp_path, **options)
    choice = keep_pixels(kept, "jpeg", None, 9)  # evaluation's pictures are never encoded
    assert choice.kind == "raw"
    assert "centre crops are never kept as JPEGs" in choice.reason
    one, other = plain.train_dataloader().dataset, kept.train_dataloader().dataset
    assert kept.pixels["train"].kept.form == "raw"
    assert all(torch.equal(one[Place(1, i, i)][0], other[Place(1, i, i)][0]) for i in range(len(one)))


def test_a_store_is_shared_by_fits_and_made_anew_when_the_set_changes(photos, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    keep_pixels(module(copy, tmp_path), "raw", 64, 9)
    before = {path: path.stat().st_mtime_ns for path in stores(tmp_path)}
    assert len(before) == 2
    keep_pixels(module(copy, tmp_path, train_on="train+selection", seed=4), "raw", 64, 99)
    keep_pixels(module(copy, tmp_path), "raw", 64, 9)
    assert {path: path.stat().st_mtime_ns for path in stores(tmp_path)} == before
    keep_pixels(module(copy, tmp_path), "raw", 50, 9)
    assert len(stores(tmp_path)) == 3  # another policy stands beside
    photo(7, (160, 120)).save(copy / "train" / "a" / "03.jpg")
    changed = module(copy, tmp_path)
    keep_pixels(changed, "raw", 64, 9)
    assert not set(stores(tmp_path)) & set(before)  # the old ones can never be right again
    plain = module(copy, tmp_path)
    keep_pixels(plain, "off", 64, 9)
    row = plain.table.ids.index("train/a/03.jpg")
    image = load_image(copy / "train" / "a" / "03.jpg")
    assert torch.equal(changed.pixels["train"][row][0], changed.pixels["train"].kept.pixels(image))


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_truncated_store_is_made_anew(photos, tmp_path, cut):
    expected = module(photos, tmp_path)
    keep_pixels(expected, "raw", 64, 9)
    wanted, path = drawn(expected, epochs=[0]), expected.pixels["train"].path
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    again = module(photos, tmp_path)
    keep_pixels(again, "raw", 64, 9)
    assert path.read_bytes() == whole
    assert the_same(wanted, drawn(again, epochs=[0]))


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_damaged_picture_is_read_from_the_set_and_said(photos, tmp_path, kind, caplog):
    expected = module(photos, tmp_path)
    keep_pixels(expected, kind, 64, 9)
    wanted = drawn(expected, epochs=[0])
    path = expected.pixels["train"].path
    damaged = bytearray(path.read_bytes())
    damaged[500:3500] = bytes(3000)
    path.write_bytes(damaged)
    again = module(photos, tmp_path)
    keep_pixels(again, kind, 64, 9)
    assert the_same(wanted, drawn(again, epochs=[0]))
    assert "damaged picture" in caplog.text
    assert str(path) in caplog.text


def full_after(monkeypatch, count):
    """Let the disk be full after some pictures."""
    real, done = pixels.PixelStore._packed, []

    def packed(self, position):
        done.append(position)
        if len(done) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, position)

    monkeypatch.setattr(pixels.PixelStore, "_packed", packed)


def test_a_full_disk_turns_auto_off_and_stops_raw(photos, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "workbench")
    plain, kept = module(photos, tmp_path), module(photos, tmp_path)
    full_after(monkeypatch, 5)
    choice = keep_pixels(kept, "auto", 64, 9)
    assert choice.kind == "off"
    assert "could not be written: No space left" in choice.reason
    assert caplog.text.count("prepared pixels: off") == 1
    assert the_same(drawn(plain, epochs=[0]), drawn(kept, epochs=[0]))
    with pytest.raises(UserError, match=r"No space left(.|\n)*data.prepare=off"):
        keep_pixels(module(photos, tmp_path), "raw", 64, 9)
    assert not [path for path in (tmp_path / "prepared").iterdir() if "pixels-" in path.name]


def test_a_folder_that_cannot_be_written_turns_auto_off(photos, tmp_path, monkeypatch):
    kept = module(photos, tmp_path)
    kept.prepare_data()

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "prepared"))

    monkeypatch.setattr(pixel_choice, "alone", refused)
    assert "Permission denied" in keep_pixels(kept, "auto", 64, 9).reason
    with pytest.raises(UserError, match=r"prepared(.|\n)*Permission denied(.|\n)*data.prepare=off"):
        keep_pixels(kept, "jpeg", 64, 9)


def test_auto_weighs_epochs_disk_and_memory(photos, tmp_path, monkeypatch):
    def chosen(epochs=9, free=10**12, memory=10**12, asked="auto", **augment):
        monkeypatch.setattr(pixel_choice.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
        monkeypatch.setattr(pixel_choice, "available_memory", lambda: memory)
        data = module(photos, tmp_path, augment=augment)
        choice = keep_pixels(data, asked, 64, epochs)
        for path in stores(tmp_path):
            path.unlink()
        return choice.kind, choice.reason

    assert chosen()[0] == "raw"
    assert chosen(epochs=4) == ("off", "4 epochs, and it pays from 5")
    assert chosen(memory=100)[0] == "jpeg"
    assert "over half of the" in chosen(memory=100)[1]
    kind, reason = chosen(memory=100, crop="center", policy="none")
    assert kind == "off"  # JPEGs would be raw crops by another name, and not fit either
    assert reason.endswith("centre crops are never kept as JPEGs")
    spare = pixel_choice.SPARE_BYTES
    kind, reason = chosen(free=spare + 100)
    assert kind == "off"
    assert reason.count("does not fit") == 2
    with pytest.raises(UserError, match=r"raw, (.|\n)*does not fit(.|\n)*data.prepare=off"):
        chosen(free=spare + 100, asked="raw")


def test_rendered_sets_are_left_alone():
    choice = keep_pixels(ImageDataModule(card="blossoms", batch_size=8), "raw", None, 99)
    assert (choice.kind, choice.reason) == ("off", "the set's pictures are not files")


def make_slowly(photos, tmp_path, pause, made):
    """Make the stores in another process, and count the pictures that it makes."""

    def work():
        real = pixels.PixelStore._packed

        def packed(self, position):
            with made.get_lock():
                made.value += 1
            time.sleep(pause)
            return real(self, position)

        pixels.PixelStore._packed = packed
        keep_pixels(module(photos, tmp_path), "raw", 64, 9)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_killed_while_preparing_it_starts_anew(photos, tmp_path):
    made = multiprocessing.Value("i", 0)
    child = make_slowly(photos, tmp_path, 0.2, made)
    while not made.value:
        time.sleep(0.01)
    time.sleep(0.3)  # some are written
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert stores(tmp_path) == []
    assert list((tmp_path / "prepared").glob(".*.part"))
    data = module(photos, tmp_path)
    keep_pixels(data, "raw", 64, 9)
    assert len(stores(tmp_path)) == 2
    assert not list((tmp_path / "prepared").glob(".*.part"))


def test_of_two_processes_one_makes_it(photos, tmp_path):
    module(photos, tmp_path).prepare_data()
    made = multiprocessing.Value("i", 0)
    both = [make_slowly(photos, tmp_path, 0.01, made) for _ in range(2)]
    for child in both:
        child.join(60)
    assert [child.exitcode for child in both] == [0, 0]
    assert made.value == 56 + 8
    assert len(stores(tmp_path)) == 2


def test_a_fit_says_what_it_chose_and_goes_on_with_it(tiny_recipe, tmp_path, monkeypatch):
    options = ["data.prepare=raw", f"data.prepared_root={tmp_path / 'prepared'}", "train.total_epochs=5"]
    recipe = load_recipe(str(tiny_recipe), options).recipe
    folder = fit(recipe).folder
    choice = json.loads((folder / "pixels.json").read_text())
    assert choice["kind"] == "raw"
    assert choice["side"] == 37  # 8/7 of 32
    assert "prepared pixels: raw, shorter side 37 px" in (folder / "log.txt").read_text()
    (folder / "result.json").unlink()
    for path in stores(tmp_path):
        path.unlink()
    full_after(monkeypatch, 0)
    fit(recipe, resume=folder)  # its pictures are made anew, from the set
    assert json.loads((folder / "pixels.json").read_text()) == choice
    assert "as the run began with them" in (folder / "log.txt").read_text()


def test_keeping_pictures_that_are_not_scaled_changes_no_weight(tiny_recipe, tmp_path):
    from safetensors.torch import load_file

    options = [f"data.prepared_root={tmp_path / 'prepared'}", "train.total_epochs=2"]
    one, other = (
        fit(load_recipe(str(tiny_recipe), [*options, f"data.prepare={kind}"]).recipe) for kind in ("off", "raw")
    )
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (one, other))
    assert stores(tmp_path)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_loader_process_uses_one_thread(photos, tmp_path):
    loader = module(photos, tmp_path, num_workers=1).train_dataloader()
    loader.dataset._input = lambda row: torch.full((3, 1, 1), torch.get_num_threads(), dtype=torch.uint8)
    assert {int(batch.images.max()) for batch in loader} == {1}
