"""A LightningDataModule per set, each an `ImageDataModule` that knows its card."""

from __future__ import annotations

from workbench.data.image_datamodule import ImageDataModule


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10."""

    card_name = "cifar10"


class CIFAR100DataModule(ImageDataModule):
    """CIFAR-100, fine labels."""

    card_name = "cifar100"


class BirdsnapDataModule(ImageDataModule):
    """Birdsnap; what is left of it, so `allow_partial=True` is needed."""

    card_name = "birdsnap"


class StanfordCarsDataModule(ImageDataModule):
    """Stanford Cars."""

    card_name = "cars"


class Flowers102DataModule(ImageDataModule):
    """Oxford Flowers-102."""

    card_name = "flowers"


class AircraftDataModule(ImageDataModule):
    """FGVC Aircraft, 100 variants."""

    card_name = "aircraft"


class PetsDataModule(ImageDataModule):
    """Oxford-IIIT Pets, 37 breeds."""

    card_name = "pets"


class Food101DataModule(ImageDataModule):
    """Food-101."""

    card_name = "food101"


class ImageNetDataModule(ImageDataModule):
    """ImageNet-1k; its validation images are the test split, as papers report on them."""

    card_name = "imagenet"


class ImageFolderDataModule(ImageDataModule):
    """Any folder of one folder per class; give `path`."""

    card_name = "folder"


class CSVDataModule(ImageDataModule):
    """Any .csv list of `path,label[,split]`; give `path`."""

    card_name = "csv"
