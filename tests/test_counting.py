"""Counts against torchvision's own metadata, the formulas in specs, and sums done by hand."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from workbench.models.backbones import build_backbone
from workbench.models.counting import count
from workbench.specs.architectures import ARCHS, count_madds, count_parameters


@pytest.mark.parametrize(
    "name",
    ["resnet34", "resnet50", "resnet152", "densenet121", "densenet169", "densenet201", "resnext101_64x4d"]
    + ["resnext101_32x8d", "mobilenet_v2", "inception_v3"],
)
def test_compared_nets_have_torchvisions_parameters_and_operations(name):
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    with torch.device("meta"):
        counts = count(build_backbone(name), weights.transforms().crop_size[0])
    auxiliary = 0
    if name == "inception_v3":  # torchvision counts its auxiliary classifier, which the paper's 24M leave out
        with torch.device("meta"):
            whole = get_model(name, weights=None, init_weights=False)
        auxiliary = sum(parameter.numel() for parameter in whole.AuxLogits.parameters())
        assert auxiliary > 0
    assert counts.parameters + auxiliary == weights.meta["num_params"]
    assert counts.madds / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.01)


@pytest.mark.parametrize("name", ARCHS)
def test_efficientnets_count_exactly_as_their_formulas_say(name):
    with torch.device("meta"):
        counts = count(build_backbone(name), ARCHS[name].resolution)
    assert counts.madds == count_madds(ARCHS[name], 1000)
    assert counts.parameters == sum(count_parameters(ARCHS[name], 1000).values())


def test_a_net_small_enough_to_count_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    counts = count(model, 8, batch=2)
    assert counts.parameters == 3 * 4 * 9 + 4 + 4 * 5 + 5
    assert counts.madds == 3 * 9 * 4 * 64 + 4 * 5
    assert counts.activations == 4 * 64
    images, maps = 2 * 3 * 64, 2 * 4 * 64
    pooled, logits = 2 * 4, 2 * 5
    # the ReLU writes in place; the maps live until pooling is done, the pooled until the logits are
    assert counts.peak_bytes == 4 * (counts.parameters + images + maps + pooled)
    assert pooled + logits < maps


def test_an_operation_that_is_not_in_place_holds_both_its_ends():
    inplace, copying = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=b)) for b in (True, False))
    maps = 4 * 4 * 8 * 8
    assert count(copying, 8).peak_bytes - count(inplace, 8).peak_bytes == maps


def test_counting_leaves_the_model_as_it_was():
    model = build_backbone("tiny", 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, 64)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_peak_bytes_are_near_what_a_gpu_allocates():
    model = build_backbone("b0").eval().cuda()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        model(torch.randn(16, 3, 224, 224, device="cuda"))
    measured = torch.cuda.max_memory_allocated()
    assert count(model, 224, 16).peak_bytes == pytest.approx(measured, rel=0.5)


def test_a_view_of_the_input_or_of_a_weight_is_not_held_twice():
    counts = count(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5, bias=False)), 8)
    assert counts.peak_bytes == 4 * (3 * 64 + counts.parameters + 5)
