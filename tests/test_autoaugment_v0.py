"""AutoAugment 'v0': its table and every operation beside timm's, on a picture with gradients, edges and noise."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment

from workbench.data import autoaugment_v0 as ours
from workbench.data.order import seeded
from workbench.data.transforms import train_transform

OPERATIONS = sorted({name for line in ours.POLICY for name, _, _ in line})


@pytest.fixture(scope="module")
def pixels():
    y, x = np.mgrid[:90, :140]
    bands = np.stack([x * 1.5, y * 2, 128 + 100 * np.sin(x / 9) * np.cos(y / 7)], -1)
    noise = np.random.default_rng(0).normal(0, 12, bands.shape)
    return (bands + noise).clip(20, 235).astype(np.uint8)


def test_the_table_is_timms_but_for_how_far_one_shift_goes():
    theirs = auto_augment.auto_augment_policy_v0(auto_augment._HPARAMS_DEFAULT)
    # timm shifts by a share of the picture where tensorflow/tpu shifts by pixels.
    found = [
        [(op.name.replace("TranslateYRel", "TranslateY"), op.prob, op.magnitude) for op in line] for line in theirs
    ]
    assert [list(line) for line in ours.POLICY] == found
    assert len(ours.POLICY) == 25


@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_are_timms(name):
    for level in range(11):
        by_level = auto_augment.LEVEL_TO_ARG[name]
        expected = by_level(level, auto_augment._HPARAMS_DEFAULT)[0] if by_level else None
        found = ours.argument(name, level)
        if isinstance(expected, float):
            assert found == pytest.approx(abs(expected) if name in ours._HIGHEST else expected)
        else:
            assert (found, type(found)) == (expected, type(expected))


# Share of pixels that may differ by more than one step of 255: positions half way between two pixels round either way.
TOLERANCE = {"Rotate": 0.002, "ShearX": 0.03, "ShearY": 0.03}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_give_timms_pictures(name, pixels):
    image, picture = torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels)
    for level in (1, 3, 4, 8, 9, 10):
        value = ours.argument(name, level)
        if name == "Posterize" and value == 0:  # Pillow refuses it; in TensorFlow nothing is left
            assert int(ours.apply_operation(image, name, value).max()) == 0
            continue
        for signed in {value, -value} if name in ours._HIGHEST else [value]:
            arguments = () if value is None else (signed,)
            options = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.NEAREST}
            expected = np.asarray(auto_augment.NAME_TO_OP[name](picture, *arguments, **options)).astype(int)
            found = ours.apply_operation(image, name, signed)
            assert found.dtype == torch.uint8
            difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected)
            assert (difference.max(-1) > 1).mean() <= TOLERANCE.get(name, 0), (level, signed)


def test_unknown_operation_is_named(pixels):
    with pytest.raises(ValueError, match="no such operation: Blur"):
        ours.apply_operation(torch.from_numpy(pixels).permute(2, 0, 1), "Blur", 1.0)


def test_every_line_is_drawn_both_ways_and_as_often_as_it_says(monkeypatch, pixels):
    calls = []
    monkeypatch.setattr(ours, "apply_operation", lambda image, name, value: calls.append((name, value)) or image)
    image, draws, policy = torch.from_numpy(pixels).permute(2, 0, 1), 5000, ours.AutoAugmentV0()
    with seeded(0):
        for _ in range(draws):
            policy(image)
    expected = sum(probability for line in ours.POLICY for _, probability, _ in line) / len(ours.POLICY)
    assert len(calls) / draws == pytest.approx(expected, abs=0.04)
    turned = [value for name, value in calls if name == "Rotate" and value]
    assert np.mean([value > 0 for value in turned]) == pytest.approx(0.5, abs=0.06)
    equalized = sum(p for line in ours.POLICY for name, p, _ in line if name == "Equalize") / len(ours.POLICY)
    assert sum(name == "Equalize" for name, _ in calls) / draws == pytest.approx(equalized, abs=0.04)


def test_the_training_transform_takes_it_and_repeats_itself(pixels):
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    transform = train_transform(48, "bicubic", policy="autoaugment_v0")
    assert re.search("AutoAugmentV0", str(transform))
    made = []
    for seed in (1, 1, 2, 3):
        with seeded(seed, "crop", 0):
            made.append(transform(image))
        assert (made[-1].shape, made[-1].dtype) == ((3, 48, 48), torch.uint8)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
