"""The embedded set: the same pixels everywhere, and classes that are what they say."""

import hashlib

import numpy as np
import pytest

from workbench.card_files import load_card
from workbench.data import blossoms


def test_pixels_are_a_function_of_species_seed_and_index():
    kind = blossoms.species("downstream")[3]
    first = blossoms.render(kind, 1, 7)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, blossoms.render(kind, 1, 7))
    for other in (blossoms.render(kind, 1, 8), blossoms.render(kind, 2, 7)):
        assert np.abs(first.astype(int) - other).mean() > 5


def test_pixels_are_these_very_ones():
    # Means of 8 x 8 pixels, so that the last bit of a float may differ between machines.
    picture = blossoms.render(blossoms.species("upstream")[0], 0, 0).astype(float)
    coarse = picture.reshape(8, 8, 8, 8, 3).mean((1, 3, 4))
    assert coarse[3:5, 2:6].ravel() == pytest.approx([87, 113, 143, 172, 99, 144, 178, 187], abs=1)


def test_upstream_and_downstream_share_no_species():
    up, down = blossoms.species("upstream"), blossoms.species("downstream")
    assert (len(up), len(down)) == (48, 16)
    traits = [(kind.colours, kind.petals, kind.shape, kind.rings, kind.marking, kind.centre) for kind in (*up, *down)]
    assert len(set(traits)) == 64
    assert len({kind.name for kind in (*up, *down)}) == 64


def test_cards_fit_the_species():
    for name, task in (("blossoms", "downstream"), ("blossoms_upstream", "upstream")):
        card = load_card(name)
        assert card.num_classes == len(blossoms.species(task))
        for size in (card.sizes.train, card.sizes.selection, card.sizes.test):
            assert size % card.num_classes == 0


def test_unknown_task_and_size_are_refused():
    with pytest.raises(ValueError, match="upstream"):
        blossoms.species("sideways")
    with pytest.raises(ValueError, match="16"):
        blossoms.render(blossoms.species("upstream")[0], 0, 0, size=7)


def test_the_digest_of_one_class_is_stable_in_this_process():
    kind = blossoms.species("downstream")[0]
    digests = {hashlib.sha256(blossoms.render(kind, 0, i).tobytes()).hexdigest() for i in range(6)}
    assert len(digests) == 6
