"""Recipes: merging, overriding, checking and explaining."""

import dataclasses
import re

import pytest

from workbench import card_files, recipe_files, shipped
from workbench.recipe_files import load, to_dict, to_yaml
from workbench.specs.errors import UserError
from workbench.specs.filling import fill
from workbench.specs.metric_names import SCORES
from workbench.specs.recipe import Recipe


def write(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture
def recipe(tmp_path):
    return write(tmp_path, "mine.yaml", "data: {card: flowers, batch_size: 30}\ntrain: {total_epochs: 2}\n")


def test_every_shipped_recipe_is_valid_and_says_what_it_is_for():
    names = recipe_files.list_recipes()
    assert len(names) >= 5
    for name in names:
        about = load(name).recipe.about
        assert about.name == name
        assert about.summary
        assert about.source
        if about.expect is not None:
            assert about.expect.measured
            assert about.expect.low <= about.expect.high


def test_a_resolved_recipe_is_a_recipe_and_reads_back_the_same(tmp_path):
    for name in recipe_files.list_recipes():
        recipe = load(name).recipe
        path = write(tmp_path, f"{name}.yaml", to_yaml(recipe))
        assert to_dict(load(path).recipe) == to_dict(recipe)


def test_later_layers_win_and_every_value_knows_its_source(tmp_path, recipe):
    child = write(tmp_path, "child.yaml", "extends: mine\noptim: {lr: 0.2}\ndata: {batch_size: 60}\n")
    loaded = load(child, ["optim.lr=0.3", "--optim.name=adamw"])
    rows = {key: (value, source) for key, value, source in recipe_files.explain(loaded)}
    assert rows["optim.lr"] == (0.3, "command line")
    assert rows["optim.name"] == ("adamw", "command line")
    assert rows["data.batch_size"] == (60, child)
    assert rows["train.total_epochs"] == (2.0, recipe)
    assert rows["optim.momentum"] == (0.9, "default")


@pytest.mark.parametrize(
    ("text", "section", "name", "value"),
    [
        ("optim.lr=1e-3", "optim", "lr", 0.001),
        ("--optim.lr=1e-3", "optim", "lr", 0.001),
        ("optim.clip_norm=None", "optim", "clip_norm", None),
        ("optim.clip_norm=none", "optim", "clip_norm", None),
        ("optim.clip_norm=null", "optim", "clip_norm", None),
        ("optim.clip_norm=5", "optim", "clip_norm", 5.0),
        ("augment.policy=none", "augment", "policy", "none"),
        ("augment.policy=None", "augment", "policy", "none"),
        ("track.wandb=off", "track", "wandb", "off"),
        ("train.open_test=False", "train", "open_test", False),
        ("track.notes=a=b", "track", "notes", "a=b"),
        ("track.tags=[a, b]", "track", "tags", ["a", "b"]),
        ("track.project=2026", "track", "project", "2026"),
        ("data.root=007", "data", "root", "007"),
        ("data.root=/photos/set #1: new", "data", "root", "/photos/set #1: new"),
        ("data.root='/a b'", "data", "root", "/a b"),
        ("model.arch={phi: 1.5}", "model", "arch", {"phi": 1.5}),
        ("model.weights=none", "model", "weights", None),
    ],
)
def test_override_forms(recipe, text, section, name, value):
    found = getattr(getattr(load(recipe, [text]).recipe, section), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim.lrr=0.1", "did you mean 'optim.lr'?"),
        ("optim.lr", "write optim.lr=VALUE"),
        ("model.arch=null", "{phi: ...}"),
        ("model.arch={phi: .inf}", "phi -20 to 20"),
        ("model.arch={resolution: 224.5}", "a whole one"),
        ("about.name=../up", "choose a name that can be a folder's"),
        ("data.card=blossoms data.path=/tmp", "remove data.path"),
        ("data.card=blossoms data.hub.id=a/b", "remove data.hub"),
        ("data.path=/tmp data.hub.id=a/b", "together with data.path"),
        ("data.card=hub", "add data.hub.id=OWNER/NAME"),
        ("data.hub.splits.test=[1]", "text (put it in quotes)"),
        ("data.hub.ide=a/b", "did you mean 'data.hub.id'?"),
        ("data.label_separator=;", "it is for .csv lists"),
        ("data.on_bad_image=skip", "fail | drop"),
        ("schedule.warmup_epochs=2", "a warm-up shorter than every phase"),
        ("train.total_epochs=3 train.total_steps=5", "exactly one of"),
        ("optm.lr=0.1", "did you mean 'optim'?"),
        ("optim.lr", "key=value"),
        ("train.total_epochs", "key=value"),
        ("optim.lr=fast", "a number"),
        ("optim.lr=-1", "float from 0 to 100"),
        ("optim.lr=.nan", "a number"),
        ("data.batch_size=1.5", "a whole number"),
        ("data.batch_size=true", "a whole number"),
        ("train.open_test=1", "true or false"),
        ("optim.name=adam", "sgd | adamw | rmsprop_tf"),
        ("track.tags=x", "a list"),
        ("optim=3", "a mapping of"),
        ("track.tags=[1]", "text (put it in quotes)"),
        ("model.weights=${oc.env:HOME}", "plain values"),
        ("model.arch=b9", "b0, b1"),
        ("model.arch={phi: 99}", "phi -20 to 20"),
        ("model.arch={width: 99}", "width and depth 0.1 to 10"),
        ("model.weights=torchvision/imagenet1k_v2", "exists for b1"),
        ("model.weights=timm/b0", "see `workbench list weights`"),
        ("model.num_classes=5", "102, as the card flowers says"),
        ("data.card=flower", "did you mean 'flowers'?"),
        ("data.card=../flowers", "or a .yaml file"),
        ("data.batch_size=2000", "1 to 1020"),
        ("train.micro_batch_size=7", "1, 2, 3, 5, 6, 10, 15, 30"),
        ("train.total_steps=0", "more than 0"),
        ("train.phases=[{train: tail}]", "all, stem"),
        ("train.phases=[{train: head}, {train: all}]", "epochs or steps for every phase but the last"),
        ("train.phases=[{train: head, epochs: 9}, {train: all}]", "add up to 68 steps"),
        ("train.phases=[{train: head, epochs: 1, steps: 3}]", "one of the two"),
        ("train.phases=[{train: head, epochs: 1}, 7]", "a mapping of train, epochs, steps, lr at [1], where 7 stands"),
        ("track.tags=[a, 2]", "text (put it in quotes) at [1], where 2 stands"),
        ("schedule.milestones=[0.5, 0.2]", "rising shares of the phase"),
        ("schedule.milestones=[0.5, 1.5]", "rising shares of the phase"),
        ("schedule.name=steps", "write them as in [0.4, 0.6, 0.8]"),
        ("data.eval_resize=256 data.eval_crop_share=0.9", "set data.eval_crop_share=null or data.eval_resize=null"),
        ("train.rule=some", "none | any | bit_hyperrule"),
        ("train.phases=[{trian: head}]", "did you mean 'train.phases[0].train'?"),
        ("optim.decay_exclude=[norms]", "norm, bias"),
        ("data.eval_resolution=256 data.eval_resize=224", "256 or more"),
        ("data.resolution=224 data.prepare_side=200", "224 or more"),
        ("data.prepare=off data.prepare_side=256", "null: nothing is kept"),
        ("optim.lr=0", "more than 0"),
        ("optim.weight_decay=0.1 optim.weight_decay_times_lr=0.1", "set optim.weight_decay_times_lr=null or"),
        ("model.bn_momentum=0.1 model.bn_momentum_by_epoch=true", "one of the two"),
    ],
)
def test_mistakes_are_refused_with_what_is_allowed(recipe, text, says):
    overrides = re.split(r" (?=\w+\.\w+[.\w]*=)", text)
    with pytest.raises(UserError) as error:
        load(recipe, overrides)
    assert says in str(error.value)
    for part in ("given:", "allowed:", "do this:"):
        assert part in str(error.value)


