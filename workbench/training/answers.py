"""From pictures to class probabilities with a trained classifier: decoded ahead in threads, answered in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench.data.images import load_image
from workbench.data.transforms import normalise
from workbench.data.views import VIEWS, view_transform
from workbench.models.answering import answering_form
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing
from workbench.training import machine

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier

Picture = str | Path | np.ndarray
BATCHES_AHEAD = 2
"""Batches that are decoded before their turn: enough for the network not to wait, few enough to fit in memory."""


def model_input(picture: Picture, preprocessing: Preprocessing) -> Tensor:
    """Turn a file or an (H, W, 3) uint8 array into the model's input, (3, crop, crop) float32.

    Raises:
        UserError: The file is missing or does not decode.
    """
    return normalise(_decoder(preprocessing, "none")(picture), preprocessing)[0]


def _decoder(preprocessing: Preprocessing, views: str) -> Callable[[Picture], Tensor]:
    """Return a function from a picture to (V, 3, crop, crop) uint8."""
    transform = view_transform(preprocessing, views)
    return lambda picture: transform(load_image(picture if isinstance(picture, np.ndarray) else Path(picture)))


def set_to_answer(
    model: EfficientNetClassifier, device: str, precision: str = "32-true", channels_last: bool = False
) -> None:
    """Give a loaded classifier the form that was measured to answer fastest; it can no longer be trained or saved.

    On a processor that is channels_last with BatchNorm folded (benchmarks/latency.py). Under autocast nothing is
    folded: the folded weights would be rounded otherwise. On a GPU neither was measured: the layout is as stated.

    Args:
        model: Changed in place.
        device: `cpu` or `gpu`.
        precision: Lightning's word for the one that it will answer in.
        channels_last: The layout on a GPU.
    """
    on_cpu = device == "cpu"
    if on_cpu:
        machine.keep_freed_memory()
    model.net = answering_form(model.net, fold=on_cpu and precision == "32-true", channels_last=on_cpu or channels_last)


def classify(model: EfficientNetClassifier, pictures: Iterable[Picture], batch_size: int) -> list[dict[str, float]]:
    """Return, per picture, class name -> probability in [0, 1], most probable first; calibrated if the model is.

    Args:
        model: Used in evaluation mode and left in the mode that it was in.
        pictures: Files or (H, W, 3) uint8 arrays.
        batch_size: Pictures per forward pass.

    Raises:
        UserError: A file is missing or does not decode; or it is one picture and no list.
    """
    if isinstance(pictures, str | Path) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4):
        raise UserError.of("predict", "one picture", "a list of pictures", "put it in brackets: predict([picture])")
    probabilities, classes = most_probable(model, list(pictures), batch_size)
    rows = zip(probabilities.tolist(), classes.tolist(), strict=True)
    return [{model.classes[i]: p for p, i in zip(*row, strict=True)} for row in rows]


def most_probable(
    model: EfficientNetClassifier, pictures: Sequence[Picture], batch_size: int, top: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the `top` most probable classes of each picture, or all, in order.

    Args:
        model: Used in evaluation mode and left in the mode that it was in.
        pictures: Files or (H, W, 3) uint8 arrays.
        batch_size: Pictures per forward pass.
        top: Classes per picture.

    Returns:
        (N, top) float32 probabilities in [0, 1], falling, and (N, top) int64 class numbers.

    Raises:
        UserError: A file is missing or does not decode.
    """
    count = min(top or len(model.classes), len(model.classes))
    found = [(torch.empty(0, count), torch.empty(0, count, dtype=torch.int64))]
    found += [(values, order) for _, values, order in answered_batches(model, pictures, batch_size, top=top)]
    values, order = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, order


def answered_batches(
    model: EfficientNetClassifier,
    pictures: Sequence[Picture],
    batch_size: int,
    *,
    top: int | None = None,
    views: str = "none",
    refuse: Callable[[int, UserError], None] | None = None,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield answers as they are computed, in the pictures' order.

    Logits are divided by the temperature in `model.calibration`, if there is one (set it to None for raw ones); the
    answer of several views is the mean of their probabilities.

    Args:
        model: Used in evaluation mode and left in the mode that it was in.
        pictures: Files or (H, W, 3) uint8 arrays.
        batch_size: Inputs per forward pass: pictures, or their views.
        top: Classes per picture; all if None.
        views: One of `views.VIEWS`.
        refuse: Called with the place and the reason of a picture that cannot be read, which is then left out; if None
            the reason is raised.

    Yields:
        For some pictures: their places in `pictures`, (n, top) float32 probabilities in [0, 1], falling, and (n, top)
        int64 class numbers.

    Raises:
        UserError: A file is missing or does not decode; or views that this model's preprocessing does not have.
    """
    size = max(1, batch_size // VIEWS[views])
    count = min(top or len(model.classes), len(model.classes))
    was_training = model.training
    model.eval()
    try:
        for places, images in _decoded_batches(pictures, size, _decoder(model.preprocessing, views), refuse):
            values, order = _probabilities(model, images).sort(dim=1, descending=True, stable=True)
            yield places, values[:, :count], order[:, :count]
    finally:
        model.train(was_training)


@torch.inference_mode()
def _probabilities(model: EfficientNetClassifier, images: Tensor) -> Tensor:
    """Return (N, classes) probabilities, on the CPU, of (N, V, 3, crop, crop) uint8."""
    logits = model(normalise(images.flatten(0, 1).to(model.device), model.preprocessing)).float()
    if model.calibration:
        logits = logits / model.calibration["temperature"]
    probabilities = (logits.sigmoid() if model.multi_label else logits.softmax(1)).cpu()
    return probabilities if images.shape[1] == 1 else probabilities.unflatten(0, images.shape[:2]).mean(1)


def _decoded_batches(
    pictures: Sequence[Picture],
    size: int,
    decoded: Callable[[Picture], Tensor],
    refuse: Callable[[int, UserError], None] | None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield places and what they decode to, ahead by a thread per core: decoding and resizing run outside Python."""
    waiting: deque[Future[Tensor]] = deque()
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, len(pictures)) or 1, "decode")
    try:
        upcoming = iter(pictures)
        for start in range(0, len(pictures), size):
            places = range(start, min(start + size, len(pictures)))
            wanted = BATCHES_AHEAD * size + len(places) - len(waiting)
            waiting.extend(pool.submit(decoded, picture) for picture in islice(upcoming, wanted))
            ready = {}
            for place in places:
                try:
                    ready[place] = waiting.popleft().result()
                except UserError as error:
                    if refuse is None:
                        raise
                    refuse(place, error)
            if ready:
                yield list(ready), torch.stack(list(ready.values()))
    finally:
        pool.shutdown(cancel_futures=True)
