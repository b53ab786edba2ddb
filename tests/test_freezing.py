"""Frozen means frozen."""

import copy

import pytest
import torch
from torch import nn

from workbench.models.efficientnet import EfficientNet, stages_before
from workbench.specs.architectures import STAGE_NAMES


def train_some_steps(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model.train()  # what every Trainer does at each epoch
        loss = model(torch.randn(4, 3, 64, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("first_trained", ["stage3", "head"])
def test_frozen_stage_keeps_every_bit_and_the_rest_trains(first_trained):
    model = EfficientNet("tiny", 5)
    model.freeze(stages_before(first_trained))
    before = copy.deepcopy({name: stage.state_dict() for name, stage in model.stages.items()})
    train_some_steps(model)
    for name, stage in model.stages.items():
        same = all(torch.equal(a, b) for a, b in zip(before[name].values(), stage.state_dict().values(), strict=True))
        assert same == (name in stages_before(first_trained)), name


def test_unfreezing_trains_everything_again():
    model = EfficientNet("tiny", 5)
    model.freeze(stages_before("head"))
    model.unfreeze()
    before = copy.deepcopy(model.state_dict())
    train_some_steps(model)
    # Biases before a BatchNorm do not exist here, so every tensor moves.
    assert not [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]


def test_frozen_batchnorm_everywhere_keeps_statistics_while_weights_train():
    model = EfficientNet("tiny", 5)
    model.freeze((), bn_everywhere=True)
    before = copy.deepcopy(model.state_dict())
    train_some_steps(model)
    for name, tensor in model.state_dict().items():
        is_statistic = "running_" in name or "num_batches" in name
        assert torch.equal(tensor, before[name]) == is_statistic, name


def test_a_new_head_on_a_frozen_backbone_is_trained():
    model = EfficientNet("tiny", 5)
    model.freeze(stages_before("head"))
    model.replace_head(nn.Linear(model.num_features, 3))
    assert all(p.requires_grad for p in model.classifier.parameters())
    assert not any(p.requires_grad for p in model.features.parameters())


def test_unknown_stage_is_named():
    with pytest.raises(ValueError, match="stage9"):
        EfficientNet("tiny", 5).freeze(["stage9"])
    with pytest.raises(ValueError, match="stage9"):
        stages_before("stage9")


def test_stages_before_counts_from_the_input():
    assert stages_before("all") == ()
    assert stages_before("stem") == ()
    assert stages_before("stage2") == ("stem", "stage1")
    assert stages_before("head") == STAGE_NAMES[:-1]
