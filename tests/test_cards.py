"""Dataset cards: those that ship, and what is wrong with a card."""

import re
from collections import Counter

import pytest

from workbench import shipped
from workbench.card_files import list_cards, load_card
from workbench.data.class_names import match_classes
from workbench.specs.card import SplitNames
from workbench.specs.errors import UserError

PUBLISHED = ("aircraft", "birdsnap", "cars", "cifar10", "cifar100", "flowers", "food101", "imagenet", "pets")
COUNTS = {"aircraft": 100, "birdsnap": 500, "cars": 196, "cifar10": 10, "cifar100": 100, "flowers": 102}
COUNTS |= {"food101": 101, "imagenet": 1000, "pets": 37}


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_nine_sets_and_the_kinds_of_your_own_ship():
    assert {*PUBLISHED, "folder", "csv", "hub", "blossoms", "blossoms_large", "blossoms_upstream"} == set(list_cards())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_card_says_all_that_a_user_needs(name):
    card = load_card(name)
    for said in ("title", "folder", "source", "what_to_put_where", "traps", "licence", "citation", "homepage"):
        assert getattr(card, said).strip(), said
    assert card.num_classes == len(card.classes) == COUNTS[name]
    assert card.sizes.train > card.num_classes
    assert card.native_pixels >= 32
    assert 0.1 < card.gigabytes < 200
    assert card.folder in card.what_to_put_where
    assert card.sources[0].kind == "original"
    assert card.downloadable


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_two_classes_of_a_card_match_each_other(name):
    classes = load_card(name).classes
    for start in range(0, len(classes), 50):  # parts, so that names count and places do not
        part = classes[start : start + 50][::-1]
        numbers = match_classes(part, classes, name).tolist()
        assert numbers == list(range(start, start + len(part)))[::-1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_and_hub_sources_are_complete_and_in_order(name):
    import torchvision.datasets

    card = load_card(name)
    kinds = [source.kind for source in card.sources]
    assert kinds == [kind for kind in ("original", "torchvision", "hub") if kind in kinds]
    assert max(Counter(kinds).values()) == 1
    for source in card.sources:
        if source.kind == "torchvision":
            assert hasattr(torchvision.datasets, source.dataset)
        if source.kind == "hub":
            assert source.id.count("/") == 1
            assert source.revision is None or re.fullmatch(r"[0-9a-f]{40}", source.revision)
            comment = "could not be looked up offline" if source.revision is None else "public projects pin"
            assert comment in (shipped.CARDS / f"{name}.yaml").read_text()


def test_hub_copies_and_what_they_call_their_columns_and_splits():
    hub = {name: load_card(name).sources[-1] for name in PUBLISHED}
    assert (hub["cifar10"].image, hub["cifar10"].label) == ("img", "label")
    assert (hub["cifar100"].image, hub["cifar100"].label) == ("img", "fine_label")
    assert hub["pets"].id_column == "image_id"
    assert hub["flowers"].splits == SplitNames("train", "validation", "test")
    assert hub["aircraft"].splits == SplitNames("train", "val", "test")
    assert hub["food101"].splits == hub["imagenet"].splits == SplitNames("train", None, "validation")
    assert hub["cars"].splits == SplitNames("train", None, "test")
    birds = hub["birdsnap"]
    assert (birds.splits, birds.md5_list, birds.test_list) == (
        SplitNames("train", None, None),
        "images.txt",
        "test_images.txt",
    )


def test_sizes_and_metrics_are_those_of_the_paper():
    train = {name: load_card(name).training_images("train+selection", 0.1) for name in PUBLISHED}
    assert train == {
        **{"cifar10": 50000, "cifar100": 50000, "birdsnap": 47386, "cars": 8144, "flowers": 2040},
        **{"aircraft": 6667, "pets": 3680, "food101": 75750, "imagenet": 1281167},
    }
    per_class = {name for name in PUBLISHED if load_card(name).metric == "mean_per_class"}
    assert per_class == {"flowers", "aircraft", "pets"}


def test_your_own_sets_need_no_folder_and_no_classes():
    assert load_card("hub").sources[0].kind == "hub"
    for name, layout in (("folder", "image_folder"), ("csv", "csv"), ("hub", "rows")):
        card = load_card(name)
        assert (card.layout, card.folder, card.classes, card.num_classes) == (layout, "", [], None)


def test_classes_alone_give_their_number(tmp_path):
    card = load_card(write(tmp_path, "classes: [a, b, c]"))
    assert (card.name, card.num_classes) == ("mine", 3)


def test_a_number_of_classes_alone_is_kept(tmp_path):
    assert load_card(write(tmp_path, "num_classes: 7")).num_classes == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layout: cifar10", r"layout\n.*cifar10\n[\s\S]*image_folder"),
        ("metric: mean_average_precision", r"metric\n.*mean_average_precision\n.*top1, top5, mean_per_class"),
        ("sources: [{kind: original}, {kind: hubb}]", r"sources\[1\].kind\n.*hubb\n[\s\S]*did you mean 'hub'"),
        ("sources: [{kind: torchvision}]", r"sources\[0\].dataset\n.*nothing\n.*torchvision.datasets\n.*Flowers102"),
        ("sources: [{kind: hub, repo: a/b}]", r"sources\[0\].repo"),
        ("classes: [a, b, a, b, c]", r"classes\n.*a, b twice\n.*each name once"),
        ("{classes: [a, b], num_classes: 3}", r"num_classes\n.*3 for 2 names in classes\n.*allowed:  2\n"),
        ("classes: [a, 1]", r"classes\n.*\n.*text \(put it in quotes\)"),
        ("downloadable: true", "downloadable"),
        ("sizes: {train: many}", "sizes.train"),
    ],
)
def test_a_mistake_in_a_card_is_named_with_its_file(tmp_path, text, says):
    with pytest.raises(UserError, match=says) as error:
        load_card(write(tmp_path, text))
    assert str(tmp_path / "mine.yaml") in str(error.value)


def test_all_mistakes_of_a_card_come_together(tmp_path):
    text = "layout: x\nmetric: y\nsources: [{kind: z}]\nclasses: [a, a]\nnum_classes: 1\nfolder: 3\nnative_pixels: big"
    with pytest.raises(UserError) as error:
        load_card(write(tmp_path, text))
    assert len(error.value.problems) == 7


def test_a_card_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"flower\n[\s\S]*did you mean 'flowers'"):
        load_card("flower")
    with pytest.raises(UserError, match="add data.card=NAME"):
        load_card("")


def test_a_foreign_name_is_refused_even_where_all_others_are_in_place():
    names = load_card("cifar10").classes
    with pytest.raises(UserError, match="1 class names that are not the card's: zebra"):
        match_classes([*names[:9], "zebra"], names, "copy")
    assert match_classes([*names[:9], "trucks"], names, "copy").tolist() == list(range(10))
    with pytest.raises(UserError, match="trucks"):
        match_classes([*names[1:9], names[0], "trucks"], names, "copy")
