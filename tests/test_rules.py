"""The rules for sets that nobody has tuned: tables of what they give, who wins, and a fit by rule."""

import re

import pytest

from workbench import fit, recipe_files
from workbench.recipe_files import load, to_dict, to_yaml
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.specs.rules import RULES, apply_rule, filled_keys
from workbench.training import building
from workbench.training.plan import plan
from workbench.training.schedules import rate_factor


def values(rule, *facts):
    return {setting.key: setting.value for setting in RULES[rule](*facts)}


ANY_KEYS = (
    "data.batch_size train.total_steps schedule.warmup_steps data.resolution augment.mixup_alpha "
    "train.ema_half_life_fraction model.dropout model.bn_momentum_by_epoch"
).split()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ((3000, 10, 500), (32, 8000, 400, None, 0.0, 0.05, None, True)),
        ((19_999, 10, 500), (32, 8000, 400, None, 0.0, 0.05, None, True)),
        ((20_000, 10, 500), (32, 62_500, 3125, None, 0.1, 0.05, None, True)),
        ((100_000, 10, 32), (32, 160_000, 8000, 128, 0.1, 0.05, None, True)),
        ((500_000, 1000, 95), (32, 320_000, 16_000, 128, 0.1, 0.05, None, True)),
        ((2040, 103, 96), (32, 6375, 318, None, 0.0, 0.05, 0.5, True)),
        ((2040, 102, None), (32, 6375, 318, None, 0.0, 0.05, None, True)),
        ((36, 3, 36), (8, 450, 22, 128, 0.0, 0.05, 0.5, True)),
        ((4, 2, 36), (2, 200, 10, 128, 0.0, 0.05, 0.5, True)),
        ((3000, 10, 500, 256), (256, 1000, 50, None, 0.0, 0.05, None, True)),
        ((100, 10, 500, 200), (200, 50, 2, None, 0.0, None, 0.5, True)),
        ((3000, 10, 500, 32, 400), (32, 400, 20, None, 0.0, 0.05, None, True)),
    ],
)
def test_any_by_size(facts, expected):
    assert values("any", *facts) == dict(zip(ANY_KEYS, expected, strict=True))


@pytest.mark.parametrize(
    ("facts", "steps", "warmup", "drops", "mixup", "sizes"),
    [
        ((19_999, 10, 32), 500, 100, [200, 300, 400], 0.0, (128, 160)),
        ((20_000, 10, 95), 10_000, 500, [3000, 6000, 9000], 0.1, (128, 160)),
        ((499_999, 10, 96), 10_000, 500, [3000, 6000, 9000], 0.1, (480, 512)),
        ((500_000, 10, None), 20_000, 500, [6000, 12_000, 18_000], 0.1, (480, 512)),
    ],
)
def test_hyperrule_is_bits(facts, steps, warmup, drops, mixup, sizes):
    made = values("bit_hyperrule", *facts)
    assert (made["data.batch_size"], made["train.total_steps"], made["schedule.warmup_steps"]) == (512, steps, warmup)
    assert (made["augment.mixup_alpha"], made["data.resolution"], made["data.eval_crop_share"]) == (mixup, sizes[0], 1)
    assert made["augment.min_crop_area"] == pytest.approx((sizes[0] / sizes[1]) ** 2, rel=1e-3)
    options = {"warmup_steps": warmup, "decay_rate": 0.1, "milestones": made["schedule.milestones"]}
    factors = [rate_factor(step, steps, "steps", **options) for step in range(steps)]
    # BiT's get_lr: a rise to step `warmup`, then a tenth for every milestone that lies before the step.
    for step in (0, warmup - 1, warmup, *(d + i for d in drops for i in (-1, 0, 1)), steps - 1):
        rising = (step + 1) / warmup if step < warmup else 1.0
        assert factors[step] == pytest.approx(rising * 0.1 ** sum(drop < step for drop in drops)), step


def test_micro_batches_divide_any_batch():
    for batch, micro in ((512, 32), (100, 25), (33, 11), (31, 31), (2, 2)):
        assert values("bit_hyperrule", 5000, 10, 500, batch)["train.micro_batch_size"] == micro


