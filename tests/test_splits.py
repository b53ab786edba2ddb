"""Hold-outs by hash, and the comparison of a set with its card."""

import numpy as np
import pytest

from workbench.data.splits import ImageTable, check_table, complete_splits, hold_out
from workbench.specs.card import DatasetCard, SplitSizes
from workbench.specs.errors import UserError


def table(per_class=20, splits=None, classes=("a", "b", "c")):
    labels = np.repeat(np.arange(len(classes)), per_class)
    ids = [f"{classes[label]}/{i}" for i, label in enumerate(labels)]
    return ImageTable(ids, ids, labels, splits or ["train"] * len(ids), tuple(classes))


def test_hold_out_is_stratified_and_takes_the_asked_share():
    made = table()
    chosen = hold_out(made.ids, made.labels, 0.25, "selection")
    assert [int(chosen[made.labels == c].sum()) for c in range(3)] == [5, 5, 5]


def test_hold_out_does_not_depend_on_order():
    made = table()
    order = np.random.default_rng(0).permutation(60)
    chosen = hold_out(made.ids, made.labels, 0.25, "selection")
    shuffled = hold_out([made.ids[i] for i in order], made.labels[order], 0.25, "selection")
    assert np.array_equal(shuffled, chosen[order])


def test_hold_out_is_these_very_images():
    # Stored: a change would let images cross between selection and train of published runs.
    made = table(per_class=10, classes=("a", "b"))
    assert [made.ids[i] for i in np.flatnonzero(hold_out(made.ids, made.labels, 0.2, "selection"))] == [
        "a/4",
        "a/5",
        "b/12",
        "b/18",
    ]


def test_hold_out_never_empties_a_class():
    labels = np.array([0, 0, 1, 2, 2])
    chosen = hold_out(list("vwxyz"), labels, 0.5, "selection")
    for c in range(3):
        assert (~chosen)[labels == c].any()
    assert not chosen[2]


def test_missing_splits_are_held_out_and_stamped():
    made = complete_splits(table(), 0.1)
    counts = {s: made.splits.count(s) for s in ("train", "selection", "test")}
    assert counts == {"train": 42, "selection": 6, "test": 12}
    assert made.stamps == ("test held out of train by hash: 12 images",)
    again = complete_splits(made, 0.1)
    assert again.splits == made.splits
    assert again.stamps == made.stamps


CARD = DatasetCard(name="abc", num_classes=3, sizes=SplitSizes(train=60))


def test_a_whole_set_passes_without_stamps():
    assert check_table(table(), CARD, allow_partial=False).stamps == ()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (table(per_class=19), "57 images in train"),
        (table(classes=("a", "b")), "2 classes"),
        (table(classes=("a",)), "one class"),
        (table(splits=["test"] * 60), "no training images"),
        (table(splits=["train"] * 40 + ["test"] * 20), "1 classes without training images: c"),
    ],
)
def test_a_set_that_is_not_as_its_card_says_is_refused(found, says):
    with pytest.raises(UserError, match=says):
        check_table(found, CARD, allow_partial=False)


def test_a_part_runs_when_allowed_and_is_stamped():
    assert check_table(table(per_class=19), CARD, allow_partial=True).stamps == ("partial: 57 of 60 train images",)


def test_an_image_that_is_there_twice_is_named():
    made = table()
    twice = ImageTable([*made.ids[:-1], made.ids[0]], made.images, made.labels, made.splits, made.classes)
    with pytest.raises(UserError, match="a/0 twice"):
        check_table(twice, CARD, allow_partial=False)


def test_leaving_out_bad_images_may_not_leave_a_class_without_any():
    from workbench.data.splits import check_training, drop_bad

    made = table(per_class=2)
    kept, bad = drop_bad(made, ["", "", "", "", "cut", "cut"], "drop", "set")
    assert bad == [4, 5]
    with pytest.raises(UserError, match="1 classes without training images: c"):
        check_training(kept, "set", allow_partial=False)
