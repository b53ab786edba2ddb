"""AmoebaNets: published counts and cells, the wiring between cells, and what a backbone must do, on narrow ones."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from workbench import EfficientNetClassifier, evaluate, fit, load_model, load_recipe
from workbench.analysis.profile import Protocol, profile
from workbench.cli import list_verb
from workbench.models.activation_maps import activation_maps
from workbench.models.amoebanet import AmoebaNet, _CellModule, _Halved, _operation
from workbench.models.backbones import build_backbone
from workbench.models.compared import whole_network
from workbench.models.counting import count
from workbench.models.weights import load_weights
from workbench.specs.amoeba_cells import DESIGNS, Cell
from workbench.specs.compared import FAMILIES, resolve_backbone
from workbench.specs.errors import UserError
from workbench.specs.paper_models import TABLE_4, paper_model

NARROW = {"width": 0.1, "depth": 0.1, "resolution": 64}
STAGES = ("stem", "stage1", "stage2", "stage3", "head")

# tensorflow/tpu, models/official/amoeba_net/model_specs.py, by the short names of ours: operations in order, the state
# that each takes, and 0 for a state that is part of the cell's output
PUBLISHED = {
    ("amoebanet_a", "normal"): (
        "avg_3x3 max_3x3 sep_3x3 none none avg_3x3 sep_3x3 sep_5x5 avg_3x3 sep_3x3",
        [0, 0, 1, 1, 0, 1, 0, 2, 5, 0],
        [1, 0, 1, 0, 0, 1, 0],
    ),
    ("amoebanet_a", "reduction"): (
        "sep_3x3 avg_3x3 max_3x3 sep_7x7 max_3x3 max_3x3 sep_3x3 1x7_7x1 avg_3x3 sep_7x7",
        [1, 0, 0, 2, 1, 0, 4, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 0],
    ),
    ("amoebanet_b", "normal"): (
        "1x1 max_3x3 none sep_3x3 1x1 sep_3x3 1x1 none avg_3x3 1x1",
        [1, 1, 1, 0, 1, 0, 2, 2, 1, 5],
        [0, 1, 1, 0, 0, 1, 0],
    ),
    ("amoebanet_b", "reduction"): (
        "max_2x2 max_3x3 none 3x3 sep_5x5 max_3x3 none sep_3x3 avg_3x3 1x1",
        [0, 0, 2, 1, 2, 2, 3, 1, 4, 3],
        [1, 1, 1, 1, 1, 0, 0],
    ),
    ("amoebanet_c", "normal"): (
        "avg_3x3 sep_3x3 none sep_3x3 avg_3x3 sep_3x3 none sep_3x3 avg_3x3 sep_3x3",
        [0, 0, 0, 0, 2, 1, 0, 1, 3, 0],
        [1, 0, 0, 1, 0, 0, 0],
    ),
    ("amoebanet_c", "reduction"): (
        "max_3x3 max_3x3 sep_7x7 sep_3x3 sep_7x7 max_3x3 sep_5x5 sep_5x5 max_3x3 sep_3x3",
        [0, 0, 2, 0, 0, 1, 4, 4, 1, 1],
        [0, 1, 0, 0, 0, 0, 0],
    ),
}


@pytest.mark.parametrize(
    ("name", "width", "resolution", "millions", "billions"),
    [
        ("amoebanet_a", 1, 331, 86.7, 23.1),  # Real et al. 2018, Table 2: N=6, F=190
        ("amoebanet_a", 448 / 190, 299, 469, 104),  # the same: N=6, F=448; the size is that which gives 104B
        ("amoebanet_b", 1, 480, 557, None),  # Huang et al. 2018
        ("amoebanet_c", 1, 331, 155, 41),  # Tan & Le 2019, Table 2
    ],
)
def test_counts_are_the_published_ones(name, width, resolution, millions, billions):
    with torch.device("meta"):
        counts = count(AmoebaNet(name, width), resolution)
    assert counts.parameters / 1e6 == pytest.approx(millions, rel=0.005)  # asked for: 2 %
    assert billions is None or counts.madds / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(("name", "kind"), PUBLISHED)
def test_cells_are_the_published_ones(name, kind):
    operations, states, is_used = PUBLISHED[name, kind]
    cell = getattr(DESIGNS[name], kind)
    assert [op for pair in cell.sums for op in pair] == list(zip(operations.split(), states, strict=True))
    assert cell.output == tuple(state for state, used in enumerate(is_used) if not used)


def test_a_cell_adds_pairs_of_states_and_gives_those_of_its_output():
    torch.manual_seed(0)
    sums = (("none", 0), ("none", 1)), (("none", 2), ("none", 0)), (("none", 3), ("none", 3))
    module = _CellModule(Cell(sums, (1, 3, 4)), (6, 4), 4, halves=False, is_smaller=False).eval()
    last, before = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5)
    first = functional.conv2d(last.relu(), module.last[1].weight) / (1 + 1e-3) ** 0.5
    third = (first + before) + first
    torch.testing.assert_close(module(last, before), torch.cat([before, third, 2 * third], 1))


@pytest.mark.parametrize("size", [4, 5])
def test_a_halving_takes_even_places_and_odd_ones(size):
    halved = _Halved(2, 4).eval()
    for convolution in (halved.even, halved.odd):
        convolution.weight.data = torch.eye(2)[..., None, None]
    maps = torch.randn(1, 2, size, size)
    shifted = functional.pad(maps, (0, 1, 0, 1))[..., 1::2, 1::2]
    expected = torch.cat([maps[..., ::2, ::2], shifted], 1) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(halved(maps), expected)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        *((name, (1, 2)) for name in ("avg_3x3", "max_3x3", "sep_3x3", "sep_5x5", "sep_7x7", "1x7_7x1", "3x3")),
        ("max_2x2", (2,)),
        ("1x1", (1,)),
    ],
)
def test_operations_have_the_width_and_size_asked_for(name, strides):
    for stride in strides:
        for size in (7, 8):
            out = _operation(name, 6, 8, stride).eval()(torch.randn(1, 6, size, size))
            assert out.shape[1:] == (8, -(-size // stride), -(-size // stride))


def test_averages_do_not_count_padding_and_strangers_are_no_operation():
    assert torch.equal(_operation("avg_3x3", 2, 2, 1)(torch.ones(1, 2, 4, 4)), torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match="no such operation: 5x5"):
        _operation("5x5", 8, 8, 1)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_operation_is_used_once_and_every_parameter_learns(name):
    torch.manual_seed(0)
    model = build_backbone({"family": name, **NARROW}, 3).train()
    cells = [module for module in model.modules() if isinstance(module, _CellModule)]
    assert (
        len(cells) == 4 + 3
    )  # two halving cells in the stem and one before stages 2 and 3; a normal one in each stage
    calls = dict.fromkeys((op for cell in cells for op in cell.operations), 0)

    def seen(module, *_):
        calls[module] += 1

    for operation in calls:
        operation.register_forward_hook(seen)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert len(calls) == 10 * len(cells)
    assert set(calls.values()) == {1}
    still = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert still == []


@pytest.mark.parametrize("name", DESIGNS)
def test_stages_hand_on_the_last_two_cells_and_shrink_as_published(name):
    model = build_backbone({"family": name, **NARROW, "resolution": 331}, 3).eval()
    images = torch.randn(1, 3, 331, 331)
    with torch.no_grad():
        current = before = model.features[0](images)
        for cell in [cell for stage in model.features[1:] for cell in stage.cells]:
            current, before = cell(current, before), current
        torch.testing.assert_close(model.features(images), current.relu())
        sizes, maps = [], images
        for stage in model.features:
            maps = stage(maps)
            sizes.append(maps.shape[-1])
    assert sizes == [165, 42, 21, 11]
    assert model.embed(images).shape == (1, model.num_features) == (1, model.classifier[1].in_features)


def test_a_file_of_the_whole_network_loads_and_gives_its_logits(tmp_path):
    arch = resolve_backbone({"family": "amoebanet_c", **NARROW})
    whole = whole_network(arch).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    model = build_backbone(arch).eval()
    assert not load_weights(model, str(tmp_path / "whole.pth")).new
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), whole(images))
    assert load_weights(build_backbone(arch, 5), str(tmp_path / "whole.pth")).new == (
        "classifier.1.weight",
        "classifier.1.bias",
    )


def test_frozen_stages_stay_and_the_head_can_be_swapped():
    classifier = EfficientNetClassifier({"family": "amoebanet_b", **NARROW}, 3)
    classifier.freeze("stage1")
    classifier.train()
    assert classifier.net.frozen == {"stem", "stage1"}
    before = {n: t.clone() for n, t in classifier.net.state_dict().items()}
    classifier(torch.randn(2, 3, 64, 64)).sum().backward()
    moved = {n.split(".")[1] for n, t in classifier.net.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"2", "3"}  # running statistics of stage2 and stage3 only
    learning = {n.split(".")[1] for n, p in classifier.net.named_parameters() if p.grad is not None}
    assert learning == {"2", "3", "1"}  # classifier.1 is the head
    assert not any(p.requires_grad for p in classifier.net.features[1].parameters())
    classifier.net.replace_head(nn.Linear(classifier.net.num_features, 7))
    assert classifier(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("method", ["cam", "gradcam", "layercam"])
def test_activation_maps_take_its_stages(method):
    model = build_backbone({"family": "amoebanet_a", **NARROW}, 3)
    made = activation_maps(model, torch.randn(2, 3, 128, 128), method=method)
    assert made.maps.shape[0] == 2
    assert made.maps.isfinite().all()


def test_it_is_profiled_and_listed_beside_what_was_printed():
    row = profile(["amoebanet_a"], Protocol(timed=False))[0]
    assert (row["resolution"], row["paper_params_m"]) == (331, "87")
    assert row["paper_flops_b"] == "23 (document: 24)"
    listed = json.loads(CliRunner().invoke(list_verb.command, ["compared", "--json"]).output)
    built = {row["arch"]: (row["title"], row["built_by"], row["paper_params_m"]) for row in listed}
    assert built["amoebanet_b"] == ("GPipe", "own", "557")
    assert built["amoebanet_c"] == ("AmoebaNet-C", "own", "155")
    assert built["polynet"][1].startswith("not built: ")
    assert {arch for arch, *_ in TABLE_4} < FAMILIES.keys()
    assert all(FAMILIES[name].title == paper_model(name).title for name in DESIGNS)


def test_it_trains_saves_loads_and_evaluates(tiny_recipe):
    given = ["model.arch={family: amoebanet_a, width: 0.1, depth: 0.1, resolution: 32}", "model.bn_momentum=null"]
    phases = "train.phases=[{train: head, epochs: 1}, {train: stage3}]"
    outcome = fit(load_recipe(str(tiny_recipe), [*given, phases]).recipe)
    assert outcome.result["arch"] == "amoebanet_a-w0.1-d0.1-r32"
    assert evaluate(outcome.folder)["scores"]["top1"] == outcome.result["test"]["top1"]
    assert tuple(load_model(outcome.folder).stages) == STAGES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.arch=amoebanet_d"], "did you mean 'amoebanet_"),
        (["model.arch=amoebanet"], "did you mean 'amoebanet_"),
        (["model.arch={family: amoebanet_a, width: 20}"], "width and depth 0.1 to 10, resolution 32 to 2048"),
        (["model.arch={family: amoebanet_a, filters: 190}"], "remove filters"),
        (["model.arch=amoebanet_a", "model.drop_path=0.3"], "only EfficientNets have it"),
        (["model.arch=amoebanet_a", "train.phases=[{train: stage4}]"], "stem, stage1, stage2, stage3, head"),
        (["model.arch=amoebanet_a", "model.weights=torchvision/imagenet1k_v1"], "set model.weights=none"),
    ],
)
def test_what_it_cannot_do_is_explained(tiny_recipe, changes, message):
    with pytest.raises(UserError, match=message):
        load_recipe(str(tiny_recipe), changes)
