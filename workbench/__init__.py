"""A workbench that turns a published EfficientNet into a classifier of your own.

Names resolve on first use, so that `import workbench` loads neither torch nor lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.data.datamodules import AircraftDataModule as AircraftDataModule
    from workbench.data.datamodules import BirdsnapDataModule as BirdsnapDataModule
    from workbench.data.datamodules import CIFAR10DataModule as CIFAR10DataModule
    from workbench.data.datamodules import CIFAR100DataModule as CIFAR100DataModule
    from workbench.data.datamodules import CSVDataModule as CSVDataModule
    from workbench.data.datamodules import Flowers102DataModule as Flowers102DataModule
    from workbench.data.datamodules import Food101DataModule as Food101DataModule
    from workbench.data.datamodules import ImageFolderDataModule as ImageFolderDataModule
    from workbench.data.datamodules import ImageNetDataModule as ImageNetDataModule
    from workbench.data.datamodules import PetsDataModule as PetsDataModule
    from workbench.data.datamodules import StanfordCarsDataModule as StanfordCarsDataModule
    from workbench.data.image_datamodule import ImageDataModule as ImageDataModule
    from workbench.models.portable import load_model as load_model
    from workbench.recipe_files import load as load_recipe  # noqa: F401
    from workbench.training.classifier import EfficientNetClassifier as EfficientNetClassifier
    from workbench.training.evaluate import evaluate as evaluate
    from workbench.training.run import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "EfficientNetClassifier": "workbench.training.classifier",
    "ImageDataModule": "workbench.data.image_datamodule",
    "fit": "workbench.training.run",
    "evaluate": "workbench.training.evaluate",
    "load_model": "workbench.models.portable",
    "load_recipe": "workbench.recipe_files",
}
_HOMES |= dict.fromkeys(
    (
        "CIFAR10DataModule",
        "CIFAR100DataModule",
        "BirdsnapDataModule",
        "StanfordCarsDataModule",
        "Flowers102DataModule",
        "AircraftDataModule",
        "PetsDataModule",
        "Food101DataModule",
        "ImageNetDataModule",
        "ImageFolderDataModule",
        "CSVDataModule",
    ),
    "workbench.data.datamodules",
)
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    attribute = "load" if name == "load_recipe" else name
    return getattr(importlib.import_module(_HOMES[name]), attribute)
