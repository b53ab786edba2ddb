"""From the tensors of one scaling to those of another: a custom width or depth starts from published weights.

Growing keeps what the network computes, at every input size, in evaluation and (without dropout) in training:

- wider: channels are repeated (Net2Wider of Chen et al. 2016, arXiv 1511.05641), the same ones throughout a residual
  stream, and what reads them shares out its weights among the copies. The shares are drawn anew for every weight,
  because copies that are read alike would get equal gradients for ever;
- deeper: blocks are added at a stage's end. Their last BatchNorm is zero, so only the skip connection is left. Else
  they are copies of the stage's last block, or new where the stage has no second block (its first changes shape).

Cutting (narrower, shallower) keeps the first channels of every tensor and the first blocks of every stage. That is a
start for training and nothing more: what such a network computes is not what its source did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.efficientnet import EfficientNet
from workbench.specs.architectures import Scaling, Stage, scaled_stages, top_channels
from workbench.specs.errors import UserError

_COUNTER = "num_batches_tracked"
_NORM = ("weight", "bias", "running_mean", "running_var", _COUNTER)


@dataclass(frozen=True)
class TransferReport:
    """What the parameters of the target are made of; running statistics are not counted.

    Args:
        source: Architecture that the tensors were of.
        target: Architecture that they were made for.
        copied: Parameters of tensors taken over as they are.
        repeated: Of tensors with repeated channels, and of blocks that are copies of another.
        sliced: Of tensors that are a part of their source.
        new: As initialised, and the zeroed BatchNorms of added blocks.
        same_function: Whether pooled features and a linear head's logits are those of the source.
    """

    source: str
    target: str
    copied: int
    repeated: int
    sliced: int
    new: int
    same_function: bool

    def __str__(self) -> str:
        counts = {"copied": self.copied, "repeated": self.repeated, "sliced": self.sliced, "new": self.new}
        total = sum(counts.values())
        shares = ", ".join(f"{count / total:.1%} {kind}" for kind, count in counts.items())
        what = "computes what its source does" if self.same_function else "does not compute what its source does"
        return f"{self.target} made from {self.source}: of {total:,} parameters {shares}; {what}"


@dataclass(frozen=True)
class _Origin:
    """Where a tensor of the target comes from.

    Args:
        key: Name of the target's tensor.
        source: Name of the source's.
        rows: (outputs,) the source channel of each output.
        columns: (inputs,) the source channel of each input; None if it has no such axis, or one that stays.
        added: Whether it is in a block that the source does not have.
    """

    key: str
    source: str
    rows: Tensor
    columns: Tensor | None
    added: bool


def transfer_tensors(
    tensors: Mapping[str, Tensor], source: Scaling, target: Scaling, initial: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], TransferReport]:
    """Make the tensors of one scaling from those of another. The result is the same every time.

    Args:
        tensors: Of an `EfficientNet` of scaling `source`, with or without a head.
        source: Their architecture.
        target: The architecture wanted.
        initial: `state_dict` of an `EfficientNet` of scaling `target`, for what is new.

    Returns:
        Every tensor of the target's backbone, the linear head if `tensors` has one, and what they are made of.

    Raises:
        UserError: The tensors are not those of `source`.
    """
    _check(tensors, source)
    made = {name: tensor.clone() for name, tensor in initial.items() if name.startswith("features.")}
    kinds = dict.fromkeys(made, "new")
    generator = torch.Generator().manual_seed(0)
    origins = list(_origins(source, target))
    if has_linear_head(tensors):
        classes, features = torch.arange(len(tensors["classifier.1.bias"])), _top_map(source, target)
        origins.append(_Origin("classifier.1.weight", "classifier.1.weight", classes, features, False))
        origins.append(_Origin("classifier.1.bias", "classifier.1.bias", classes, None, False))
    for origin in origins:
        if origin.source not in tensors:
            continue
        made[origin.key] = _make(origin, tensors[origin.source], generator)
        kinds[origin.key] = _kind(origin, tensors[origin.source].shape, made[origin.key].shape)
    for name in _added_ends(source, target):
        made[name], kinds[name] = torch.zeros_like(made[name]), "new"
    counts = dict.fromkeys(("copied", "repeated", "sliced", "new"), 0)
    for name, kind in kinds.items():
        if name.rsplit(".", 1)[-1] in ("weight", "bias"):
            counts[kind] += made[name].numel()
    return made, TransferReport(source.name, target.name, **counts, same_function=_keeps_function(source, target))


def has_linear_head(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors have the head that is carried over: one linear layer with a bias."""
    return {name for name in tensors if name.startswith("classifier.")} == {"classifier.1.weight", "classifier.1.bias"}


