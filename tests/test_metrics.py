"""Scores against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from workbench.specs.metric_names import logged_name
from workbench.training.metrics import SplitScores, interval95, mean_per_class, ranks


def one_hot_logits(predicted, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float() * 4


def test_top1_and_mean_per_class_differ_on_an_unbalanced_split():
    scores = SplitScores(3)
    scores.update(one_hot_logits([0, 0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 0, 1]))
    found = scores.compute()
    assert found["top1"] == pytest.approx(4 / 5)
    assert found["mean_per_class"] == pytest.approx((3 / 4 + 1) / 2)


def test_absent_classes_do_not_count_even_if_predicted():
    scores = SplitScores(4)
    scores.update(one_hot_logits([0, 3, 1], 4), torch.tensor([0, 0, 1]))
    assert scores.compute()["mean_per_class"] == pytest.approx((1 / 2 + 1) / 2)
    assert mean_per_class(torch.tensor([[1.0, 1.0], [0.0, 0.0]])) == 0.5


def test_top5_is_clipped_to_the_classes_and_right_beyond():
    few = SplitScores(3)
    few.update(one_hot_logits([0, 1], 3), torch.tensor([2, 2]))
    assert few.compute()["top5"] == 1.0
    many = SplitScores(10)
    many.update(-torch.arange(10.0).repeat(3, 1), torch.tensor([0, 4, 5]))
    assert many.compute()["top5"] == pytest.approx(2 / 3)
    assert many.compute()["top1"] == pytest.approx(1 / 3)


def test_loss_is_the_mean_over_images_not_over_batches():
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    scores = SplitScores(3)
    scores.update(logits[:4], targets[:4])
    scores.update(logits[4:], targets[4:])
    assert scores.compute()["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)))
    scores.reset()
    scores.update(logits[:1], targets[:1])
    assert scores.compute()["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits[:1], targets[:1])))


def test_multi_label_average_precision():
    scores = SplitScores(2, multi_label=True)
    # class 0: ranked right, wrong, right -> (1 + 2/3) / 2; class 1: perfect
    logits = torch.tensor([[3.0, 2.0], [2.0, -1.0], [1.0, -2.0]])
    scores.update(logits, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]))
    assert scores.compute()["mean_average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_wilson_interval_of_top1():
    right = np.array([True] * 81 + [False] * 19)
    p, n, z = 0.81, 100, 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert interval95("top1", right, np.zeros(100)) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_interval_of_mean_per_class():
    labels = np.array([0] * 10 + [1] * 40)
    right = np.array([True] * 5 + [False] * 5 + [True] * 30 + [False] * 10)
    # Wilson's for as many images as would give the variance of both classes, each with its missing n-th of all together
    variance = (0.25 / 10 + 0.625 * 0.375 / 100 + 0.1875 / 40 + 0.625 * 0.375 / 1600) / 4
    n, z = 0.625 * 0.375 / variance, 1.959964
    centre = (0.625 + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(variance + z * z / (4 * n * n)) / (1 + z * z / n)
    assert interval95("mean_per_class", right, labels) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert interval95("loss", right, labels) is None


@pytest.mark.parametrize(("images", "lowest"), [(1, 92), (2, 93), (3, 93), (5, 93), (20, 93)])
def test_interval_of_mean_per_class_holds_the_truth_as_often_as_it_says(images, lowest):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(50), images)
    found = [interval95("mean_per_class", rng.random(len(labels)) < 0.7, labels) for _ in range(1000)]
    assert 100 * np.mean([low <= 0.7 <= high for low, high in found]) >= lowest


def test_interval_of_mean_per_class_never_vanishes_and_is_wilsons_for_one_image_a_class():
    right, labels = np.array([True] * 30 + [False] * 10), np.arange(40)
    assert interval95("mean_per_class", right, labels) == pytest.approx(interval95("top1", right, labels), abs=1e-6)
    for share in (True, False):
        low, high = interval95("mean_per_class", np.full(12, share), np.repeat(np.arange(4), 3))
        assert (low, high) == pytest.approx(interval95("top1", np.full(12, share), np.zeros(12)), abs=1e-6)
        assert high - low > 0.2


def test_ranks_count_from_one():
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert ranks(logits, torch.tensor([1, 0])).tolist() == [1, 3]


def test_metric_names_come_from_one_list():
    assert logged_name("val", "top1") == "val/top1"
    for split, name in (("valid", "top1"), ("val", "accuracy")):
        with pytest.raises(ValueError, match="no such metric"):
            logged_name(split, name)


def test_ties_count_the_same_everywhere():
    logits = torch.zeros(4, 8)
    targets = torch.tensor([0, 1, 5, 7])
    assert ranks(logits, targets).tolist() == [1, 2, 6, 8]
    scores = SplitScores(8)
    scores.update(logits, targets)
    assert scores.compute()["top1"] == pytest.approx(1 / 4)
    assert scores.compute()["top5"] == pytest.approx(2 / 4)
