"""AmoebaNet-A, -B and -C at any width and depth, of the cells in `specs/amoeba_cells.py`.

Stem, operations and wiring are those of tensorflow/tpu, models/official/amoeba_net: network_utils.py and
model_builder.py. The auxiliary classifier of training is left out: the published counts are met without it. Padding is
symmetric here and TensorFlow's SAME there: at even sizes a strided window may lie a pixel off; shapes are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.specs.amoeba_cells import DESIGNS, Cell

_BN_EPS = 1e-3  # model_builder.py
_STEM_CHANNELS = 32
_STAGES = 3


class AmoebaNet(nn.Module):
    """A convolution, two halving cells, and three stages of normal cells, the later ones begun by a halving cell.

    Args:
        name: One of `DESIGNS`.
        width: Multiplier of the channels.
        depth: Multiplier of the normal cells in each stage, rounded up.
    """

    def __init__(self, name: str, width: float = 1.0, depth: float = 1.0):
        super().__init__()
        design = DESIGNS[name]
        filters, repeats = round(design.filters * width), math.ceil(design.repeats * depth)
        stem = nn.Conv2d(3, _STEM_CHANNELS, 3, stride=2, bias=False)
        stages: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(_STEM_CHANNELS, _BN_EPS))]
        given = (_STEM_CHANNELS, 0)
        for number in range(_STAGES):
            halving = [filters // 4, filters // 2] if number == 0 else [filters * 2**number]
            cells = [(design.reduction, channels, True) for channels in halving]
            cells += [(design.normal, filters * 2**number, False)] * repeats
            stages.append(_Stage(cells, given, is_last=number == _STAGES - 1))
            given = stages[-1].gives
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(given[0], 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # fan in; with the FAN_OUT of the source, an untrained network evaluates to logits of 1e11
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) -> (N, 1000)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


class _Stage(nn.Module):
    """Cells, each of which takes the outputs of the last two.

    A stage gives one tensor: what the next one's first cell takes, side by side, (N, C + C', h, w). Both are of one
    size, as a stage ends with a normal cell. The last stage gives its last cell's output alone, rectified.

    Args:
        cells: Cell, channels and whether it halves the size.
        given: Channels of the last output and of the one before; the latter is 0 where there is none.
        is_last: Whether no stage follows.
    """

    def __init__(self, cells: list[tuple[Cell, int, bool]], given: tuple[int, int], is_last: bool):
        super().__init__()
        self.given, self.is_last = given, is_last
        self.cells = nn.ModuleList()
        is_smaller = False
        for cell, channels, halves in cells:
            self.cells.append(_CellModule(cell, given, channels, halves, is_smaller))
            given, is_smaller = (channels * len(cell.output), given[0]), halves
        self.gives = (given[0], 0) if is_last else given

    def forward(self, maps: Tensor) -> Tensor:
        current, before = maps.split(self.given, 1) if self.given[1] else (maps, maps)
        for cell in self.cells:
            current, before = cell(current, before), current
        return functional.relu(current) if self.is_last else torch.cat([current, before], 1)


class _CellModule(nn.Module):
    """A cell at some width.

    Args:
        cell: Its operations.
        given: Channels of the last output and of the one before; the latter is 0 for the first cell, which takes the
            last output, as it is, in that one's place.
        channels: Of every state.
        halves: Whether operations on states 0 and 1 halve the size.
        is_smaller: Whether the last output is half the size of the one before.
    """

    def __init__(self, cell: Cell, given: tuple[int, int], channels: int, halves: bool, is_smaller: bool):
        super().__init__()
        self.cell = cell
        last, before = given
        self.last = _convolution(last, channels)
        self.before: nn.Module = nn.Identity()
        if is_smaller:
            self.before = nn.Sequential(nn.ReLU(), _Halved(before, channels))
        elif before not in (0, channels):
            self.before = _convolution(before, channels)
        widths = (channels, channels if before else last, *[channels] * len(cell.sums))
        self.operations = nn.ModuleList(
            _operation(name, widths[state], channels, 2 if halves and state < 2 else 1)
            for pair in cell.sums
            for name, state in pair
        )
        halved = [state for state in cell.output if halves and state < 2]
        self.halved = nn.ModuleDict({str(state): _Halved(widths[state], channels) for state in halved})

    def forward(self, current: Tensor, before: Tensor) -> Tensor:
        states = [self.last(current), self.before(before)]
        operations = iter(self.operations)
        for (_, first), (_, second) in self.cell.sums:
            states.append(next(operations)(states[first]) + next(operations)(states[second]))
        output = [(states[state], str(state)) for state in self.cell.output]
        return torch.cat([self.halved[name](maps) if name in self.halved else maps for maps, name in output], 1)


class _Halved(nn.Module):
    """Half of the channels from even places, half from odd ones: what one stride skips, the other takes."""

    def __init__(self, given: int, channels: int):
        super().__init__()
        self.even = nn.Conv2d(given, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(given, channels - channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels, _BN_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        shifted = functional.pad(maps, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.bn(torch.cat([self.even(maps), self.odd(shifted)], 1))


def _convolution(
    given: int, channels: int, kernel: tuple[int, int] = (1, 1), stride: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    convolution = nn.Conv2d(given, channels, kernel, stride, padding, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels, _BN_EPS))


def _separable(given: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Build two separable convolutions, the first one strided."""
    layers = []
    for width, step in ((given, stride), (channels, 1)):
        depthwise = nn.Conv2d(width, width, kernel, step, kernel // 2, groups=width, bias=False)
        pointwise = nn.Conv2d(width, channels, 1, bias=False)
        layers += [nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels, _BN_EPS)]
    return nn.Sequential(*layers)


_POOLS: dict[str, Callable[[int], nn.Module]] = {
    "avg_3x3": lambda stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False),
    "max_3x3": lambda stride: nn.MaxPool2d(3, stride, 1),
    "max_2x2": lambda stride: nn.MaxPool2d(2, stride, ceil_mode=True),
}


def _operation(name: str, given: int, channels: int, stride: int) -> nn.Module:
    """Build an operation of a cell; those of full convolutions work on a quarter of the channels.

    Raises:
        ValueError: Not an operation's name.
    """
    if name == "none":
        return nn.Identity()
    if name == "1x1":
        return _convolution(given, channels)
    if name.startswith("sep_"):
        return _separable(given, channels, int(name[-1]), stride)
    if name in _POOLS:
        layers = [_POOLS[name](stride)]
        if given != channels:
            layers += [nn.Conv2d(given, channels, 1, bias=False), nn.BatchNorm2d(channels, _BN_EPS)]
        return nn.Sequential(*layers)
    full = {"3x3": [((3, 3), (stride, stride))], "1x7_7x1": [((1, 7), (1, stride)), ((7, 1), (stride, 1))]}
    if name not in full:
        raise ValueError(f"no such operation: {name}")
    quarter = channels // 4
    inner = [_convolution(quarter, quarter, *sizes) for sizes in full[name]]
    return nn.Sequential(_convolution(given, quarter), *inner, _convolution(quarter, channels))
