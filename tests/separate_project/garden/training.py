"""Two outputs from one backbone: a class, and how open the flower is. The Trainer, the loop and the loss are ours."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from workbench import EfficientNetClassifier, load_model


class OpenFlowers(lightning.LightningModule):
    """A classifier with a second head.

    Args:
        backbone: A finished model; its head is replaced.
        num_classes: Of ours.
    """

    def __init__(self, backbone: EfficientNetClassifier, num_classes: int):
        super().__init__()
        features = backbone.net.num_features
        backbone.replace_head(nn.Identity())
        backbone.freeze(up_to="stage2")
        self.backbone = backbone
        self.species = nn.Linear(features, num_classes)
        self.openness = nn.Linear(features, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.backbone(images)
        return self.species(features), self.openness(features).squeeze(1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels, openness = batch
        species, opened = self(images)
        return nn.functional.cross_entropy(species, labels) + nn.functional.mse_loss(opened, openness)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        wanted = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(wanted, lr=0.01)


def train(model: str | Path, where: Path) -> dict[str, float]:
    """Train on random pictures, and return how far frozen and trained weights moved."""
    lightning.seed_everything(0, verbose=False)
    classifier = EfficientNetClassifier.load(model)
    side = classifier.preprocessing.crop
    images, labels, openness = torch.randn(16, 3, side, side), torch.arange(16) % 3, torch.rand(16)
    module = OpenFlowers(classifier, num_classes=3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=where,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(images, labels, openness), batch_size=8))
    moved = {
        name: float((tensor.float() - before[name].float()).abs().max()) for name, tensor in module.state_dict().items()
    }
    return {
        "frozen": max(value for name, value in moved.items() if ".features.0." in name),
        "trained": max(value for name, value in moved.items() if ".features.8." in name),
        "head": moved["species.weight"],
    }


def classes_of(model: str | Path) -> tuple[str, ...]:
    """Return a model's class names, without lightning."""
    return load_model(model).classes
