"""Every number of the shipped protocols beside its source. Sources are named in docs/protocols.md.

The expected values are written out here, not taken from the code: a changed recipe or rule fails.
"""

import math
import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from workbench import recipe_files, shipped
from workbench.recipe_files import load
from workbench.specs.architectures import ARCHS
from workbench.specs.published import published_for
from workbench.specs.weights import find_weights
from workbench.training import plan, recipe_numbers
from workbench.training.averaging import WeightAverage
from workbench.training.building import preprocessing_for
from workbench.training.recipe_numbers import lengths_of, network_options, schedule_options
from workbench.training.rmsprop_tf import RMSpropTF
from workbench.training.schedules import rate_factor

# card: (train + selection images, steps per epoch at batch 256 with the incomplete batch dropped, momentum, metric)
SETS = {
    "cifar10": (50_000, 195, 0.0513, "top1"),
    "cifar100": (50_000, 195, 0.0513, "top1"),
    "birdsnap": (47_386, 185, 0.0541, "top1"),
    "food101": (75_750, 295, 0.0339, "top1"),
    "cars": (8144, 31, 0.1, "top1"),
    "aircraft": (6667, 26, 0.1, "mean_per_class"),
    "pets": (3680, 14, 0.1, "mean_per_class"),
    "flowers": (2040, 7, 0.1, "mean_per_class"),
}
EPOCHS = {"cifar10": 103, "birdsnap": 108, "food101": 68, "cars": 645, "aircraft": 769, "pets": 1429, "flowers": 2857}
SIZES = {"b7": (600, 686), "b0": (224, 256)}
SET_RECIPES = [f"{card}_{arch}" for card in SETS for arch in SIZES]
PROTOCOLS = ["automl_ft", "bit_hyperrule", "gpipe", "imagenet", "kornblith", "tan_le"]


def of_set(name, *overrides):
    return load(name, ["data.train_on=train+selection", *overrides])


@pytest.mark.parametrize("name", SET_RECIPES)
def test_sets_follow_kornblith(name):
    card, arch = name.split("_")
    loaded = of_set(name)
    recipe = loaded.recipe
    num_images, epoch_steps, momentum, metric = SETS[card]
    assert (recipe.data.card, recipe.model.arch, loaded.card.metric) == (card, arch, metric)
    assert loaded.card.training_images("train+selection", 0.1) == num_images
    lengths = lengths_of(recipe, num_images)
    assert (lengths.epoch_steps, lengths.total_steps, recipe.data.batch_size) == (epoch_steps, 20_000, 256)
    assert round(20_000 / epoch_steps) == EPOCHS.get(card, 103)
    # The statistics move once per micro-batch; over one step as far as `momentum` would.
    per_step = 256 // recipe.train.micro_batch_size
    moved = 1 - (1 - network_options(recipe, epoch_steps)["bn_momentum"]) ** per_step
    assert moved == pytest.approx(momentum, abs=5e-5)
    crop, resize = SIZES[arch]
    resolution, evaluated = preprocessing_for(recipe)
    assert (resolution, evaluated.crop, evaluated.resize) == (crop, crop, resize)
    assert (recipe.optim.name, recipe.optim.momentum, recipe.optim.layer_decay) == ("sgd", 0.9, 1.0)
    assert recipe_numbers.group_options(recipe)["weight_decay"] == pytest.approx(1e-5 / recipe.optim.lr)
    augment = recipe.augment
    assert (augment.flip, augment.policy, augment.cutout, augment.label_smoothing) == (0.5, "none", 0, 0)
    assert (augment.mixup_alpha, augment.cutmix_alpha) == (0, 0)
    assert (recipe.train.ema_decay, recipe.train.ema_half_life_fraction, recipe.train.pick) == (None, None, "last")
    options = schedule_options(recipe, epoch_steps)
    for step, factor in ((0, 1.0), (5000, (1 + math.sqrt(0.5)) / 2), (10_000, 0.5), (20_000, 0.0)):
        assert rate_factor(step, 20_000, **options) == pytest.approx(factor, abs=1e-9)


