"""Class activation maps: exact where they say so, where the truth is known they find it, and grids of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from blossom_masks import flower_mask
from click.testing import CliRunner
from conftest import paint
from PIL import Image
from torch import nn

from workbench import EfficientNetClassifier
from workbench.analysis.cam_grid import FIGURE_7, amount, headings
from workbench.cli.cam_verb import command
from workbench.data import blossoms
from workbench.data.transforms import normalise
from workbench.models.activation_maps import activation_maps, has_exact_maps
from workbench.models.efficientnet import EfficientNet
from workbench.models.heads import COSINE_SCALE, CosineHead
from workbench.specs.architectures import count_madds, resolve_arch
from workbench.specs.errors import UserError
from workbench.training.cam_pictures import Look, Tile, draw_grid, look


def network(head: str = "linear", **options) -> EfficientNet:
    """A network whose BatchNorm statistics fit noise, so that its maps vary."""
    torch.manual_seed(1)
    model = EfficientNet("tiny", 6, head, drop_path=0.0, bn_momentum=1.0, **options)
    model(torch.randn(8, 3, 64, 64))
    if head == "linear":
        nn.init.normal_(model.classifier[1].bias)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(3, 3, 224, 224)


@pytest.mark.parametrize("head", ["linear", "cosine"])
@pytest.mark.parametrize("classes", [None, [4, 0, 2]])
def test_the_mean_of_an_exact_map_is_the_logit(head, classes, images):
    model = network(head)
    given = None if classes is None else torch.tensor(classes)
    made = activation_maps(model, images, given)
    with torch.no_grad():
        logits = model(images)
    expected = logits.argmax(1) if given is None else given
    assert made.method == "cam"
    assert made.maps.shape == (3, 7, 7)
    assert torch.equal(made.classes, expected)
    torch.testing.assert_close(made.logits, logits)
    bias = model.classifier[1].bias.detach()[expected] if head == "linear" else 0.0
    own = logits.gather(1, expected[:, None])[:, 0]
    assert float((made.maps.mean((1, 2)) + bias - own).abs().max()) <= 1e-4
    assert float(made.maps.std()) > 1e-3


def test_a_place_that_alone_makes_the_logit_has_all_of_the_map():
    class Corner(EfficientNet):
        """Features that are zero but in the upper left ninth."""

    model = Corner("tiny", 2)
    features = torch.zeros(1, 320, 9, 9)
    features[:, 7, :3, :3] = 2.0
    model.features = nn.Sequential(*[nn.Identity()] * 8, _Constant(features))
    model.classifier = nn.Linear(320, 2)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.weight[1, 7] = 1.0
    for method in ("cam", "gradcam"):
        made = activation_maps(model, torch.zeros(1, 3, 90, 90), torch.tensor([1]), method)
        heat = made.upsampled(90)[0]
        assert heat.shape == (90, 90)
        assert float(heat[:30, :30].sum() / heat.sum()) > 0.8
        opposed = activation_maps(model, torch.zeros(1, 3, 90, 90), torch.tensor([0]), method)
        assert not opposed.upsampled(90).any()


class _Constant(nn.Module):
    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.value + 0 * images.sum()


def test_gradcam_of_a_linear_head_is_the_exact_map_but_for_scale(images):
    model, classes = network(), torch.tensor([1, 1, 5])
    exact = activation_maps(model, images, classes, "cam").upsampled(224)
    by_gradient = activation_maps(model, images, classes, "gradcam").upsampled(224)
    torch.testing.assert_close(by_gradient * 49, exact, rtol=1e-3, atol=1e-4)


def test_the_method_follows_head_and_size(images):
    small = images[..., :64, :64]
    chosen = {
        (head, size): (made.method, made.stages)
        for head in ("linear", "mlp")
        for size, given in ((224, images), (64, small))
        for made in [activation_maps(network(head), given)]
    }
    fine = ("layercam", ("stage3", "top"))
    assert chosen == {
        ("linear", 224): ("cam", ("top",)),
        ("linear", 64): fine,
        ("mlp", 224): ("gradcam", ("top",)),
        ("mlp", 64): fine,
    }
    assert activation_maps(network(), small).maps.shape == (3, 8, 8)
    odd = activation_maps(network(), images[..., :180, :180])  # 6 cells; 12 at stride 16 are no more than twice as many
    assert (odd.stages, odd.maps.shape) == (("stage3", "top"), (3, 23, 23))
    assert activation_maps(network(), small[..., :2, :2]).method == "cam"  # one cell everywhere: nothing to choose


def test_a_fine_map_is_the_product_of_where_the_class_is_and_how_far_it_goes(images):
    model, classes = network(), torch.tensor([1, 1, 5])
    where = activation_maps(model, images, classes, "cam").upsampled(28)
    fine = activation_maps(model, images, classes, "layercam").maps
    assert not fine[where == 0].any()
    assert (fine <= where / where.amax((1, 2), keepdim=True) + 1e-5).all()
    assert ((fine > 0).float().mean((1, 2)) < (where > 0).float().mean((1, 2))).all()


def test_heads_without_exact_maps_are_told_apart(images):
    model = network("mlp")
    assert [has_exact_maps(network(head)) for head in ("linear", "cosine", "mlp", "none")] == [True, True, False, False]
    with pytest.raises(ValueError, match="no exact map for this head"):
        activation_maps(model, images, method="cam")
    with pytest.raises(ValueError, match="there are auto, cam, gradcam, layercam"):
        activation_maps(model, images, method="scorecam")
    model.replace_head(CosineHead(320, 2))
    assert has_exact_maps(model)
    assert float(activation_maps(model, images).logits.abs().max()) <= COSINE_SCALE


def test_the_model_is_left_as_it_was(images):
    model = network()
    model.freeze(["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7", "top", "head"])
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode(False), torch.no_grad():
        made = activation_maps(model, images[..., :64, :64])
    assert float(made.maps.amax()) > 0  # frozen stages give maps too
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def classifier() -> EfficientNetClassifier:
    torch.manual_seed(3)
    names = ["rose", "tulip", "daisy", "lily", "iris", "poppy"]
    made = EfficientNetClassifier("tiny", 6, classes=names)
    made.net = network()
    return made


def test_looking_takes_files_arrays_and_bytes(classifier, tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    found = look(classifier, [path, str(path), array, path.read_bytes()])
    for seen in found:
        assert seen.crop.shape == (64, 64, 3)
        assert seen.heat.shape == (64, 64)
        assert seen.heat.dtype == np.float32
        assert seen.heat.min() >= 0
        assert np.allclose(seen.heat, found[0].heat, rtol=1e-3, atol=1e-6)
        assert seen.overlay().shape == (64, 64, 3)
    (answer,) = classifier.predict([array])
    best = next(iter(answer))
    assert found[0].name == best
    assert found[0].probability == pytest.approx(answer[best], abs=1e-5)
    (other,) = look(classifier, [array], "iris")
    assert other.name == "iris"
    assert other.probability == pytest.approx(answer["iris"], abs=1e-5)
    assert not np.array_equal(other.heat, found[0].heat)


def test_hot_places_are_bright_and_a_map_of_nothing_is_drawn_too():
    crop, heat = np.full((32, 32, 3), 100, np.uint8), np.zeros((32, 32), np.float32)
    heat[:16] = 3.0
    drawn = Look(crop, heat, "rose", 0.5, "cam").overlay().astype(int)
    assert drawn[:16].sum(-1).min() > drawn[16:].sum(-1).max() + 100
    assert Look(crop, heat * 0, "rose", 0.5, "cam").overlay().std() < 60


def test_a_grid_has_a_place_for_every_tile_and_cuts_long_words():
    red, blue = (np.full((10, 10, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 0, 250)))
    row = [Tile(red, ("a" * 100,)), Tile(blue, ("b", "c"))]
    grid = np.asarray(draw_grid([row, row], ["one", "two"]))
    taller = np.asarray(draw_grid([row, row], ["one", "two\nand more"]))
    plain = np.asarray(draw_grid([row, row]))
    assert taller.shape[0] > grid.shape[0] > plain.shape[0]
    assert (plain == (250, 0, 0)).all(-1).sum() == (plain == (0, 0, 250)).all(-1).sum() == 2 * 160 * 160
    half = plain.shape[1] // 2
    assert not (plain[:, half:] == (250, 0, 0)).all(-1).any()


def test_masks_are_where_the_flower_is():
    for number, kind in enumerate(blossoms.species("downstream")):
        mask = flower_mask(kind, 2, number)
        assert 0.05 < mask.mean() < 0.6
        assert mask[24:40, 24:40].mean() > mask[:8].mean()


@pytest.mark.parametrize(
    ("size", "least", "gap"), [(64, 0.5, 0.15), pytest.param(128, 0.7, 0.2, marks=pytest.mark.slow)]
)
def test_on_the_embedded_set_most_of_a_map_lies_on_the_flower(size, least, gap):
    """The truth is known there. The last map has 2 x 2 or 4 x 4 places: even a perfect one would be mostly beside it.

    The background is out of focus, so that maps of a network without training favour the flower too: the trained one
    must do better than its like. The heads here are solved for, not fitted: docs/models.md has fitted networks.
    """
    species, each = blossoms.species("downstream"), 6
    masks = torch.tensor(np.stack([flower_mask(kind, 2, i, size) for kind in species for i in range(each)])).float()
    shares = {}
    for name, model in (("trained", _discriminant("embedded/blossoms", size)), ("random", _discriminant(None, size))):
        images = _blossoms(model, 2, each, size)
        for method in ("auto", "cam"):
            made = activation_maps(model.net, images, method=method)
            heat = made.upsampled(size)
            shares[name, made.method] = float(((heat * masks).sum((1, 2)) / heat.sum((1, 2)).clamp(min=1e-12)).mean())
    assert shares["trained", "layercam"] > least
    assert shares["trained", "layercam"] > shares["random", "layercam"] + gap
    assert shares["trained", "layercam"] > shares["trained", "cam"] + 0.2


def _blossoms(model: EfficientNetClassifier, seed: int, each: int, size: int) -> torch.Tensor:
    species = blossoms.species("downstream")
    pictures = np.stack([blossoms.render(kind, seed, i, size) for kind in species for i in range(each)])
    return normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2), model.preprocessing)


def _discriminant(weights: str | None, resolution: int) -> EfficientNetClassifier:
    """A tiny network, its linear head solved for the blossoms' training pictures (linear discriminants)."""
    torch.manual_seed(5)
    size = {"resize": resolution, "crop": resolution, "interpolation": "bilinear"}
    model = EfficientNetClassifier("tiny", 16, weights, preprocessing=size, network={"drop_path": 0.0})
    images = _blossoms(model, 0, 10, resolution)
    if weights is None:  # BatchNorm statistics that fit the pictures, or nothing would reach the head
        for module in model.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model.net(images)
    model.eval()
    with torch.no_grad():
        features = model.embed(images).reshape(16, 10, -1)
        means = features.mean(1)
        within = torch.einsum("cnd,cne->de", features - means[:, None], features - means[:, None]) / 160
        within += 0.1 * within.diagonal().mean() * torch.eye(len(within))
        head = model.net.classifier[1]
        head.weight.copy_(torch.linalg.solve(within, means.T).T)
        head.bias.copy_(-(head.weight * means).sum(1) / 2)
    return model


