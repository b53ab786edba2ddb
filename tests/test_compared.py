"""The networks that the paper compares with: counts as published, tensors and logits as their libraries', fits."""

import dataclasses
import sys

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from workbench import EfficientNetClassifier, evaluate, fit, load_model, load_recipe
from workbench.models.backbones import build_backbone
from workbench.models.compared import ComparedNet, whole_network
from workbench.models.counting import count
from workbench.models.weights import load_weights
from workbench.specs.compared import FAMILIES, NOT_BUILT, arch_of, backbone_from, resolve_backbone
from workbench.specs.compared_weights import COMPARED_WEIGHTS, backbone_facts
from workbench.specs.errors import UserError
from workbench.specs.paper_models import TABLE_2, paper_model, printed

BOTH = {"width": 1.2, "depth": 1.4}
# shared/docs/protocol.md section 2, Table 3, column "M": G multiply-adds
MEASURED = [
    ("mobilenet_v1", {}, 0.569),
    ("mobilenet_v1", {"width": 2}, 2.216),
    ("mobilenet_v1", {"resolution": 448}, 2.272),
    ("mobilenet_v1", {**BOTH, "resolution": 288}, 2.24),
    ("mobilenet_v1", {**BOTH, "resolution": 291}, 2.47),
    ("mobilenet_v2", {}, 0.301),
    ("mobilenet_v2", {"depth": 4}, 1.220),
    ("mobilenet_v2", {"width": 2}, 1.137),
    ("mobilenet_v2", {"resolution": 448}, 1.199),
    ("mobilenet_v2", {**BOTH, "resolution": 288}, 1.28),
    ("mobilenet_v2", {**BOTH, "resolution": 291}, 1.44),
    ("resnet50", {}, 4.089),
    ("resnet50", {"depth": 4}, 14.571),
    ("resnet50", {"width": 2}, 16.117),
    ("resnet50", {"resolution": 448}, 16.351),
    ("resnet50", {**BOTH, "resolution": 288}, 14.45),
    ("resnet50", {**BOTH, "resolution": 291}, 15.95),
    ("resnet50", {**BOTH, "resolution": 300}, 16.34),
    # Table 7: B0 scaled
    (None, {"depth": 4}, 1.575),
    (None, {"depth": 4.5}, 1.83),
    (None, {"width": 2}, 1.450),
    (None, {"width": 2.2}, 1.76),
    (None, {"resolution": 448}, 1.538),
    (None, {"resolution": 492}, 1.92),
    (None, {**BOTH, "resolution": 291}, 1.80),
    (None, {**BOTH, "resolution": 300}, 1.827),
]


@pytest.mark.parametrize(("family", "numbers", "madds"), MEASURED)
def test_scaled_nets_have_the_multiply_adds_of_protocol_md(family, numbers, madds):
    arch = resolve_backbone({"family": family, **numbers} if family else numbers)
    with torch.device("meta"):
        counted = count(build_backbone(arch), arch.resolution).madds
    assert counted / 1e9 == pytest.approx(madds, rel=0.01)


def test_mobilenet_v1_has_the_published_parameters():
    with torch.device("meta"):  # Howard et al. 2017, Table 8: 4.2 million
        assert count(build_backbone("mobilenet_v1"), 224).parameters == pytest.approx(4.2e6, rel=0.01)


