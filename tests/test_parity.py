"""Parity with timm: the same tensors give the same features and logits in both implementations, at every stage.

timm 1.0.31's models are the reference; weights are random, BatchNorm statistics too. Inputs are small to stay quick.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from workbench.models.efficientnet import EfficientNet
from workbench.models.key_names import STYLES, convert, module_names, style_of
from workbench.specs.architectures import ARCHS, Scaling, scaled_stages
from workbench.specs.weights import find_weights

timm = pytest.importorskip("timm")

B0_TO_B8 = [f"b{number}" for number in range(9)]
# prefix of timm's name -> the settings that belong to that line
LINES = {"": {"padding": "symmetric", "bn_eps": 1e-5}, "tf_": {"padding": "same", "bn_eps": 1e-3}}
BIG = ("b6", "b7", "b8")  # seconds each, by the same code as the small ones
PAIRS = [
    pytest.param(line, arch, marks=[pytest.mark.slow] if arch in BIG else [])
    for line in LINES
    for arch in B0_TO_B8
    if timm.is_model(f"{line}efficientnet_{arch}")
]
TOLERANCE = 1e-4


def randomise(net: nn.Module, seed: int) -> nn.Module:
    """Fill a network built on `meta` so that signals keep their size and no BatchNorm is near the identity."""
    net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if name == "num_batches_tracked":
                    tensor.fill_(7)
                elif name == "running_var":
                    tensor.uniform_(0.3, 1.7, generator=generator)
                elif name == "weight" and tensor.dim() == 1:
                    tensor.uniform_(0.6, 1.4, generator=generator)
                elif name == "weight":
                    width = (3 / tensor[0].numel()) ** 0.5
                    tensor.uniform_(-width, width, generator=generator)
                else:
                    tensor.uniform_(-0.3, 0.3, generator=generator)
    return net.eval()


def ours(arch, seed=1, **settings) -> EfficientNet:
    with torch.device("meta"):
        net = EfficientNet(arch, 10, **settings)
    return randomise(net, seed)


def theirs(line: str, arch: str, seed=2, **settings) -> nn.Module:
    with torch.device("meta"):
        net = timm.create_model(f"{line}efficientnet_{arch}", num_classes=10, **settings)
    return randomise(net, seed)


@torch.no_grad()
def stages_of_timm(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of every stage of a timm model: stem, seven stages, top, logits."""
    outputs = [net.bn1(net.conv_stem(images))]
    for stage in net.blocks:
        outputs.append(stage(outputs[-1]))
    outputs.append(net.bn2(net.conv_head(outputs[-1])))
    return [*outputs, net(images)]


@torch.no_grad()
def stages_of_ours(net: EfficientNet, images: torch.Tensor) -> list[torch.Tensor]:
    outputs = [images]
    for stage in net.features:
        outputs.append(stage(outputs[-1]))
    return [*outputs[1:], net(images)]


def difference(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """Return the largest difference at any stage, relative to that stage's largest value."""
    assert [one.shape for one in ones] == [other.shape for other in others]
    assert all(1e-3 < other.abs().max() < 1e3 for other in others), "signals died or exploded: nothing is compared"
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ones, others, strict=True))


def compared(mine: EfficientNet, other: nn.Module, sizes=(64, 75)) -> float:
    generator = torch.Generator().manual_seed(3)
    images = [torch.randn(2, 3, size, size + 1, generator=generator) for size in sizes]
    return max(difference(stages_of_ours(mine, image), stages_of_timm(other, image)) for image in images)


@pytest.mark.parametrize(("line", "arch"), PAIRS)
def test_our_weights_in_timm_give_the_same_features_and_logits(line, arch, record_property):
    mine = ours(arch, **LINES[line])
    with torch.device("meta"):
        other = timm.create_model(f"{line}efficientnet_{arch}", num_classes=10).eval()
    other.load_state_dict(convert(mine.state_dict(), mine.scaling, "torchvision", "timm"), strict=True, assign=True)
    found = compared(mine, other)
    record_property("difference", found)
    assert found < TOLERANCE


