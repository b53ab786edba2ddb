"""A workbench that turns a published EfficientNet into a classifier of your own.

Names resolve on first use, so that `import workbench` loads neither torch nor lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.data.datamodules import CIFAR10DataModule as CIFAR10DataModule
    from workbench.data.datamodules import Flowers102DataModule as Flowers102DataModule
    from workbench.data.datamodules import ImageFolderDataModule as ImageFolderDataModule
    from workbench.data.datamodules import StanfordCarsDataModule as StanfordCarsDataModule
    from workbench.models.portable import load_model as load_model
    from workbench.recipe_files import load as load_recipe  # noqa: F401
    from workbench.training.classifier import EfficientNetClassifier as EfficientNetClassifier
    from workbench.training.evaluate import evaluate as evaluate
    from workbench.training.run import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "EfficientNetClassifier": "workbench.training.classifier",
    "fit": "workbench.training.run",
    "evaluate": "workbench.training.evaluate",
    "load_model": "workbench.models.portable",
    "load_recipe": "workbench.recipe_files",
    "CIFAR10DataModule": "workbench.data.datamodules",
    "Flowers102DataModule": "workbench.data.datamodules",
    "StanfordCarsDataModule": "workbench.data.datamodules",
    "ImageFolderDataModule": "workbench.data.datamodules",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    attribute = "load" if name == "load_recipe" else name
    return getattr(importlib.import_module(_HOMES[name]), attribute)
