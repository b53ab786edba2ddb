"""Any scaling from published weights: what grows computes the same, what is cut is a part of its source."""

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from workbench import EfficientNetClassifier, load_recipe
from workbench.models.efficientnet import EfficientNet
from workbench.models.transfer import has_linear_head, transfer_tensors
from workbench.models.weights import facts_of_weights, load_weights, look_alike
from workbench.specs.architectures import ARCHS, Scaling, count_parameters, resolve_arch
from workbench.specs.errors import UserError
from workbench.specs.nearest import nearest_arch
from workbench.specs.weights import facts_of

CLASSES = 5


@pytest.fixture(scope="module")
def source() -> EfficientNet:
    """A small network whose BatchNorms are as uneven as trained ones, and whose statistics fit: its input matters."""
    return as_if_trained(EfficientNet({"width": 0.5, "depth": 0.5}, CLASSES))


def as_if_trained(model: EfficientNet) -> EfficientNet:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
        elif isinstance(module, StochasticDepth):
            module.p = 0.0
    model(torch.randn(8, 3, 64, 64))
    return model.eval()


def grown(source: EfficientNet, width: float, depth: float, num_classes: int = CLASSES):
    """Return a network made from `source`, and the report."""
    torch.manual_seed(2)
    made = EfficientNet({"width": width, "depth": depth}, num_classes)
    tensors, report = transfer_tensors(source.state_dict(), source.scaling, made.scaling, made.state_dict())
    made.load_state_dict(tensors, strict=True)
    return made.eval(), report


def logits(model: EfficientNet, size: int = 64) -> torch.Tensor:
    torch.manual_seed(3)
    with torch.no_grad():
        return model(torch.randn(3, 3, size, size))


def relative(given: torch.Tensor, expected: torch.Tensor) -> float:
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("depth", [0.6, 1.0, 1.5])
def test_deeper_computes_exactly_the_same(source, depth):
    made, report = grown(source, 0.5, depth)
    assert len(made.state_dict()) > len(source.state_dict())
    assert float(logits(source).std(0).min()) > 0.1  # else equality would say nothing
    assert relative(logits(made), logits(source)) <= 1e-6
    assert report.same_function
    assert report.sliced == 0
    assert report.new > 0


@pytest.mark.parametrize(("width", "depth"), [(0.57, 0.5), (0.83, 0.5), (1.2, 0.5), (0.9, 1.3)])
@pytest.mark.parametrize("size", [64, 45])
def test_wider_computes_the_same_up_to_rounding(source, width, depth, size):
    made, report = grown(source, width, depth)
    assert made.num_features > source.num_features
    assert relative(logits(made, size), logits(source, size)) <= 1e-4
    assert report.same_function
    assert report.repeated > report.new


def test_wider_computes_the_same_with_batch_statistics_too(source):
    made, _ = grown(source, 0.9, 0.5)
    for model in (made, source):
        model.train()
        for module in model.modules():
            if not isinstance(module, nn.BatchNorm2d):
                module.training = False
            else:
                module.momentum = 0.0  # leave the running statistics of the shared source as they are
    try:
        assert relative(logits(made), logits(source)) <= 1e-3
    finally:
        source.eval()


def test_copies_of_a_channel_do_not_stay_copies_when_trained(source):
    made, _ = grown(source, 1.0, 0.5)
    made(torch.randn(4, 3, 64, 64)).square().sum().backward()
    stem = made.features[0][0].weight
    assert torch.equal(stem[0], stem[16])  # channel 16 is channel 0 again
    gradients = stem.grad[0].flatten(), stem.grad[16].flatten()
    cosine = nn.functional.cosine_similarity(*gradients, dim=0)
    assert abs(float(cosine)) < 0.99


def test_added_blocks_copy_the_last_block_but_for_its_end(source):
    made, _ = grown(source, 0.5, 1.1)
    ours, theirs = made.state_dict(), source.state_dict()
    added = "features.4.3.block."  # stage 4 has 2 blocks in the source, so this one copies block 1
    for name in ("0.0.weight", "1.1.running_mean", "2.fc1.bias", "3.0.weight"):
        assert torch.equal(ours[added + name], theirs["features.4.1.block." + name])
    assert not ours[added + "3.1.weight"].any()
    assert not ours[added + "3.1.bias"].any()


@pytest.mark.parametrize(("width", "depth"), [(0.3, 0.5), (0.17, 0.3), (0.5, 0.3), (0.1, 0.1)])
def test_what_is_cut_has_the_values_of_its_source(source, width, depth):
    made, report = grown(source, width, depth)
    theirs = source.state_dict()
    smaller = 0
    for name, tensor in made.state_dict().items():
        part = theirs[name][tuple(slice(n) for n in tensor.shape)]
        assert torch.equal(tensor, part), name
        smaller += tensor.shape != theirs[name].shape
    assert (report.new, report.repeated) == (0, 0)
    assert bool(smaller) == (report.sliced > 0)
    assert smaller or len(made.state_dict()) < len(theirs)
    assert not report.same_function


