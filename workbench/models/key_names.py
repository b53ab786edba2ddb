"""The tensor names of other EfficientNets: timm's and lukemelas/EfficientNet-PyTorch's, to and from torchvision's.

The three have the same modules in the same order under other names, so a table of module names, built from the
architecture, is the whole conversion. Ours are torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from workbench.specs.architectures import Scaling, scaled_stages

STYLES = ("torchvision", "timm", "lukemelas")
_STEMS = dict(zip(STYLES, ("features.0.0.weight", "conv_stem.weight", "_conv_stem.weight"), strict=True))
HEADS = ("classifier", "_fc")
"""How the names of a head begin."""
COUNTER = "num_batches_tracked"
"""Last part of BatchNorm's count of batches: older files lack it, and with a fixed momentum nothing uses it."""

# Module names in order, within a block that expands its channels, and within one that does not.
_EXPANDING = {
    "torchvision": "block.0.0 block.0.1 block.1.0 block.1.1 block.2.fc1 block.2.fc2 block.3.0 block.3.1",
    "timm": "conv_pw bn1 conv_dw bn2 se.conv_reduce se.conv_expand conv_pwl bn3",
    "lukemelas": "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
}
_PLAIN = {
    "torchvision": "block.0.0 block.0.1 block.1.fc1 block.1.fc2 block.2.0 block.2.1",
    "timm": "conv_dw bn1 se.conv_reduce se.conv_expand conv_pw bn2",
    "lukemelas": "_depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
}
_ENDS = {
    "torchvision": "features.0.0 features.0.1 features.8.0 features.8.1 classifier.1",
    "timm": "conv_stem bn1 conv_head bn2 classifier",
    "lukemelas": "_conv_stem _bn0 _conv_head _bn1 _fc",
}


def style_of(names: Iterable[str]) -> str | None:
    """Return whose names these are, out of `STYLES`, or None if they are nobody's."""
    names = set(names)
    return next((style for style, stem in _STEMS.items() if stem in names), None)


def convert(tensors: Mapping[str, Tensor], scaling: Scaling, source: str, target: str) -> dict[str, Tensor]:
    """Return the same tensors under another implementation's names.

    Args:
        tensors: A state dict, whole or in part.
        scaling: The architecture that they belong to.
        source: Whose names they have, out of `STYLES`.
        target: Whose names they get.

    Returns:
        The same tensors in the same order; those that the architecture does not have keep their names.
    """
    theirs = dict(zip(module_names(scaling, source), module_names(scaling, target), strict=True))
    renamed = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        renamed[f"{theirs[module]}.{leaf}" if module in theirs else name] = tensor
    return renamed


def module_names(scaling: Scaling, style: str) -> tuple[str, ...]:
    """Return the name of every module that holds tensors: stem, its BatchNorm, top, its BatchNorm, head, blocks."""
    names = _ENDS[style].split()
    number = 0
    for stage, settings in enumerate(scaled_stages(scaling)):
        within = (_PLAIN if settings.expand == 1 else _EXPANDING)[style].split()
        for block in range(settings.repeats):
            prefixes = {
                "torchvision": f"features.{stage + 1}.{block}.",
                "timm": f"blocks.{stage}.{block}.",
                "lukemelas": f"_blocks.{number}.",
            }
            names += [prefixes[style] + name for name in within]
            number += 1
    return tuple(names)