@pytest.mark.parametrize(("line", "arch"), PAIRS)
def test_timms_weights_in_ours_give_the_same_features_and_logits(line, arch, record_property):
    other = theirs(line, arch)
    with torch.device("meta"):
        mine = EfficientNet(arch, 10, **LINES[line]).eval()
    mine.load_state_dict(convert(other.state_dict(), mine.scaling, "timm", "torchvision"), strict=True, assign=True)
    found = compared(mine, other)
    record_property("difference", found)
    assert found < TOLERANCE


@pytest.mark.slow
def test_l2_gives_the_same_features_and_logits(record_property):
    other = theirs("tf_", "l2")
    with torch.device("meta"):
        mine = EfficientNet("l2", 10, **LINES["tf_"]).eval()
    mine.load_state_dict(convert(other.state_dict(), mine.scaling, "timm", "torchvision"), strict=True, assign=True)
    found = compared(mine, other, sizes=(45,))
    record_property("difference", found)
    assert found < TOLERANCE


@pytest.mark.parametrize("size", [32, 33, 34, 35, 63, 75, 224])
def test_same_padding_is_tensorflows_at_every_size(size):
    from timm.layers import Conv2dSame

    from workbench.models.efficientnet import SameConv2d

    for kernel in (3, 5):
        mine = SameConv2d(4, 4, kernel, 2, groups=4, bias=False)
        other = Conv2dSame(4, 4, kernel, 2, groups=4, bias=False)
        other.load_state_dict(mine.state_dict())
        images = torch.randn(1, 4, size, size + 3)
        assert mine(images).shape[2:] == ((size + 1) // 2, (size + 4) // 2)
        torch.testing.assert_close(mine(images), other(images))


WRONG = {
    "padding": {"padding": "symmetric", "bn_eps": 1e-3},
    "epsilon": {"padding": "same", "bn_eps": 1e-5},
}


@pytest.mark.parametrize("wrong", [*WRONG, "key"])
def test_a_wrong_padding_epsilon_or_key_is_seen(wrong):
    other = theirs("tf_", "b0")
    mine = EfficientNet("b0", 10, **WRONG.get(wrong, LINES["tf_"])).eval()
    tensors = convert(other.state_dict(), mine.scaling, "timm", "torchvision")
    if wrong == "key":
        one, two = "features.3.1.block.1.1.running_mean", "features.3.1.block.0.1.running_mean"
        tensors[one], tensors[two] = tensors[two], tensors[one]
    mine.load_state_dict(tensors)
    assert compared(mine, other) > 5 * TOLERANCE


def test_same_padding_works_in_channels_last_under_autocast_and_compiled():
    net = ours("tiny", **LINES["tf_"])
    images = torch.randn(2, 3, 64, 65)
    expected = net(images)
    laid_out = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(laid_out), expected, rtol=1e-4, atol=1e-5)
    traced = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(images), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(laid_out).shape == (2, 10)
    net.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def lukemelas_names(scaling: Scaling) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of lukemelas/EfficientNet-PyTorch, written from its documented structure."""
    stages, found = scaled_stages(scaling), {}

    def batchnorm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):  # its older files have no counter
            found[f"{name}.{leaf}"] = (channels,)

    found["_conv_stem.weight"] = (stages[0].in_channels, 3, 3, 3)
    batchnorm("_bn0", stages[0].in_channels)
    number = 0
    for stage in stages:
        channels = stage.in_channels
        for _ in range(stage.repeats):
            at, wide = f"_blocks.{number}.", channels * stage.expand
            if stage.expand != 1:
                found[at + "_expand_conv.weight"] = (wide, channels, 1, 1)
                batchnorm(at + "_bn0", wide)
            found[at + "_depthwise_conv.weight"] = (wide, 1, stage.kernel, stage.kernel)
            batchnorm(at + "_bn1", wide)
            narrow = max(1, channels // 4)
            found |= {at + "_se_reduce.weight": (narrow, wide, 1, 1), at + "_se_reduce.bias": (narrow,)}
            found |= {at + "_se_expand.weight": (wide, narrow, 1, 1), at + "_se_expand.bias": (wide,)}
            found[at + "_project_conv.weight"] = (stage.out_channels, wide, 1, 1)
            batchnorm(at + "_bn2", stage.out_channels)
            channels, number = stage.out_channels, number + 1
    top = EfficientNet(scaling, 10).num_features
    found["_conv_head.weight"] = (top, channels, 1, 1)
    batchnorm("_bn1", top)
    return found | {"_fc.weight": (10, top), "_fc.bias": (10,)}


@pytest.mark.parametrize("arch", ["b0", "b3", "tiny"])
def test_lukemelas_names_come_to_ours_and_back(arch):
    scaling, written = ARCHS[arch], lukemelas_names(ARCHS[arch])
    tensors = {name: torch.full(shape, float(number)) for number, (name, shape) in enumerate(written.items())}
    assert style_of(tensors) == "lukemelas"
    named = convert(tensors, scaling, "lukemelas", "torchvision")
    own = {k: v for k, v in EfficientNet(scaling, 10).state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in own.items()}
    # an independent check of what is what: the second block of the third stage expands, then convolves by depth
    number = sum(stage.repeats for stage in scaled_stages(scaling)[:2])
    assert named["features.3.0.block.1.0.weight"] is tensors[f"_blocks.{number}._depthwise_conv.weight"]
    assert named["features.3.0.block.3.1.running_var"] is tensors[f"_blocks.{number}._bn2.running_var"]
    back = convert(named, scaling, "torchvision", "lukemelas")
    assert list(back) == list(tensors)
    assert all(back[name] is tensors[name] for name in tensors)


@pytest.mark.parametrize("arch", list(ARCHS))
def test_every_arch_has_as_many_module_names_in_every_style_and_none_twice(arch):
    tables = [module_names(ARCHS[arch], style) for style in STYLES]
    assert len({len(table) for table in tables}) == 1
    assert all(len(set(table)) == len(table) for table in tables)


REPOSITORIES = [
    name
    for name in timm.list_models("*efficientnet_*", pretrained=True)
    if re.fullmatch(r"(tf_)?efficientnet_(b\d|l2)\..+", name)
]


@pytest.mark.parametrize("name", REPOSITORIES)
def test_every_row_equals_timms_own_configuration(name):
    config = timm.get_pretrained_cfg(name)
    arch = config.architecture.rsplit("_", 1)[1]
    entry = find_weights(config.hf_hub_id + ("" if "." in config.hf_hub_id else f".{config.tag}"), arch)
    assert entry.repository == f"timm/{name}"
    assert entry.name == f"timm/{name.replace(f'_{arch}', '', 1)}"
    assert find_weights(entry.name, arch) is entry
    preprocessing = entry.preprocessing
    options = timm.data.resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=True)
    resize, crop, *_ = timm.data.create_transform(**options).transforms
    sizes = resize.size if isinstance(resize.size, int) else resize.size[0]
    assert (sizes, tuple(crop.size)) == (preprocessing.resize, (preprocessing.crop,) * 2)
    assert preprocessing.squash == (not isinstance(resize.size, int))
    assert preprocessing.interpolation == options["interpolation"]
    assert (preprocessing.mean, preprocessing.std) == (options["mean"], options["std"])
    assert (entry.num_classes, entry.licence) == (config.num_classes, config.license)
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False)
    assert entry.padding == ("same" if type(net.conv_stem).__name__ == "Conv2dSame" else "symmetric")
    assert entry.bn_eps == net.bn1.eps
    assert net.num_classes == entry.num_classes


def test_the_table_has_timms_whole_family_and_nothing_else():
    from workbench.specs.hub_weights import HUB_ROWS

    assert sorted(row.repository for row in HUB_ROWS) == sorted(f"timm/{name}" for name in REPOSITORIES)