def test_a_batch_that_small_parts_do_not_divide_stays_whole():
    assert values("bit_hyperrule", 3000, 10, 500, 37)["train.micro_batch_size"] == 37  # not 1: BatchNorm needs some
    assert values("bit_hyperrule", 3000, 10, 500, 40)["train.micro_batch_size"] == 20


def test_every_value_has_a_reason_and_the_keys_never_change():
    keys = set(recipe_files.recipe_keys())
    for name, rule in RULES.items():
        for facts in ((3, 2, 10), (36, 3, 36), (3000, 10, 500), (30_000, 10, None), (10**6, 1000, 64)):
            settings = rule(*facts)
            assert [s.key for s in settings] == filled_keys(name)
            assert all(re.search(r"\w{3}", s.reason) for s in settings), name
            assert {s.key for s in settings} <= keys
            batch = next(s.value for s in settings if s.key == "data.batch_size")
            assert 2 <= batch <= max(2, facts[0])


@pytest.fixture
def layers(tmp_path):
    """A parent with settings of its own, a child that asks for the rule, a grandchild with wishes."""
    parent = (
        "data: {card: flowers, batch_size: 10}\ntrain: {total_epochs: 7, ema_decay: 0.9}\naugment: {mixup_alpha: 0.7}"
    )
    (tmp_path / "parent.yaml").write_text(parent)
    (tmp_path / "child.yaml").write_text("extends: parent\ntrain: {rule: any}\nmodel: {dropout: 0.1}\n")
    (tmp_path / "grandchild.yaml").write_text("extends: child\ndata: {resolution: 96}\n")
    return tmp_path


def test_layers_before_the_rule_give_way_and_those_from_its_own_on_win(layers):
    recipe = load(str(layers / "grandchild.yaml"), ["train.total_epochs=4"]).recipe
    assert recipe.train.rule_keeps == ["data.resolution", "model.dropout", "train.total_steps"]
    filled, settings = apply_rule(recipe, 1020, 102, 500)
    assert recipe.train.ema_decay == 0.9
    assert (filled.data.batch_size, filled.data.resolution, filled.model.dropout) == (32, 96, 0.1)
    assert (filled.train.total_epochs, filled.train.total_steps, filled.augment.mixup_alpha) == (4.0, None, 0.0)
    assert (filled.train.ema_half_life_fraction, filled.train.ema_decay) == (0.05, None)
    assert (filled.train.rule, filled.train.rule_keeps) == ("none", None)
    assert {s.key for s in settings} == set(filled_keys("any")) - set(recipe.train.rule_keeps)
    assert recipe.data.batch_size == 10  # the recipe itself is not changed


def test_a_rule_on_the_command_line_leaves_only_the_command_lines_values(layers):
    recipe = load(str(layers / "child.yaml"), ["train.rule=bit_hyperrule", "data.batch_size=64"]).recipe
    assert recipe.train.rule_keeps == ["data.batch_size"]
    assert apply_rule(recipe, 1020, 102, 500)[0].train.total_steps == 500


def test_a_saved_recipe_with_an_open_rule_means_the_same(layers):
    recipe = load(str(layers / "grandchild.yaml"), ["train.total_epochs=4"]).recipe
    (layers / "saved.yaml").write_text(to_yaml(recipe))
    again = load(str(layers / "saved.yaml")).recipe
    assert to_dict(again) == {**to_dict(recipe)}
    later = load(str(layers / "saved.yaml"), ["augment.mixup_alpha=0.3"]).recipe
    assert later.train.rule_keeps == ["augment.mixup_alpha", *recipe.train.rule_keeps]


def test_no_rule_changes_nothing():
    recipe = Recipe()
    assert apply_rule(recipe, 100, 2, 64) == (recipe, [])


def test_show_gives_the_cards_values_with_reasons_or_says_when(layers):
    shown = {key: (value, source) for key, value, source in recipe_files.explain(load(str(layers / "child.yaml")))}
    assert shown["train.rule"][0] == "any"
    assert shown["train.total_steps"][0] == round(102_000 / 32)
    assert shown["train.total_steps"][1].startswith("by rule any: 1,020 images: 100 epochs")
    assert shown["model.dropout"] == (0.1, str(layers / "child.yaml"))
    shown = {key: (value, source) for key, value, source in recipe_files.explain(load("any"))}
    assert shown["train.total_steps"] == (None, "by rule any, when the images are known")
    assert shown["optim.lr"][0] == 0.001