def test_parts_of_one_architecture_add_up_and_home_is_expanded(recipe, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    loaded = load(recipe, ["model.arch.width=1.2", "model.arch.depth=1.4", "data.root=~/sets"]).recipe
    assert loaded.model.arch == {"width": 1.2, "depth": 1.4}
    assert loaded.data.root == "/home/me/sets"


def test_an_empty_section_says_nothing_and_a_null_partner_replaces_nothing(tmp_path, recipe):
    child = write(tmp_path, "child.yaml", "extends: mine\nabout:\noptim:\n")
    loaded = load(child, ["train.total_steps=null"]).recipe
    assert loaded.train.total_epochs == 2


def test_a_child_may_have_its_parents_name_and_does_not_inherit_its_claims(tmp_path):
    child = write(tmp_path, "quickstart.yaml", "extends: quickstart\noptim: {lr: 0.5}\n")
    loaded = load(child).recipe
    assert (loaded.optim.lr, loaded.data.card, loaded.about.expect) == (0.5, "blossoms", None)
    assert loaded.about.summary == ""


def test_weight_decay_over_lr_and_weight_decay_replace_each_other(tmp_path, recipe):
    child = write(tmp_path, "child.yaml", "extends: mine\noptim: {lr: 0.01, weight_decay_times_lr: 1.0e-5}\n")
    for overrides, expected in (
        ([], 1e-3),
        (["optim.lr=0.1"], 1e-4),
        (["optim.weight_decay_times_lr=0"], 0),
        (["optim.weight_decay=0.2"], 0.2),
        (["optim.weight_decay=0"], 0),
        (["optim.weight_decay_times_lr=null"], 0),
    ):
        optim = load(child, overrides).recipe.optim
        over_lr = optim.weight_decay_times_lr
        assert (optim.weight_decay if over_lr is None else over_lr / optim.lr) == pytest.approx(expected), overrides
    rows = {key: source for key, _, source in recipe_files.explain(load(child, ["optim.weight_decay=0.2"]))}
    assert rows["optim.weight_decay_times_lr"] == "command line, by weight_decay"


def test_the_released_partner_knows_who_released_it(recipe):
    rows = {key: source for key, _, source in recipe_files.explain(load(recipe, ["train.total_steps=40"]))}
    assert rows["train.total_epochs"] == "command line, by total_steps"


def test_all_mistakes_are_reported_at_once(tmp_path):
    path = write(tmp_path, "bad.yaml", "data: {card: flowers, batchsize: 3}\noptim: {lr: fast, name: sdg}\nfoo: 1\n")
    with pytest.raises(UserError) as error:
        load(path, ["train.seed=x", "oops"])
    text = str(error.value)
    assert len(error.value.problems) >= 7  # the seven below, and the missing length
    for part in ("data.batchsize", "optim.lr", "optim.name", "foo", "train.seed", "oops", "train.total_epochs"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "YAML of plain values"),
        ("data: {card: flowers}\ndata: {card: cifar10}\n", "duplicate"),
        ("model: !!python/object/apply:os.system [echo]\n", "YAML of plain values"),
        ("data: {root: '${oc.env:HOME}'}\n", "bad.yaml:1"),
        ("- 1\n", "a mapping of sections"),
        ("extends: nowhere\n", "nowhere: no such file"),
        ("extends: [a, b]\n", "the name of one recipe"),
    ],
)
def test_files_that_are_no_recipes_are_refused(tmp_path, text, says):
    path = write(tmp_path, "bad.yaml", text)
    with pytest.raises(UserError) as error:
        load(path)
    assert says in str(error.value)