@pytest.mark.parametrize("name", [row.arch for row in TABLE_2 if row.arch in FAMILIES])
def test_every_built_net_of_table_2_is_the_one_that_the_paper_means(name):
    if FAMILIES[name].library == "timm":
        pytest.importorskip("timm")
    row = paper_model(name)
    with torch.device("meta"):
        counts = count(build_backbone(name), row.resolution or FAMILIES[name].resolution)
    if row.flops_b is not None:  # GPipe: none printed
        assert counts.madds / 1e9 == pytest.approx(row.flops_b, rel=0.09)  # PNASNet 24.9 for a printed 23
    # Inception-v4 (42.7M for a printed 48M) and SENet-154 (115M for 146M) differ in every library
    off = {"inception_v4": 0.12, "senet154": 0.22}.get(name, 0.03)
    assert counts.parameters / 1e6 == pytest.approx(row.params_m, rel=off)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_the_uncut_network(name):
    if FAMILIES[name].library == "timm":
        pytest.importorskip("timm")
    if name.startswith("amoebanet"):
        pytest.skip("narrow ones in test_amoebanet.py")
    if name in ("nasnetalarge", "pnasnet5large", "senet154", "resnext101_64x4d", "resnext101_32x8d", "densenet264"):
        pytest.skip("slow; the same code as smaller ones")
    torch.manual_seed(0)
    whole = whole_network(resolve_backbone(name)).eval()
    for module in whole.modules():  # statistics that are not the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    model = ComparedNet(name).eval()
    from workbench.models.compared import renamed

    model.load_state_dict(renamed(whole.state_dict(), model.scaling))
    images = torch.randn(1, 3, max(96, FAMILIES[name].smallest), max(96, FAMILIES[name].smallest))
    with torch.no_grad():
        torch.testing.assert_close(model(images), whole(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_cover_every_parameter_and_batchnorms_are_as_stated(name):
    if FAMILIES[name].library == "timm":
        pytest.importorskip("timm")
    with torch.device("meta"):
        model = build_backbone(name, 7)
    assert tuple(model.stages) == FAMILIES[name].stages
    covered = [id(p) for stage in model.stages.values() for p in stage.parameters()]
    assert sorted(covered) == sorted(id(p) for p in model.parameters())
    assert all(any(True for _ in stage.parameters()) for stage in model.stages.values())
    norms = {(m.eps, m.momentum) for m in model.features.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {(FAMILIES[name].bn_eps, 0.1)}
    size = FAMILIES[name].smallest
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


def test_weights_are_those_that_torchvision_lists():
    for entry in COMPARED_WEIGHTS:
        theirs = get_model_weights(entry.arch)[entry.name.split("/")[1].upper()]
        transforms = theirs.transforms()
        assert entry.url == theirs.url
        assert entry.megabytes == theirs.meta["_file_size"]
        assert entry.top1 == pytest.approx(theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        sizes = entry.preprocessing.resize, entry.preprocessing.crop, entry.preprocessing.interpolation
        assert sizes == (transforms.resize_size[0], transforms.crop_size[0], transforms.interpolation.value)
        if entry.arch != "inception_v3":
            assert entry.preprocessing.mean == tuple(transforms.mean)


def test_inceptions_statistics_are_what_torchvision_turns_imagenets_into():
    theirs = get_model("inception_v3", weights=None, init_weights=False, transform_input=True)
    raw = torch.rand(1, 3, 8, 8)
    transforms = get_model_weights("inception_v3").IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transforms.mean, transforms.std))
    seen = theirs._transform_input((raw - mean) / std)
    ours = backbone_facts("torchvision/imagenet1k_v1", resolve_backbone("inception_v3")).preprocessing
    expected = (raw - torch.tensor(ours.mean).view(3, 1, 1)) / torch.tensor(ours.std).view(3, 1, 1)
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "densenet121"])
def test_a_file_of_torchvisions_loads_and_only_the_head_is_new(name, tmp_path):
    theirs = get_model(name, weights=None).eval()
    path = tmp_path / "published.pth"
    torch.save(theirs.state_dict(), path)
    same = build_backbone(name, 1000).eval()
    assert not load_weights(same, str(path)).new
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(same(images), theirs(images), rtol=1e-4, atol=1e-5)
    report = load_weights(build_backbone(name, 5), str(path))
    assert report.new == ("classifier.1.weight", "classifier.1.bias")


def test_densenets_old_names_and_inceptions_auxiliary_classifier_are_understood(tmp_path):
    tensors = get_model("densenet121", weights=None).state_dict()
    old = {n.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): t for n, t in tensors.items()}
    assert old.keys() != tensors.keys()
    torch.save(old, tmp_path / "old.pth")
    assert not load_weights(build_backbone("densenet121"), str(tmp_path / "old.pth")).new
    with torch.device("meta"):
        inception = get_model("inception_v3", weights=None, init_weights=False)
    torch.save({n: torch.zeros(t.shape) for n, t in inception.state_dict().items()}, tmp_path / "inception.pth")
    assert not load_weights(build_backbone("inception_v3"), str(tmp_path / "inception.pth")).new


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(get_model("resnet34", weights=None).state_dict(), tmp_path / "r34.pth")
    with pytest.raises(UserError, match="missing.*\n.*weights of resnet50"):
        load_weights(build_backbone("resnet50", 5), str(tmp_path / "r34.pth"))


