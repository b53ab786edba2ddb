"""The shape of a dataset card (`data/<name>.yaml`): what a set is, how big, how it is split and measured."""

from __future__ import annotations

from dataclasses import dataclass, field

LAYOUTS = ("blossoms", "cifar10", "flowers102", "stanford_cars", "image_folder")
"""How a set lies on disk; each has one reader in `workbench/data/layouts.py`."""
TEST_SHARE = 0.2
"""Share of train held out for test where a set has no test split; a guess."""


@dataclass
class SplitSizes:
    """Images in each official split; None where the set does not say."""

    train: int | None = None
    selection: int | None = None
    test: int | None = None


@dataclass
class DatasetCard:
    """One dataset.

    Args:
        name: Short name, the card's file name.
        title: Name for people.
        layout: One of `LAYOUTS`.
        folder: Folder under `data.root`; empty if none is needed.
        num_classes: Classes, or None where the files decide.
        metric: The metric that the literature reports.
        sizes: Images per official split. `selection` is None where the creators made no validation split.
        native_pixels: Typical shorter side of the pictures, pixels.
        source: Where the figures here come from.
        downloadable: Whether torchvision can still fetch the original files.
        what_to_put_where: For a person who must fetch the files by hand.
        licence: Terms of the images, as far as stated.
        citation: The paper to cite.
        homepage: The set's page.
    """

    name: str = ""
    title: str = ""
    layout: str = "image_folder"
    folder: str = ""
    num_classes: int | None = None
    metric: str = "top1"
    sizes: SplitSizes = field(default_factory=SplitSizes)
    native_pixels: int | None = None
    source: str = ""
    downloadable: bool = False
    what_to_put_where: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""

    def training_images(self, train_on: str, holdout_fraction: float) -> int | None:
        """Return the expected size of the training split (hold-outs are rounded per class), or None if unknown.

        Args:
            train_on: `train` or `train+selection`.
            holdout_fraction: Share of train that is held out for selection where the creators made no split.
        """
        if self.sizes.train is None:
            return None
        train = self.sizes.train
        if self.sizes.test is None:
            train -= round(train * TEST_SHARE)
        if self.sizes.selection is not None:
            return train + (self.sizes.selection if train_on == "train+selection" else 0)
        return train if train_on == "train+selection" else train - round(train * holdout_fraction)