GRID_LR = (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1)
GRID_DECAY = (0.0, 1e-6, 3.16e-6, 1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3)


def test_the_grid_is_decay_over_lr():
    grid = shipped.RECIPES / "sweeps" / "kornblith_grid.yaml"
    searched = yaml.safe_load(grid.read_text(encoding="utf-8"))["parameters"]
    assert searched["optim.lr"]["values"] == pytest.approx(GRID_LR)
    assert searched["optim.weight_decay_times_lr"]["values"] == pytest.approx(GRID_DECAY)
    assert len(GRID_LR) * len(GRID_DECAY) == 56
    for lr, value in [*zip(GRID_LR, GRID_DECAY, strict=False), (1e-4, 1e-3), (1e-1, 1e-3)]:
        recipe = load("cars_b0", [f"optim.lr={lr}", f"optim.weight_decay_times_lr={value}"]).recipe
        assert recipe_numbers.group_options(recipe)["weight_decay"] == pytest.approx(value / lr)


# arch: (resolution, dropout, evaluation resize = resolution + 32)
IMAGENET = {
    "b0": (224, 0.2, 256),
    "b1": (240, 0.2, 272),
    "b2": (260, 0.3, 292),
    "b3": (300, 0.3, 332),
    "b4": (380, 0.4, 412),
    "b5": (456, 0.4, 488),
    "b6": (528, 0.5, 560),
    "b7": (600, 0.5, 632),
}