@pytest.mark.parametrize("arch", ["resnet50", {"family": "resnet50", "width": 2}, {"width": 2}, "b3", {"phi": 1}])
def test_an_arch_survives_being_written_down(arch):
    backbone = resolve_backbone(arch)
    assert backbone_from(dataclasses.asdict(backbone)) == backbone
    again = resolve_backbone(arch_of(backbone))
    assert (again.width, again.depth, again.resolution) == (backbone.width, backbone.depth, backbone.resolution)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet5", "did you mean 'resnet50'"),
        ("polynet", "in neither torchvision nor timm"),
        ({"family": "resnet51"}, "did you mean 'resnet50'"),
        ({"family": "resnet152", "width": 2}, "remove width, or take one of mobilenet_v1, mobilenet_v2, resnet50"),
        ({"family": "resnet50", "width": 0}, "width and depth 0.1 to 10"),
        ({"family": "resnet50", "width": "two"}, "width and depth 0.1 to 10"),
        ({"family": "resnet50", "resolution": 224.5}, "a whole number"),
        ({"family": "inception_v3", "resolution": 64}, "resolution 75 to 2048"),
    ],
)
def test_a_wrong_arch_is_explained(arch, message):
    with pytest.raises(UserError, match=message):
        resolve_backbone(arch)


def test_what_only_efficientnets_have_is_refused():
    with pytest.raises(UserError, match="model.drop_path(.|\n)*only EfficientNets"):
        ComparedNet("resnet50", 5, drop_path=0.2)
    with pytest.raises(UserError, match="model.padding"):
        ComparedNet("resnet50", 5, padding="same")
    with pytest.raises(UserError, match="imagenet1k_v1, torchvision/imagenet1k_v2"):
        backbone_facts("torchvision/imagenet1k_v3", resolve_backbone("resnet50"))


def test_a_net_of_timms_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install '.\[compare\]'"):
        build_backbone("xception")


def test_every_model_of_table_2_is_built_or_listed_as_not():
    known = {row.arch for row in TABLE_2}
    assert known - FAMILIES.keys() - NOT_BUILT.keys() == {f"b{i}" for i in range(8)}
    assert printed(paper_model("resnet50"), "top1") == "76.0 (document: 76.3)"
    assert printed(paper_model("b4"), "top1") == "82.9 (document: 83.0)"
    assert printed(paper_model("resnet152"), "flops_b") == "11 (document: 11.3)"
    assert printed(paper_model("amoebanet_b"), "flops_b") == ""


SMALL = ["model.arch={family: mobilenet_v1, width: 0.25, depth: 0.5, resolution: 32}", "model.bn_momentum=null"]
PHASES = "train.phases=[{train: head, epochs: 1}, {train: stage5}]"


def test_a_compared_net_trains_saves_loads_and_evaluates(tiny_recipe):
    outcome = fit(load_recipe(str(tiny_recipe), [*SMALL, PHASES]).recipe)
    assert outcome.result["arch"] == "mobilenet_v1-w0.25-d0.5-r32"
    again = evaluate(outcome.folder)
    assert again["scores"]["top1"] == outcome.result["test"]["top1"]
    model = load_model(outcome.folder)
    assert isinstance(model, ComparedNet)
    assert model.scaling.family == "mobilenet_v1"
    classifier = EfficientNetClassifier.load(outcome.folder)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), model(images))


def test_frozen_stages_of_a_compared_net_stay_as_they_are():
    classifier = EfficientNetClassifier("resnet50", 3)
    classifier.freeze("stage2")
    classifier.train()
    assert classifier.net.frozen == {"stem", "stage1", "stage2"}
    before = {n: t.clone() for n, t in classifier.net.state_dict().items()}
    classifier(torch.randn(2, 3, 32, 32)).sum().backward()
    moved = {n.split(".")[1] for n, t in classifier.net.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"3", "4"}  # running statistics of stage3 and stage4 only
    classifier.freeze()
    assert classifier.net.frozen == set(FAMILIES["resnet50"].stages) - {"head"}


def test_a_recipe_checks_stages_sizes_and_options_of_a_compared_net(tiny_recipe):
    wrong = ["model.arch=inception_v3", "model.drop_path=0.2", "train.phases=[{train: top}]", "model.weights=a/b"]
    with pytest.raises(UserError) as caught:
        load_recipe(str(tiny_recipe), wrong)
    text = str(caught.value)
    for part in ("set model.drop_path=null", "stem, stage1, stage2, stage3, stage4, head", "75 or more", "a/b with"):
        assert part in text


def test_the_plan_of_a_compared_net_counts_it(tiny_recipe):
    from workbench.training.plan import plan

    made = plan(load_recipe(str(tiny_recipe), ["model.arch=resnet50", "train.phases=[{train: stage4}]"]))
    facts = dict(made.facts)
    assert facts["model"].startswith("resnet50, 23,514,179 parameters (23,508,032 without head)")
    assert 0 < made.phases[0]["share"] < 1