def test_any_scaling_gets_every_tensor_of_its_own_shape(source):
    generator = torch.Generator().manual_seed(4)
    for _ in range(12):
        width, depth = (0.1 + torch.rand(2, generator=generator) * torch.tensor([0.7, 1.4])).tolist()
        made, report = grown(source, width, depth)
        parameters = sum(p.numel() for p in made.parameters())
        assert report.copied + report.repeated + report.sliced + report.new == parameters
        assert torch.isfinite(logits(made)).all()


def test_a_skip_connection_that_comes_or_goes_with_the_width_is_admitted():
    tiny = as_if_trained(EfficientNet("tiny", CLASSES))  # its first stage is 8 channels in, 8 out
    made, report = grown(tiny, 0.5, 0.5)
    assert relative(logits(made), logits(tiny)) > 0.01
    assert not report.same_function


def test_counters_that_a_file_lacks_are_no_mistake(source):
    made = EfficientNet({"width": 0.9, "depth": 0.5}, CLASSES)
    tensors = {name: t for name, t in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    found, _ = transfer_tensors(tensors, source.scaling, made.scaling, made.state_dict())
    made.load_state_dict(found, strict=True)
    whole, _ = transfer_tensors(source.state_dict(), source.scaling, made.scaling, made.state_dict())
    assert all(torch.equal(found[name], whole[name]) for name in tensors if name in found)


def test_real_scalings_grow_from_b0():
    torch.manual_seed(5)
    b0 = as_if_trained(EfficientNet("b0", 3))
    for arch in ({"phi": 0.5}, {"width": 1.3, "depth": 1.5, "resolution": 260}):
        made = EfficientNet(arch, 3).eval()
        tensors, report = transfer_tensors(b0.state_dict(), b0.scaling, made.scaling, made.state_dict())
        made.load_state_dict(tensors, strict=True)
        assert relative(logits(made), logits(b0)) <= 1e-4
        assert report.same_function


def test_same_scaling_is_copied_whole_and_resolution_changes_nothing(source):
    twin = dataclasses.replace(source.scaling, name="twin", resolution=96)
    made = EfficientNet(twin, CLASSES)
    tensors, report = transfer_tensors(source.state_dict(), source.scaling, twin, made.state_dict())
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in tensors.items())
    assert len(tensors) == len(source.state_dict())
    assert (report.repeated, report.sliced, report.new) == (0, 0, 0)


def test_the_report_reads_as_a_sentence(source):
    _, report = grown(source, 0.5, 1.5)
    text = str(report)
    total = sum(count_parameters(resolve_arch({"width": 0.5, "depth": 1.5}), CLASSES).values())
    assert text.startswith(f"w0.5-d1.5-r224 made from w0.5-d0.5-r224: of {total:,} parameters ")
    assert "% copied, " in text
    assert "computes what its source does" in text
    assert "does not compute" in str(grown(source, 0.1, 0.5)[1])


def test_only_a_linear_head_is_carried_over(source):
    tensors = source.state_dict()
    cosine = EfficientNet(source.scaling, CLASSES, head="cosine").state_dict()
    backbone = {name: tensor for name, tensor in tensors.items() if name.startswith("features.")}
    assert [has_linear_head(t) for t in (tensors, cosine, backbone)] == [True, False, False]
    made = EfficientNet({"width": 0.9, "depth": 0.5}, CLASSES)
    for given in (cosine, backbone):
        found, _ = transfer_tensors(given, source.scaling, made.scaling, made.state_dict())
        assert not any(name.startswith("classifier.") for name in found)


def test_tensors_of_something_else_are_refused(source):
    made = EfficientNet({"width": 0.5}, CLASSES)
    tensors = source.state_dict()
    with pytest.raises(UserError, match="tensors missing, unknown or of another shape, such as features.0.0.weight"):
        transfer_tensors(tensors, ARCHS["b0"], made.scaling, made.state_dict())
    lacking = {name: tensor for name, tensor in tensors.items() if name != "features.3.0.block.2.fc1.bias"}
    with pytest.raises(UserError, match="1 tensors .*features.3.0.block.2.fc1.bias"):
        transfer_tensors(lacking, source.scaling, made.scaling, made.state_dict())
    with pytest.raises(UserError, match="1 tensors .*features.9.weight"):
        transfer_tensors({**tensors, "features.9.weight": torch.zeros(1)}, source.scaling, made.scaling, {})


def test_a_backbone_is_recognised_by_its_shapes(source):
    assert look_alike(EfficientNet("tiny", 2).state_dict()) is ARCHS["tiny"]
    assert look_alike(source.state_dict()) is None


FAMILY = tuple(f"b{i}" for i in range(8))