@pytest.mark.parametrize("arch", IMAGENET)
def test_imagenet_follows_section_5_2(arch):
    loaded = load(f"imagenet_{arch}")
    recipe = loaded.recipe
    resolution, dropout, resize = IMAGENET[arch]
    trained, evaluated = preprocessing_for(recipe)
    assert (trained, evaluated.crop, evaluated.resize) == (resolution, resolution, resize)
    assert evaluated.interpolation == "bicubic"
    options = network_options(recipe, 306)
    assert (options["dropout"], options["drop_path"], options["bn_eps"], options["padding"]) == (
        *(dropout, 0.2, 1e-3, "same"),
    )
    assert ARCHS[arch].dropout == dropout
    assert 4096 % recipe.train.micro_batch_size == 0
    moved = 1 - (1 - options["bn_momentum"]) ** (4096 // recipe.train.micro_batch_size)
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert (recipe.model.weights, recipe.data.batch_size, recipe.optim.name) == (None, 4096, "rmsprop_tf")
    assert recipe.optim.lr == pytest.approx(0.016 * 4096 / 256) == 0.256
    assert (recipe.optim.momentum, recipe.optim.weight_decay, recipe.optim.decay_exclude) == (0.9, 1e-5, ["norm"])
    assert (recipe.train.total_epochs, recipe.train.ema_decay, recipe.train.pick) == (350, 0.9999, "best")
    augment = recipe.augment
    assert (augment.min_crop_area, augment.max_crop_aspect, augment.flip) == (0.08, pytest.approx(4 / 3), 0.5)
    assert (augment.policy, augment.label_smoothing, augment.mixup_alpha) == ("autoaugment_v0", 0.1, 0)


def test_the_minival_is_20_of_1024_shards():
    loaded = load("imagenet_b0")
    assert loaded.recipe.data.holdout_fraction == 20 / 1024
    held = 1_281_167 - loaded.card.training_images("train", loaded.recipe.data.holdout_fraction)
    assert held == pytest.approx(25_022, abs=2)


# (step, rate): warm-up over 5 epochs, stairs of 2.4 epochs counted from step 0. An epoch has 312 steps of 4,096 when
# all 1,281,167 images are trained on: stairs of 748.8 steps.
STAIRS = [
    (0, 0.256 / 1560),
    (779, 0.128),
    (1559, 0.256),
    (1560, 0.256 * 0.97**2),
    (2246, 0.256 * 0.97**2),
    (2247, 0.256 * 0.97**3),
    (109_199, 0.256 * 0.97**145),
]


@pytest.mark.parametrize(("step", "rate"), STAIRS)
def test_imagenets_rate_falls_in_stairs_from_step_0(step, rate):
    recipe = load("imagenet_b0", ["data.train_on=train+selection"]).recipe
    lengths = lengths_of(recipe, 1_281_167)
    assert (lengths.epoch_steps, lengths.total_steps) == (312, 109_200)
    factor = rate_factor(step, lengths.total_steps, **schedule_options(recipe, lengths.epoch_steps))
    assert recipe.optim.lr * factor == pytest.approx(rate, rel=1e-9)


def test_rmsprop_is_tensorflows_when_the_rate_changes():
    """Float64, written out: eps inside the root, ones at the start, the rate of each step inside the momentum."""
    rates, parameter = [0.256, 0.256, 0.1, 0.01], nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    optimizer = RMSpropTF([parameter], lr=0.0, weight_decay=1e-5)
    value, square, buffer = 0.5, 1.0, 0.0
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        gradient = math.cos(step)
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        total = gradient + 1e-5 * value
        square = 0.9 * square + 0.1 * total**2
        buffer = 0.9 * buffer + rate * total / math.sqrt(square + 0.001)
        value -= buffer
        assert parameter.item() == pytest.approx(value, rel=1e-13)


class Net:
    global_step = 0

    def __init__(self):
        self.net = nn.BatchNorm1d(1)


def test_the_average_is_tensorflows_and_holds_batchnorm_statistics():
    trained, average = Net(), WeightAverage(0.9999)
    average.on_fit_start(trained, trained)
    mean, seen = 0.0, {}
    for t in range(1, 121):
        trained.net.running_mean.fill_(float(t))
        trained.global_step = t
        average.on_train_batch_end(trained, trained, None, None, 0)
        seen[t] = min(0.9999, (1 + t) / (10 + t))
        mean = seen[t] * mean + (1 - seen[t]) * t
    assert float(average.average["running_mean"]) == pytest.approx(mean, rel=1e-5)
    assert (seen[1], seen[80]) == (pytest.approx(2 / 11), pytest.approx(0.9))
    assert min(0.9999, (1 + 89_990) / (10 + 89_990)) == 0.9999  # from here on the stated decay holds


def test_the_authors_variant_is_a_quarter_of_the_rate():
    recipe, imagenet = load("protocols/tan_le", ["data.card=pets"]).recipe, load("imagenet_b0").recipe
    assert recipe.optim.lr / recipe.data.batch_size == pytest.approx(imagenet.optim.lr / 4096 / 4)
    assert recipe.optim.lr * 256 / recipe.data.batch_size == 0.004
    assert recipe.model.weights == "timm/tf_efficientnet.aa_in1k"
    same = ("name", "momentum", "weight_decay", "decay_exclude")
    assert [getattr(recipe.optim, key) for key in same] == [getattr(imagenet.optim, key) for key in same]
    assert (recipe.schedule, recipe.augment) == (imagenet.schedule, imagenet.augment)
    assert recipe.train.ema_decay == imagenet.train.ema_decay
    assert network_options(recipe, 14).keys() == {"dropout", "drop_path"}  # the rest is the weights' own
    # The weights' own evaluation, resolution / (resolution + 32), for every size.
    for arch, (resolution, _, resize) in IMAGENET.items():
        sized = load("protocols/tan_le", ["data.card=pets", f"model.arch={arch}"]).recipe
        trained, evaluated = preprocessing_for(sized)
        assert (trained, evaluated.crop) == (resolution, resolution)
        assert evaluated.resize == pytest.approx(resize, abs=1)


def test_gpipe_is_480_px_with_flip_and_cutout():
    recipe = load("protocols/gpipe", ["data.card=cars", "model.arch=b7"]).recipe
    assert (preprocessing_for(recipe)[0], preprocessing_for(recipe)[1].crop) == (480, 480)
    assert (recipe.augment.cutout, recipe.augment.flip, recipe.augment.policy) == (1.0, 0.5, "none")
    assert "UNVERIFIED" in recipe.about.differs
    assert "5" in recipe.about.differs


def test_automl_ft_is_the_shipped_configuration():
    recipe = load("protocols/automl_ft", ["data.card=cifar10"]).recipe
    assert recipe.optim.lr == pytest.approx(0.0005 * 512 / 256)
    assert (recipe.optim.name, recipe.optim.weight_decay, recipe.optim.decay_exclude) == (
        *("rmsprop_tf", 1e-5, ["norm", "bias"]),
    )
    assert (recipe.schedule.name, recipe.schedule.warmup_epochs) == ("constant", 1)
    assert (recipe.data.batch_size, recipe.train.total_steps, recipe.train.ema_decay) == (512, 10_000, 0.9996)
    assert (recipe.model.dropout, recipe.model.drop_path, recipe.model.bn_momentum) == (1e-6, 0.2, 0.1)
    assert (recipe.augment.label_smoothing, recipe.augment.min_crop_area, recipe.augment.cutout) == (0.1, 1, 1)
    assert 15 * 75_750 / 512 < 10_000 < 15 * 341_400 / 512


def test_bit_hyperrule_is_sgd_at_0_003():
    recipe = load("protocols/bit_hyperrule", ["data.card=cifar10"]).recipe
    assert (recipe.optim.name, recipe.optim.momentum, recipe.optim.lr) == ("sgd", 0.9, 0.003)
    assert (recipe.optim.weight_decay, recipe.schedule.name, recipe.schedule.decay_rate) == (0, "steps", 0.1)
    made = plan.plan(load("protocols/bit_hyperrule", ["data.card=cifar10"]))
    assert made.lengths.total_steps == 10_000
    assert dict(made.facts)["input"] == "train 128 px; evaluate resize 128, crop 128 px"


def test_every_set_and_size_has_its_recipe_and_its_published_value():
    names = set(recipe_files.list_recipes())
    assert {*SET_RECIPES, *(f"imagenet_{arch}" for arch in IMAGENET), "any", "flowers_b0_cpu"} <= names
    assert recipe_files.list_protocols() == [f"protocols/{name}" for name in PROTOCOLS]
    for name in SET_RECIPES:
        card, arch = name.split("_")
        for printed_arch, value in re.findall(r"\b(B\d) (\d\d\.\d)", load(name).recipe.about.summary):
            published = published_for(card, printed_arch.lower())
            assert published.accuracy == pytest.approx(float(value) / 100)
        find_weights(load(name).recipe.model.weights, arch)


@pytest.mark.parametrize("name", [*SET_RECIPES, *PROTOCOLS, *(f"imagenet_{arch}" for arch in IMAGENET), "any"])
def test_recipes_say_their_source_and_what_is_unverified(name):
    loaded = load(f"protocols/{name}" if name in PROTOCOLS else name, ["data.card=cars"] if name in PROTOCOLS else [])
    about = loaded.recipe.about
    assert about.source
    assert about.name == name
    assert about.expect is None  # nothing of these was measured
    assert name == "imagenet" or "UNVERIFIED" in about.differs
    assert re.search(r"arXiv|protocols/|tensorflow/tpu|google|Kornblith|BiT", about.source)


@pytest.fixture
def _uncounted(monkeypatch):
    """Multiply-adds take seconds for the large networks and are tested elsewhere."""
    monkeypatch.setattr(plan, "count", lambda net, resolution: SimpleNamespace(madds=0))


@pytest.mark.usefixtures("_uncounted")
@pytest.mark.parametrize("name", [*SET_RECIPES[::5], "imagenet_b0", *(f"protocols/{p}" for p in PROTOCOLS)])
def test_plans_work(name):
    overrides = ["data.card=cars"] if name.startswith("protocols/") and "imagenet" not in name else []
    made = plan.plan(load(name, overrides))
    assert made.lengths.total_steps >= 500
    assert sum(row["parameters"] for row in made.groups) > 4_000_000


def test_a_recipe_elsewhere_extends_a_protocol(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: protocols/kornblith\ndata: {card: cars}\nmodel: {arch: b4}\n")
    recipe = load(str(tmp_path / "mine.yaml")).recipe
    assert (recipe.train.total_steps, preprocessing_for(recipe)[1].resize) == (20_000, round(380 / 0.875))
