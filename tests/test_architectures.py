"""Architectures against the published numbers and against torchvision."""

import pytest
import torch
import torchvision

from workbench.models.efficientnet import EfficientNet
from workbench.specs.architectures import (
    ARCHS,
    count_madds,
    count_parameters,
    resolve_arch,
    round_filters,
    scaled_stages,
    top_channels,
)
from workbench.specs.errors import UserError

# Parameters with 1,000 classes, and without head, and MAdds in G: torchvision 0.29 metas; b8, l2: timm's results csv.
TABLE = {
    "b0": (5_288_548, 4_007_548, 0.386),
    "b1": (7_794_184, 6_513_184, 0.687),
    "b2": (9_109_994, 7_700_994, 0.994),
    "b3": (12_233_232, 10_696_232, 1.827),
    "b4": (19_341_616, 17_548_616, 4.394),
    "b5": (30_389_784, 28_340_784, 10.266),
    "b6": (43_040_704, 40_735_704, 19.068),
    "b7": (66_347_960, 63_786_960, 37.746),
}


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_madds_equal_the_published_table(name):
    whole, backbone, madds = TABLE[name]
    with torch.device("meta"):
        model = EfficientNet(name, 1000)
    assert sum(p.numel() for p in model.parameters()) == whole
    assert sum(count_parameters(ARCHS[name], 0).values()) == backbone
    assert count_madds(ARCHS[name], 1000) / 1e9 == pytest.approx(madds, rel=0.01)


@pytest.mark.parametrize("arch", [*ARCHS, {"phi": 1.5}, {"width": 0.7, "depth": 1.3, "resolution": 180}])
def test_counted_parameters_equal_the_built_module_stage_by_stage(arch):
    with torch.device("meta"):
        model = EfficientNet(arch, 37)
    built = {name: sum(p.numel() for p in stage.parameters()) for name, stage in model.stages.items()}
    assert built == count_parameters(model.scaling, 37)
    assert sum(built.values()) == sum(p.numel() for p in model.parameters())


def test_b8_and_l2_have_the_sizes_that_timm_lists():
    assert sum(count_parameters(ARCHS["b8"], 1000).values()) == pytest.approx(87.41e6, rel=1e-4)
    assert sum(count_parameters(ARCHS["l2"], 1000).values()) == pytest.approx(480.31e6, rel=1e-4)


def test_madds_equal_what_a_forward_pass_multiplies():
    model = EfficientNet("tiny", 10).eval()
    counted = []

    def count(module, inputs, output):
        weight = module.weight
        counted.append(weight.numel() * (output.shape[-1] * output.shape[-2] if weight.dim() == 4 else 1))

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 70, 70))
    assert sum(counted) == count_madds(model.scaling, 10, 70)


@pytest.mark.parametrize("name", ["b0", "b1", "b5"])
def test_logits_equal_torchvisions_with_the_same_tensors(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"efficientnet_{name}")().eval()
    eps = theirs.features[0][1].eps
    ours = EfficientNet(name, 1000, bn_eps=eps).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 75, 75)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_stochastic_depth_grows_linearly_from_zero():
    for name, last in (("b0", 0.1875), ("b7", 0.19636)):
        with torch.device("meta"):
            model = EfficientNet(name)
        rates = [m.p for m in model.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
        assert rates[0] == 0
        assert rates[-1] == pytest.approx(last, abs=1e-4)
        steps = torch.tensor(rates).diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_rounding_follows_the_reference():
    assert [round_filters(c * 1.1) for c in (32, 16, 24, 40, 80, 112, 192, 320)] == [32, 16, 24, 48, 88, 120, 208, 352]
    assert round_filters(10) == 16  # 8 would be more than 10 % less
    assert [s.repeats for s in scaled_stages(ARCHS["b7"])] == [4, 7, 7, 10, 10, 13, 4]
    assert [s.out_channels for s in scaled_stages(ARCHS["l2"])] == [72, 104, 176, 344, 480, 824, 1376]
    assert top_channels(ARCHS["l2"]) == 5504


def test_compound_rule_gives_b0_b2_and_b3():
    for phi, name in ((0, "b0"), (1, "b2"), (2, "b3")):
        made, named = resolve_arch({"phi": phi}), ARCHS[name]
        assert made.resolution == named.resolution
        assert scaled_stages(made) == scaled_stages(named)


def test_a_named_architecture_can_be_scaled():
    made, tiny = resolve_arch({"base": "tiny", "width": 2, "depth": 3}), ARCHS["tiny"]
    assert (made.width, made.depth, made.resolution) == (2 * tiny.width, 3 * tiny.depth, tiny.resolution)
    assert made.name == "tiny-w2-d3-r64"
    assert scaled_stages(made) == scaled_stages(resolve_arch({"width": 0.5, "depth": 1.5}))
    assert resolve_arch({"base": "b3", "resolution": 64}).resolution == 64
    named = resolve_arch({"base": "b0", "width": 2})
    assert scaled_stages(named) == scaled_stages(resolve_arch({"width": 2}))
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        resolve_arch({"base": "tinny", "width": 2})
    with pytest.raises(UserError, match="10 times B0's"):
        resolve_arch({"base": "l2", "width": 3})


@pytest.mark.parametrize(
    "arch",
    [
        {"base": 3},
        {"base": "b0", "phi": 1},
        {"base": "b0", "width": "2"},
        "b9",
        {},
        {"phi": 1, "width": 2},
        {"width": "wide"},
        {"depth": 99},
        {"size": 3},
    ],
)
def test_impossible_architectures_are_refused(arch):
    with pytest.raises(UserError, match="model.arch"):
        resolve_arch(arch)


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
def test_every_head_turns_features_into_logits(head):
    model = EfficientNet("tiny", 7, head).eval()
    images = torch.randn(2, 3, 64, 64)
    assert model.embed(images).shape == (2, model.num_features)
    assert model(images).shape == (2, 7)
    assert EfficientNet("tiny", 7, "none")(images).shape == (2, model.num_features)


def test_cosine_head_sees_directions_only():
    model = EfficientNet("tiny", 7, "cosine", dropout=0.0)
    features = torch.randn(3, model.num_features)
    torch.testing.assert_close(model.classifier(features), model.classifier(5 * features))
    assert model.classifier(features).abs().max() <= 30


def test_unknown_head_names_the_known_ones():
    with pytest.raises(ValueError, match="linear, mlp, cosine, none"):
        EfficientNet("tiny", 7, "conv")