def _misfits(tensors: Mapping[str, Tensor], scaling: Scaling) -> list[str]:
    """Name the backbone's tensors that are missing, of another shape, or too many."""
    with torch.device("meta"):  # shapes alone
        expected = {k: v.shape for k, v in EfficientNet(scaling, 1).state_dict().items() if k.startswith("features.")}
    given = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith("classifier.")}
    wrong = (name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    return sorted(name for name in wrong if name in given or not name.endswith(_COUNTER))  # files often lack these


def _check(tensors: Mapping[str, Tensor], source: Scaling) -> None:
    wrong = _misfits(tensors, source)
    if wrong:
        raise UserError.of(
            "model.weights",
            f"{len(wrong)} tensors missing, unknown or of another shape, such as {', '.join(wrong[:2])}",
            f"the tensors of {source.name} with torchvision's keys",
            "give weights of a named architecture, or model.weights=none",
        )


def _keeps_function(source: Scaling, target: Scaling) -> bool:
    """Tell whether no channel and no block is left out, and the first blocks of stages skip where they did.

    They do where their input and output happen to be equally wide, as in `tiny`'s first stage.
    """
    pairs = list(zip(scaled_stages(source), scaled_stages(target), strict=True))
    sizes = ("in_channels", "out_channels", "repeats")
    grows = all(getattr(old, size) <= getattr(new, size) for old, new in pairs for size in sizes)
    skips = [[s.stride == 1 and s.in_channels == s.out_channels for s in pair] for pair in pairs]
    return grows and top_channels(source) <= top_channels(target) and all(old == new for old, new in skips)


def _channel_map(old: int, new: int) -> Tensor:
    """Return the old channel that each new one is: the first ones, then all over again."""
    return torch.arange(new) % old


def _top_map(source: Scaling, target: Scaling) -> Tensor:
    return _channel_map(top_channels(source), top_channels(target))


def _origins(source: Scaling, target: Scaling) -> Iterator[_Origin]:
    """Yield the origin of every tensor of the target's backbone that has one, input first."""
    stages = list(zip(scaled_stages(source), scaled_stages(target), strict=True))
    stream = _channel_map(stages[0][0].in_channels, stages[0][1].in_channels)
    yield from _convolution("features.0", "features.0", stream, None)
    for number, (old, new) in enumerate(stages, 1):
        out = _channel_map(old.out_channels, new.out_channels)
        for repeat in range(new.repeats):
            origin = min(repeat, old.repeats - 1)
            if origin or not repeat:
                widths = (old.in_channels, new.in_channels) if not repeat else (old.out_channels, new.out_channels)
                names = f"features.{number}.{repeat}.block", f"features.{number}.{origin}.block"
                for found in _block(names, old, widths, stream if not repeat else out, out):
                    yield dataclasses.replace(found, added=repeat != origin)
        stream = out
    yield from _convolution("features.8", "features.8", _top_map(source, target), stream)


def _block(
    names: tuple[str, str], stage: Stage, widths: tuple[int, int], entering: Tensor, leaving: Tensor
) -> Iterator[_Origin]:
    """Yield the origins of one block; `widths` are its input channels in the source and in the target."""
    key, source = names
    old, new = widths
    expanded, place = entering, 0
    if stage.expand != 1:
        expanded, place = _channel_map(old * stage.expand, new * stage.expand), 1
        yield from _convolution(f"{key}.0", f"{source}.0", expanded, entering)
    yield from _convolution(f"{key}.{place}", f"{source}.{place}", expanded, None)
    squeezed = _channel_map(max(1, old // 4), max(1, new // 4))
    for layer, rows, columns in (("fc1", squeezed, expanded), ("fc2", expanded, squeezed)):
        name = f".{place + 1}.{layer}"
        yield _Origin(f"{key}{name}.weight", f"{source}{name}.weight", rows, columns, False)
        yield _Origin(f"{key}{name}.bias", f"{source}{name}.bias", rows, None, False)
    yield from _convolution(f"{key}.{place + 2}", f"{source}.{place + 2}", leaving, expanded)


def _convolution(key: str, source: str, rows: Tensor, columns: Tensor | None) -> Iterator[_Origin]:
    yield _Origin(f"{key}.0.weight", f"{source}.0.weight", rows, columns, False)
    for name in _NORM:
        yield _Origin(f"{key}.1.{name}", f"{source}.1.{name}", rows, None, False)


def _make(origin: _Origin, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.ndim:
        return tensor.clone()
    taken = tensor[origin.rows]
    if origin.columns is None:
        return taken
    # Each copy of a channel takes a share of its own of every weight that reads it; a channel without copies takes all.
    shares = 0.5 + torch.rand(len(origin.rows), len(origin.columns), generator=generator)
    totals = torch.zeros(len(origin.rows), tensor.shape[1]).index_add_(1, origin.columns, shares)
    shares = (shares / totals[:, origin.columns]).to(tensor.dtype)
    return taken[:, origin.columns] * shares.reshape(*shares.shape, *[1] * (tensor.ndim - 2))


def _kind(origin: _Origin, old: torch.Size, new: torch.Size) -> str:
    if origin.added or any(a < b for a, b in zip(old, new, strict=True)):
        return "repeated"
    return "copied" if old == new else "sliced"


def _added_ends(source: Scaling, target: Scaling) -> Iterator[str]:
    """Yield the weight and bias of the last BatchNorm of every block that the source does not have."""
    for number, (old, new) in enumerate(zip(scaled_stages(source), scaled_stages(target), strict=True), 1):
        for repeat in range(old.repeats, new.repeats):
            last = f"features.{number}.{repeat}.block.{2 if new.expand == 1 else 3}.1"
            yield from (f"{last}.weight", f"{last}.bias")
