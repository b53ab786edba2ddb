"""One picture's answer, from encoded bytes: probabilities, and which places speak for a class. Nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workbench.data.images import open_header, read_pixels
from workbench.data.transforms import eval_transform, normalise
from workbench.models.activation_maps import activation_maps
from workbench.specs.errors import UserError
from workbench.training import answers, machine
from workbench.training.cam_pictures import Look

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier

NAME = "the picture"
"""What error texts call what was sent."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    Args:
        size: Width and height as sent, upright, pixels.
        classes: Class names, most probable first.
        probabilities: Of those, in [0, 1].
        look: The map of one class over what the model saw.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    look: Look


class OnePicture:
    """A loaded model that answers single pictures with a map, in one pass without gradients where its head allows.

    Args:
        model: Is given the form that answers fastest; it can no longer be trained or saved.
        max_pixels: Of a picture; a larger one is refused before it is decoded.
    """

    def __init__(self, model: EfficientNetClassifier, max_pixels: int):
        self.model, self.max_pixels = model, max_pixels
        device = machine.accelerator("auto")
        answers.set_to_answer(model, device)
        model.to("cuda" if device == "gpu" else "cpu")
        self._transform = eval_transform(model.preprocessing)
        crop = model.preprocessing.crop
        blank = torch.zeros(1, 3, crop, crop, device=model.device)
        # chosen once: `auto` would run with gradients to see how coarse the maps are; this is the first, slow pass too
        self.method = activation_maps(model.net, blank).method

    def answer(self, data: bytes, top: int, name: str | None = None) -> Answer:
        """Answer one picture.

        Args:
            data: The encoded picture.
            top: Classes to answer with, at most those there are.
            name: The class to map; the most probable if None.

        Raises:
            UserError: It does not decode or is too large, or there is no such class.
        """
        if name is not None and name not in self.model.classes:
            raise UserError.of("class", f"{name!r:.80}", "a class of this model", "take one of those it answers with")
        with open_header(data, NAME) as picture:
            if picture.width * picture.height > self.max_pixels:
                given = f"{picture.width} x {picture.height} pixels"
                raise UserError.of(NAME, given, f"at most {self.max_pixels:,} pixels", "send it smaller")
            image = read_pixels(picture, data, NAME)
        crop = self._transform(image)
        inputs = normalise(crop[None].to(self.model.device), self.model.preprocessing)
        wanted = None if name is None else torch.tensor([self.model.classes.index(name)])
        made = activation_maps(self.model.net, inputs, wanted, self.method)
        shares = self._probabilities(made.logits[0].float().cpu())
        mapped, heat = int(made.classes[0]), made.upsampled(crop.shape[-1])[0].cpu().numpy()
        seen = crop.permute(1, 2, 0).numpy()
        values, order = shares.sort(descending=True, stable=True)
        return Answer(
            (image.shape[2], image.shape[1]),
            tuple(self.model.classes[i] for i in order[:top].tolist()),
            tuple(values[:top].tolist()),
            Look(seen, heat, self.model.classes[mapped], float(shares[mapped]), self.method),
        )

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if self.model.calibration:
            logits = logits / self.model.calibration["temperature"]
        return logits.sigmoid() if self.model.multi_label else logits.softmax(0)