@pytest.mark.parametrize(
    ("rule", "overrides", "warmup"),
    [
        ("any", ["train.total_steps=100"], 5),
        ("any", ["train.total_epochs=4"], 4 * 31 // 20),
        ("any", ["train.total_epochs=4", "data.batch_size=102"], 4 * 10 // 20),
        ("bit_hyperrule", ["train.total_steps=100"], 20),
    ],
)
def test_a_stated_length_keeps_the_rules_proportions(layers, rule, overrides, warmup):
    recipe = load(str(layers / "child.yaml"), [f"train.rule={rule}", *overrides]).recipe
    filled, _ = apply_rule(recipe, 1020, 102, 500)
    assert filled.schedule.warmup_steps == warmup


def test_two_lengths_or_none_are_a_mistake_under_a_rule_too(layers):
    for overrides in (["train.total_steps=9", "train.total_epochs=1"], ["train.total_steps=null"]):
        with pytest.raises(UserError, match="exactly one of"):
            load("any", [f"data.path={layers}", *overrides])


def test_what_a_rule_fills_in_is_checked_against_the_rest(layers):
    with pytest.raises(UserError, match=r"schedule\.warmup_epochs"):  # the rule's 3,188 steps do not hold 4,000
        load(str(layers / "child.yaml"), ["schedule.warmup_steps=4000"])


OF_TESTS = ["data.eval_resize=32", "model.arch=tiny", "model.weights=none", "data.num_workers=0", "track.wandb=off"]


@pytest.fixture
def small(folder_set, tmp_path):
    return [
        *(f"data.path={folder_set}", f"data.root={folder_set.parent}", f"track.runs_dir={tmp_path / 'runs'}"),
        *("data.resolution=32", "data.holdout_fraction=0.25", "train.device=cpu", *OF_TESTS),
    ]


def test_a_plan_by_rule_says_every_value(small):
    made = plan(load("any", [*small, "train.total_steps=20"]))
    told = [value for what, value in made.facts if what == "by rule any"]
    assert made.lengths.total_steps == 20
    assert made.lengths.epoch_steps == 36 // 8
    assert any(text.startswith("data.batch_size = 8: ") for text in told)
    assert not any(text.startswith(("train.total_steps", "data.resolution")) for text in told)


def test_a_plan_looks_at_the_headers_of_pictures_that_are_not_prepared_yet(small, tmp_path):
    own = [text for text in small if not text.startswith(("data.resolution", "data.eval_resize"))]
    made = plan(load("any", [*own, f"data.prepared_root={tmp_path / 'none'}"]))
    assert ("by rule any", "data.resolution = 128: pictures of 36 px: BiT's input for sides below 96") in made.facts


def test_a_fit_by_rule_prints_its_reasons_and_its_recipe_repeats_it(small, tmp_path):
    outcome = fit(load("any", [*small, "train.total_steps=8"]).recipe)
    text = (outcome.folder / "log.txt").read_text()
    assert "by rule any: data.batch_size = 8: 32, where the recipe was measured; for fewer" in text
    assert "by rule any: model.dropout = 0.5: 12 images per class" in text
    saved = load(str(outcome.folder / "recipe.yaml")).recipe
    assert (saved.train.rule, saved.data.batch_size, saved.train.total_steps) == ("none", 8, 8)
    assert saved.schedule.warmup_steps == 0
    again = fit(saved)
    assert again.result["selection"] == outcome.result["selection"]
    assert to_dict(load(str(again.folder / "recipe.yaml")).recipe) == to_dict(saved)


def test_the_size_of_the_pictures_is_seen(small):
    loaded = load("any", small)
    data = building.build_data(loaded.recipe, loaded.card)
    assert building.native_size(data) == 36
    assert building.native_size(building.build_data(load("quickstart").recipe, load("quickstart").card)) == 64
