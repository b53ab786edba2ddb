"""Class activation maps: which places of a picture speak for a class. Drawn in `training/cam_pictures.py`.

- `cam`: exact for a linear or cosine head on averaged features (Zhou et al. 2016, arXiv 1512.04150): a class's weights
  are applied before averaging, so that the map's mean plus the bias is the logit. A cosine head divides by the length
  of the averaged features, which all places and classes share: with that as a factor the map's mean is the logit too.
- `gradcam`: the same for any head, by the gradient of the logit (Selvaraju et al. 2017, arXiv 1610.02391).
- `layercam`: two maps multiplied. That of `gradcam` (for a linear head the exact one, but for scale) says where the
  class is; that of the last stage with more than twice its cells a side (stride 8 in an EfficientNet), by gradients
  place by place (Jiang et al. 2021, LayerCAM), how far it goes. For inputs so small that the last stage has next to no
  places to tell apart; but finer stages answer to structure as well as to classes, so this is a weaker witness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.models.heads import COSINE_SCALE, CosineHead
from workbench.models.staged import StagedNet

FINE = "layercam"
METHODS = ("auto", "cam", "gradcam", FINE)
FEWEST_CELLS = 7
"""Cells on a side of B0's last map at its own 224 pixels: the coarsest that the paper's Figure 7 has."""


@dataclass(frozen=True)
class ActivationMaps:
    """Maps of some pictures.

    Args:
        maps: (N, h, w) float32. Of `cam`: the logit's parts, negative ones too, without the bias; else 0 or more.
        logits: (N, classes) float32.
        classes: (N,) int64, the class that each map is of.
        method: `cam`, `gradcam` or `layercam`.
        stages: The stages whose maps these are.
    """

    maps: Tensor
    logits: Tensor
    classes: Tensor
    method: str
    stages: tuple[str, ...]

    def upsampled(self, size: int) -> Tensor:
        """Return (N, size, size) float32 maps of 0 or more: what speaks against the class is cut off."""
        return _resized(self.maps.clamp(min=0), (size, size))


def activation_maps(
    model: StagedNet, images: Tensor, classes: Tensor | None = None, method: str = "auto"
) -> ActivationMaps:
    """Compute maps, in evaluation mode; the model is left as it was, its gradients included.

    Args:
        model: Any backbone with a head.
        images: (N, 3, H, W) float32, normalised.
        classes: (N,) int64; the most probable class of each if None.
        method: One of `METHODS`. `auto` takes `layercam` where the last map has less than `FEWEST_CELLS` on a side and
            a finer one is there; else `cam` where the head allows, and `gradcam` where not.

    Raises:
        ValueError: Unknown method, or `cam` for a head that has no exact map.
    """
    if method not in METHODS:
        raise ValueError(f"no such method: {method}; there are {', '.join(METHODS)}")
    was_training = model.training
    model.eval()
    try:
        with torch.set_grad_enabled(method != "cam"):  # the exact map needs none
            return _maps(model, images, classes, method)
    finally:
        model.train(was_training)


def _maps(model: StagedNet, images: Tensor, classes: Tensor | None, method: str) -> ActivationMaps:
    outputs = _run(model, images)
    logits = model.classifier(torch.flatten(model.avgpool(outputs[-1]), 1))
    classes = logits.argmax(1) if classes is None else classes.to(logits.device)
    names, cells = model.stage_names[:-1], [min(maps.shape[-2:]) for maps in outputs]
    fine = [i for i, count in enumerate(cells) if i and count > 2 * cells[-1]][-1:]
    if method == "auto":
        coarse = fine and cells[-1] < FEWEST_CELLS
        method = FINE if coarse else "cam" if has_exact_maps(model) else "gradcam"
    if method == "cam":
        return ActivationMaps(_exact(model, outputs[-1], classes), logits.detach(), classes, method, names[-1:])
    used = [*(fine if method == FINE else []), len(outputs) - 1]
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), [outputs[i] for i in used])
    made = [_of_stage(outputs[i].detach(), g, i not in fine) for i, g in zip(used, gradients, strict=True)]
    return ActivationMaps(_agreed(made), logits.detach(), classes, method, tuple(names[i] for i in used))


def has_exact_maps(model: StagedNet) -> bool:
    """Tell whether logits are a linear function of globally averaged features, up to a factor per picture."""
    pool = getattr(model.avgpool, "output_size", None)
    return pool in (1, (1, 1)) and isinstance(model.avgpool, nn.AdaptiveAvgPool2d) and _last_layer(model) is not None


def _last_layer(model: StagedNet) -> nn.Linear | CosineHead | None:
    layers = [model.classifier] if not isinstance(model.classifier, nn.Sequential) else list(model.classifier)
    layers = [layer for layer in layers if not isinstance(layer, nn.Dropout | nn.Identity)]
    return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear | CosineHead) else None


def _run(model: StagedNet, images: Tensor) -> list[Tensor]:
    """Return every stage's output, (N, C, h, w), input first; they carry gradients even where all is frozen."""
    maps, outputs = images.detach().requires_grad_(), []
    for stage in model.features:
        maps = stage(maps)
        outputs.append(maps)
    return outputs


@torch.no_grad()
def _exact(model: StagedNet, features: Tensor, classes: Tensor) -> Tensor:
    """Return (N, h, w) parts of the logits."""
    if not has_exact_maps(model):
        raise ValueError("no exact map for this head: it is not one linear or cosine layer on averaged features")
    head = _last_layer(model)
    weight = head.weight[classes]
    if isinstance(head, CosineHead):
        length = features.mean((2, 3)).norm(dim=1, keepdim=True).clamp(min=1e-12)
        weight = COSINE_SCALE * functional.normalize(weight) / length
    return torch.einsum("nchw,nc->nhw", features, weight)


def _of_stage(features: Tensor, gradients: Tensor, is_last: bool) -> Tensor:
    """Return (N, h, w) of 0 or more: Grad-CAM of the last stage, LayerCAM of a finer one."""
    weights = gradients.mean((2, 3), keepdim=True) if is_last else gradients.clamp(min=0)
    return (weights * features).sum(1).clamp(min=0)


def _agreed(maps: Sequence[Tensor]) -> Tensor:
    """Return the product of maps, each scaled to at most 1, at the size of the first; a single one as it is."""
    if len(maps) == 1:
        return maps[0]
    resized = [_resized(m / m.amax((1, 2), keepdim=True).clamp(min=1e-12), maps[0].shape[-2:]) for m in maps]
    return torch.stack(resized).prod(0)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