def test_a_circle_of_parents_is_refused(tmp_path):
    write(tmp_path, "one.yaml", "extends: two\n")
    with pytest.raises(UserError, match="a circle of parents"):
        load(write(tmp_path, "two.yaml", "extends: one\n"))


def test_a_missing_recipe_gets_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load("quickstrat")


@pytest.mark.parametrize("pair", [("total_epochs", "total_steps"), ("ema_decay", "ema_half_life_fraction")])
def test_stating_one_of_two_exclusive_keys_replaces_the_other(recipe, pair):
    first, second = pair
    changed = load(recipe, [f"train.{first}=0.5" if first == "ema_decay" else f"train.{second}=40"]).recipe.train
    stated, released = (first, second) if first == "ema_decay" else (second, first)
    assert getattr(changed, stated) is not None
    assert getattr(changed, released) is None


def test_every_key_has_a_sentence_and_a_default_that_is_allowed():
    for section in dataclasses.fields(Recipe):
        for field in dataclasses.fields(section.default_factory):
            assert field.metadata["doc"].endswith("."), field.name
            filled, problems = section.default_factory(), []
            fill(filled, {field.name: getattr(filled, field.name)}, "defaults", problems, {})
            assert not problems, field.name
            assert filled == section.default_factory(), field.name


def test_cards_hold_the_papers_table_6():
    sizes = {"cifar10": (50000, None, 10000, 10), "flowers": (1020, 1020, 6149, 102), "cars": (8144, None, 8041, 196)}
    for name, (train, selection, test, classes) in sizes.items():
        card = card_files.load_card(name)
        assert (card.sizes.train, card.sizes.selection, card.sizes.test) == (train, selection, test)
        assert card.num_classes == classes
    assert card_files.load_card("flowers").training_images("train+selection", 0.1) == 2040
    assert card_files.load_card("cifar10").training_images("train", 0.1) == 45000
    assert card_files.load_card("cifar10").training_images("train+selection", 0.1) == 50000


def test_every_card_names_a_known_metric_and_its_source():
    for name in card_files.list_cards():
        card = card_files.load_card(name)
        assert card.metric in SCORES
        assert card.source
        assert card.title


def test_mistakes_in_a_card_are_reported_at_once(tmp_path):
    path = write(tmp_path, "own.yaml", "layout: pile\nmetric: accuracy\nclasses: 3\n")
    with pytest.raises(UserError) as error:
        card_files.load_card(path)
    assert len(error.value.problems) == 3


def test_recipes_and_cards_are_yaml_only():
    assert {path.suffix for path in shipped.RECIPES.rglob("*") if path.is_file()} == {".yaml"}
