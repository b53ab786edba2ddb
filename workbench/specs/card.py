"""The shape of a dataset card (`data/<name>.yaml`): what a set is, how big, where it is found, how it is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

LAYOUTS = (
    "blossoms",
    "cifar",
    "flowers102",
    "stanford_cars",
    "fgvc_aircraft",
    "oxford_pets",
    "food101",
    "birdsnap",
    "imagenet",
    "image_folder",
    "csv",
    "rows",
)
"""How a set lies on disk; each has one reader in `workbench/data/layouts/`. `rows`: no files of its own, only
a hub copy, or local parquet or Arrow files."""
SOURCE_KINDS = ("original", "torchvision", "hub")
TEST_SHARE = 0.2
"""Share of train held out for test where a set has no test split; a guess."""


def images_of_part(num_images: int, least: int, fraction: float) -> int:
    """Return how many of some training images a `data.train_fraction` keeps: at least one of every class.

    Args:
        num_images: Training images.
        least: Images that hold every class.
        fraction: In (0, 1].
    """
    return min(num_images, max(least, round(fraction * num_images)))


@dataclass
class SplitSizes:
    """Images in each official split; None where the set does not say."""

    train: int | None = None
    selection: int | None = None
    test: int | None = None


@dataclass
class SplitNames:
    """What a source calls each split; None where it has none."""

    train: str = "train"
    selection: str | None = None
    test: str | None = "test"


@dataclass
class Source:
    """One place where a set can be had.

    Args:
        kind: `original`: the creators' files in `folder` under data.root. `torchvision`: its downloader, with its
            checksums. `hub`: a copy on the Hugging Face hub.
        dataset: For torchvision: the class in `torchvision.datasets`.
        id: For the hub: `owner/name`.
        config: For the hub: the configuration, if it has several.
        revision: For the hub: the commit that is fetched; None: the newest, whose commit is then recorded.
        image: Column of the pictures.
        label: Column of the labels: class names, or numbers that the copy itself names.
        id_column: Column that names each picture; empty: split and row number.
        splits: What the copy calls each split.
        md5_list: A file of the copy that gives each original picture's md5 and path (Birdsnap's images.txt).
        test_list: A file of the copy that lists the paths of the official test pictures.
    """

    kind: str = "original"
    dataset: str = ""
    id: str = ""
    config: str | None = None
    revision: str | None = None
    image: str = "image"
    label: str = "label"
    id_column: str = ""
    splits: SplitNames = field(default_factory=SplitNames)
    md5_list: str = ""
    test_list: str = ""


@dataclass
class DatasetCard:
    """One dataset.

    Args:
        name: Short name, the card's file name.
        title: Name for people.
        layout: One of `LAYOUTS`: how the creators' files lie on disk.
        folder: Folder under `data.root`; empty if none is needed.
        num_classes: Classes, or None where the files decide.
        classes: Class names, in the order of their labels; empty where the files decide. Every source is matched to
            them by name.
        metric: The metric that the literature reports.
        sizes: Images per official split. `selection` is None where the creators made no validation split.
        test_share: Share of train held out for test where there is no test split.
        native_pixels: Typical shorter side of the pictures, pixels.
        label_separator: For csv: what stands between the labels of one picture, such as `;`; empty: one label each.
        sources: Where the set is looked for, in this order.
        gigabytes: Size of a download.
        source: Where the figures here come from.
        what_to_put_where: For a person who must fetch the files by hand.
        traps: What to know before trusting a figure on this set.
        licence: Terms of the images, as far as stated.
        citation: The paper to cite.
        homepage: The set's page.
    """

    name: str = ""
    title: str = ""
    layout: str = "image_folder"
    folder: str = ""
    num_classes: int | None = None
    classes: list[str] = field(default_factory=list)
    metric: str = "top1"
    sizes: SplitSizes = field(default_factory=SplitSizes)
    test_share: float = TEST_SHARE
    native_pixels: int | None = None
    label_separator: str = ""
    sources: list[Source] = field(default_factory=lambda: [Source()])
    gigabytes: float | None = None
    source: str = ""
    what_to_put_where: str = ""
    traps: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""

    @property
    def downloadable(self) -> bool:
        """Whether some source fetches the set."""
        return any(source.kind != "original" for source in self.sources)

    def training_images(self, train_on: str, holdout_fraction: float, train_fraction: float = 1.0) -> int | None:
        """Return the expected size of the training split (hold-outs are rounded per class), or None if unknown.

        Args:
            train_on: `train` or `train+selection`.
            holdout_fraction: Share of train that is held out for selection where the creators made no split.
            train_fraction: Share of what is left that is trained on.
        """
        if self.sizes.train is None or (train_fraction < 1 and self.num_classes is None):
            return None
        whole = self._whole_train(train_on, holdout_fraction)
        return images_of_part(whole, self.num_classes, train_fraction) if train_fraction < 1 else whole

    def _whole_train(self, train_on: str, holdout_fraction: float) -> int:
        train = self.sizes.train
        if self.sizes.test is None:
            train -= round(train * self.test_share)
        if self.sizes.selection is not None:
            return train + (self.sizes.selection if train_on == "train+selection" else 0)
        return train if train_on == "train+selection" else train - round(train * holdout_fraction)
