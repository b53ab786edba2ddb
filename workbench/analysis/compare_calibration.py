"""How far confidences can be believed: calibration error, and the temperature that mends it, in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import logsumexp

from workbench.data.splits import SELECTION, TEST
from workbench.training import run_folder
from workbench.training.calibration import calibration_error, fit_temperature, is_at_an_end, loss_of

NO_FILE = "not known (the run has no logits file)"


@dataclass(frozen=True)
class Calibration:
    """A run's confidences on the test images.

    Args:
        ece: Expected calibration error, `BINS` bins of equal width, fraction.
        loss: Mean negative log-probability of the true class.
        temperatures: What the logits were divided by: one, or one per fold; empty if they are not known.
        ece_after: The error after that, or None.
        loss_after: The loss after that, or None.
        how: On what the temperature was fitted, or why it is not known.
    """

    ece: float
    loss: float
    temperatures: tuple[float, ...]
    ece_after: float | None
    loss_after: float | None
    how: str


def calibrate(folder: Path, rows: Sequence[dict[str, str]]) -> Calibration:
    """Measure a run's calibration on test before and after its temperature.

    The temperature is fitted on the selection split if the run has one. Else it is cross-fitted: the test images are
    halved by a hash of their ids, and each half is divided by the temperature of the other.

    Args:
        folder: A run folder.
        rows: Its predictions.csv, in the file's order.
    """
    confidence = np.array([float(row["confidence"]) for row in rows])
    right = np.array([row["class_rank"] == "1" for row in rows])
    own = np.array([float(row["class_probability"]) for row in rows])
    before = calibration_error(confidence, right), float(-np.log(np.maximum(own, 1e-300)).mean())
    if not (folder / run_folder.LOGITS).is_file():
        return Calibration(*before, (), None, None, NO_FILE)
    try:
        tensors = load_file(folder / run_folder.LOGITS)
        logits, targets = _outputs(tensors, TEST)
        has_selection = SELECTION in tensors and len(tensors[SELECTION]) > 0
        chosen = _outputs(tensors, SELECTION) if has_selection else None
    except (SafetensorError, KeyError, OSError, ValueError):
        return Calibration(*before, (), None, None, "not known (the logits file is damaged)")
    if len(logits) != len(rows) or ((logits.argmax(1) == targets) != right).any():
        return Calibration(*before, (), None, None, "not known (the logits file is not of these predictions)")
    if chosen is not None:
        temperatures = (fit_temperature(*chosen),)
        scale, how = np.full(len(rows), temperatures[0]), f"fitted on {len(chosen[0])} selection images"
    elif len(rows) < 2:
        return Calibration(*before, (), None, None, "not known (one image)")
    else:
        half = halves([row["id"] for row in rows])
        temperatures = tuple(fit_temperature(logits[half == i], targets[half == i]) for i in (1, 0))
        scale = np.array(temperatures)[half]
        how = "no selection split: cross-fitted, each half of the test images by the other's temperature"
    if any(map(is_at_an_end, temperatures)):
        how += "; a temperature is at the end of the range searched"
    scaled = logits / scale[:, None]
    confidence = np.exp(scaled.max(1) - logsumexp(scaled, axis=1))
    return Calibration(*before, temperatures, calibration_error(confidence, right), loss_of(scaled, targets), how)


def _outputs(tensors: Mapping[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a split's logits (N, classes) in float64 and targets (N,); KeyError or ValueError if they are not."""
    logits, targets = tensors[split].astype(np.float64), tensors[f"{split}_targets"]
    is_whole = logits.ndim == 2 and targets.shape == logits.shape[:1] and targets.dtype.kind in "iu"
    if not is_whole or not np.isfinite(logits).all() or (targets < 0).any() or (targets >= logits.shape[1]).any():
        raise ValueError(f"{split}: not finite logits and a class of each")
    return logits, targets


def halves(ids: Sequence[str]) -> np.ndarray:
    """Return (N,) 0 or 1 for each id: the lower and upper half of their hashes, the same for every run."""
    order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in ids], kind="stable")
    half = np.zeros(len(ids), dtype=np.int64)
    half[order[len(ids) // 2 :]] = 1
    return half