@pytest.mark.parametrize(
    ("arch", "among", "expected"),
    [
        ({"width": 1.3, "depth": 1.5, "resolution": 260}, FAMILY, "b3"),  # b4 is nearer in width, but would be cut
        ({"phi": 0.5}, FAMILY, "b0"),
        ({"depth": 4}, FAMILY, "b1"),
        ({"width": 2}, FAMILY, "b0"),
        ({"resolution": 448}, FAMILY, "b0"),
        ({"width": 0.5}, FAMILY, "b0"),
        ({"width": 1.9, "depth": 0.9}, ("b3", "b7"), "b3"),  # neither lies inside: the nearest of all
        ({"width": 9, "depth": 9}, FAMILY, "b7"),
    ],
)
def test_the_nearest_published_architecture(arch, among, expected):
    assert nearest_arch(resolve_arch(arch), among).name == expected


def test_nothing_to_start_from_is_said():
    with pytest.raises(UserError, match="no weights of a named architecture to make w2-d1-r224 from"):
        nearest_arch(Scaling("w2-d1-r224", 2, 1, 224, 0.2), ["mobilenet_v2"])


# ---- as a recipe says it -------------------------------------------------------------------------------------------


@pytest.fixture
def b0_file(tmp_path):
    """A b0 with torchvision's names in a file, and the network."""
    b0 = as_if_trained(EfficientNet("b0", 4, bn_eps=1e-5))
    torch.save(b0.state_dict(), tmp_path / "b0.pth")
    return str(tmp_path / "b0.pth"), b0


def test_a_local_file_grows_into_a_custom_scaling(b0_file):
    file, b0 = b0_file
    model = EfficientNetClassifier({"width": 1.1, "depth": 1.2, "resolution": 260}, 4, file)
    assert relative(logits(model.net.eval()), logits(b0)) <= 1e-4
    report = str(model.load_report)
    assert "tensors loaded from" in report
    assert "w1.1-d1.2-r260 made from b0: of " in report
    assert model.load_report.new == ()
    facts = facts_of_weights(file, model.net.scaling)
    assert (facts.bn_eps, facts.preprocessing.crop, facts.preprocessing.resize) == (1e-5, 260, 297)


def test_another_task_keeps_its_own_head(b0_file):
    report = EfficientNetClassifier({"depth": 1.3}, 9, b0_file[0]).load_report
    assert report.new == ("classifier.1.weight", "classifier.1.bias")
    assert report.skipped == report.new


def test_a_custom_scalings_own_file_is_loaded_as_it_is(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / "own.pth")
    model = EfficientNet({"width": 0.5, "depth": 0.5}, CLASSES)
    report = load_weights(model, str(tmp_path / "own.pth"))
    assert report.made == ""
    assert torch.equal(logits(model.eval()), logits(source))


def test_embedded_weights_are_cut_and_grown_and_the_log_says_so():
    model = EfficientNetClassifier({"width": 0.25, "depth": 1.0, "resolution": 96}, 16, "embedded/blossoms")
    assert "w0.25-d1-r96 made from tiny: of " in str(model.load_report)
    assert "computes what its source does" in str(model.load_report)
    assert (model.preprocessing.crop, model.preprocessing.interpolation) == (96, "bilinear")
    tiny = EfficientNetClassifier("tiny", 16, "embedded/blossoms").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().embed(images), tiny.embed(images), rtol=0, atol=0)


def test_published_facts_are_those_of_the_nearest_architecture():
    scaling = resolve_arch({"width": 1.3, "depth": 1.5, "resolution": 260})
    facts, b3 = facts_of("torchvision/imagenet1k_v1", scaling), facts_of("torchvision/imagenet1k_v1", ARCHS["b3"])
    assert facts.arch == "b3"
    assert facts.url == b3.url
    assert facts.preprocessing == dataclasses.replace(b3.preprocessing, crop=260, resize=277)
    assert facts_of("torchvision/imagenet1k_v2", scaling).arch == "b1"  # the only one there is


def test_unknown_names_and_named_architectures_are_refused_as_before():
    scaling = resolve_arch({"width": 1.3})
    with pytest.raises(UserError, match="did you mean 'torchvision/imagenet1k_v1'"):
        facts_of("torchvision/imagenet1k_v11", scaling)
    with pytest.raises(UserError, match="exists for b0, b1"):
        facts_of("torchvision/imagenet1k_v1", ARCHS["tiny"])


def test_a_recipe_with_a_custom_scaling_and_published_weights_is_valid():
    arch = "model.arch={width: 1.3, depth: 1.5, resolution: 260}"
    loaded = load_recipe("quickstart", [arch, "model.weights=torchvision/imagenet1k_v1"]).recipe
    assert (loaded.model.arch["width"], loaded.model.weights) == (1.3, "torchvision/imagenet1k_v1")
