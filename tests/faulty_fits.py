"""Fits that are to go wrong: a recipe of three epochs in half batches, and what ended it."""

import pytest

from workbench import fit, load_recipe
from workbench.specs.errors import UserError

HALVES = ["train.total_epochs=3", "train.num_validations=1", "train.pick=last", "train.micro_batch_size=4"]


def tiny(path, *overrides):
    return load_recipe(str(path), overrides).recipe


def runs_of(tmp_path):
    return sorted((tmp_path / "runs" / "tiny").iterdir())


def refused(recipe, capfd, resume=None):
    """Fit, and return the one problem that ends it and what was said."""
    with pytest.raises(UserError) as error:
        fit(recipe, resume=resume)
    return error.value.problems[0], capfd.readouterr().err