# ---- the command ---------------------------------------------------------------------------------------------------


def cam(*arguments) -> str:
    """Run `workbench cam` in this process; return what it prints."""
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def saved(classifier, tmp_path) -> tuple[Path, Path]:
    """A model's folder and a folder of two pictures."""
    classifier.save(tmp_path / "model")
    paint(tmp_path / "pictures" / "a.png", 0, 1)
    paint(tmp_path / "pictures" / "deep" / "b.jpg", 1, 2)
    return tmp_path / "model", tmp_path / "pictures"


def test_the_command_draws_a_grid_of_models_and_pictures(saved, tmp_path):
    model, pictures = saved
    assert cam(model, model / "model.json", pictures, "--out", tmp_path / "grid.png").strip() == str(
        tmp_path / "grid.png"
    )
    grid = Image.open(tmp_path / "grid.png")
    cam(model, pictures / "a.png", "--out", tmp_path / "one.png", "--class", "iris", "--overlay-only")
    one = Image.open(tmp_path / "one.png")
    assert (grid.width - 6) / 3 == one.width - 6  # the picture and two models, against one model
    assert grid.height > 2 * 160 > one.height


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["MODEL", "--out", "g.png"], "no picture among"),
        (["PICTURES", "--out", "g.png"], "no model among"),
        (["MODEL", "nowhere.jpg", "--out", "g.png"], "nowhere.jpg: no such file or folder"),
        (["MODEL", "PICTURES", "EMPTY", "--out", "g.png"], "no model.json and no picture in it"),
        (["MODEL", "BROKEN", "--out", "g.png"], "do not decode"),
        (["MODEL", "PICTURES", "--out", "g.png", "--class", "rosa"], "did you mean 'rose'"),
        (["MODEL", "PICTURES", "--out", "g.jpg"], "a .png file in an existing folder"),
        (["MODEL", "PICTURES", "--out", "nowhere/g.png"], "a .png file in an existing folder"),
        (["MODEL", "OTHER", "PICTURES", "--out", "g.png"], "not the same ones (pine)"),
        (["MLP", "PICTURES", "--out", "g.png", "--method", "cam"], "gradcam, layercam or auto"),
        (["MODEL", *["PICTURES"] * 26, "--out", "g.png"], "52 pictures"),
    ],
)
def test_mistakes_are_explained(saved, tmp_path, arguments, says):
    model, pictures = saved
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for name, head, last in (("other", "linear", "pine"), ("mlp", "mlp", "poppy")):
        names = ["rose", "tulip", "daisy", "lily", "iris", last]
        EfficientNetClassifier("tiny", 6, head=head, classes=names).save(tmp_path / name)
    places = {"MODEL": model, "PICTURES": pictures, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken.jpg"}
    places |= {"OTHER": tmp_path / "other", "MLP": tmp_path / "mlp"}
    with pytest.raises(UserError) as error:
        cam(*(places.get(argument, argument) for argument in arguments))
    assert says in str(error.value)
    assert not (tmp_path / "g.png").exists()


def test_the_row_of_figure_7_has_about_equal_madds():
    # Table 7, in billions; counted for this project where the paper's 1.8 and 1.9 are rounded (protocol.md, section 2)
    counted = {"baseline": 0.386, "deeper": 1.575, "wider": 1.450, "higher resolution": 1.538, "compound": 1.80}
    scalings = {title: resolve_arch(arch) for title, arch in FIGURE_7.items()}
    assert {t: count_madds(s, 1000) / 1e9 for t, s in scalings.items()} == pytest.approx(counted, rel=0.005)
    row = list(scalings.values())
    assert headings(row, [s.resolution for s in row]) == [
        "baseline\n224 px",
        "deeper\n224 px, d=4",
        "wider\n224 px, w=2",
        "higher resolution\n448 px, r=2",
        "compound\n291 px, d=1.4, w=1.2, r=1.3",
    ]


@pytest.mark.parametrize(("given", "written"), [(385_812_345, "386M"), (1_827_000_000, "1.83B"), (4200, "4.2K")])
def test_counts_are_written_short(given, written):
    assert amount(given) == written
