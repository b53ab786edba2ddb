"""A finished run's page made again, with pictures if its images and model are still here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench import card_files, recipe_files
from workbench.atomic import disk_errors
from workbench.models.portable import DESCRIPTION
from workbench.shipped import read_yaml
from workbench.specs.errors import UserError
from workbench.training import building, results, run_folder, run_page
from workbench.training.classifier import EfficientNetClassifier


def page_again(run: str | Path, overrides: Sequence[str] = (), pictures: bool = True) -> tuple[Path, str]:
    """Make report.html again.

    Args:
        run: A finished run folder.
        overrides: Where the images are now, as `data.root=DIR`; nothing is downloaded.
        pictures: Whether to draw mistakes.

    Returns:
        The page, and why it has no pictures, or an empty text.

    Raises:
        UserError: Not a finished run, a damaged file in it, or a key that is not of `data`.
    """
    folder = run_folder.existing(run)
    odd = [text for text in overrides if not text.removeprefix("--").startswith("data.")]
    if odd:
        given = ", ".join(odd)
        raise UserError.of("page", given, "keys that say where the images are, as data.root=DIR", "leave it out")
    data = classifier = None
    missing = ""
    if pictures and (folder / DESCRIPTION).is_file() and (folder / run_folder.RESULT).is_file():
        stored = (str(folder / run_folder.RECIPE), read_yaml(folder / run_folder.RECIPE))
        recipe = recipe_files.load_layers([stored], [*overrides, "data.download=false"], "unnamed").recipe
        try:
            classifier = EfficientNetClassifier.load(folder)
            data = building.build_data(recipe, card_files.card_for(recipe), classifier.preprocessing)
            results.check_splits(folder, data)
        except UserError as error:
            if overrides:
                raise
            data, missing = None, f"without pictures:\n{error}"
    with disk_errors(folder):
        return run_page.remake(folder, data, classifier), missing
