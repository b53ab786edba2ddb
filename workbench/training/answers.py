"""From pictures to class probabilities with a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench.data.images import load_image
from workbench.data.transforms import eval_transform, normalise
from workbench.specs.weights import Preprocessing

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier


def model_input(picture: str | Path | np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """Turn a file or an (H, W, 3) uint8 array into the model's input, (3, crop, crop) float32.

    Raises:
        UserError: The file is missing or does not decode.
    """
    source = picture if isinstance(picture, np.ndarray) else Path(picture)
    image = eval_transform(preprocessing)(load_image(source))
    return normalise(image[None], preprocessing)[0]


@torch.inference_mode()
def classify(
    model: EfficientNetClassifier, pictures: Sequence[str | Path | np.ndarray], batch_size: int
) -> list[dict[str, float]]:
    """Return, per picture, class name -> probability in [0, 1], most probable first.

    Args:
        model: Used in evaluation mode and left in the mode that it was in.
        pictures: Files or (H, W, 3) uint8 arrays.
        batch_size: Pictures per forward pass.

    Raises:
        UserError: A file is missing or does not decode.
    """
    was_training = model.training
    model.eval()
    answers = []
    try:
        for start in range(0, len(pictures), batch_size):
            inputs = [model_input(picture, model.preprocessing) for picture in pictures[start : start + batch_size]]
            logits = model(torch.stack(inputs).to(model.device)).float()
            probabilities = logits.sigmoid() if model.multi_label else logits.softmax(1)
            for row in probabilities.cpu():
                order = row.argsort(descending=True).tolist()
                answers.append({model.classes[i]: float(row[i]) for i in order})
    finally:
        model.train(was_training)
    return answers
