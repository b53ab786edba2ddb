"""What a run's page says of the run itself: what was trained on what, by which settings, and what it scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import card_files
from workbench.specs.errors import UserError
from workbench.specs.metric_names import LOSS, SCORES
from workbench.specs.published import SOURCE, transfers_of
from workbench.specs.weights import is_file

_POLICY = {"none": None, "trivialaugment": "TrivialAugment", "randaugment": "RandAugment"}


def title_of(result: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Return the name of the user's own folder or list, else the dataset's title, or its card's name without a card."""
    own = (recipe.get("data") or {}).get("path")
    if own:
        return Path(own).name
    try:
        return card_files.load_card(result["dataset"]).title or result["dataset"]
    except (UserError, OSError):
        return result["dataset"]


def settings(result: Mapping[str, Any], recipe: Mapping[str, Any], counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return (name, words) of what decides a run; what the recipe does not say is left out.

    Args:
        result: result.json's content.
        recipe: recipe.yaml's content.
        counts: Images of each split.
    """
    data, model, optim, train = (recipe.get(name) or {} for name in ("data", "model", "optim", "train"))
    schedule, augment = recipe.get("schedule") or {}, recipe.get("augment") or {}
    told = [
        ("Images", ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)),
        ("From", result.get("source")),
        ("Trained on", f"{data.get('train_on')}{_share(data.get('train_fraction'))}" if data.get("train_on") else None),
        ("Weights", _weights(result["weights"])),
        ("Head", model.get("head")),
    ]
    if "probe" in result:
        return [(name, str(text)) for name, text in [*told, ("Seed", result["seed"])] if text not in (None, "")]
    warmup = [_counted(schedule[key], key[7:]) for key in ("warmup_epochs", "warmup_steps") if schedule.get(key)]
    training, answering = data.get("resolution"), data.get("eval_resolution") or data.get("resolution")
    told += [
        ("Length", f"{_counted(result['epochs'], 'epochs')}, {_counted(result['steps'], 'steps')}"),
        ("Phases", "; then ".join(_phase(phase) for phase in train.get("phases") or [])),
        ("Batch", data.get("batch_size")),
        ("Pixels", f"{training} in training, {answering} in answering" if training else None),
        ("Optimizer", f"{optim.get('name')}, rate {optim.get('lr')}, weight decay {optim.get('weight_decay')}"),
        ("Schedule", ", ".join([str(schedule.get("name")), *(f"warm-up of {text}" for text in warmup)])),
        ("Augmentation", _augmentation(augment)),
        ("Averaged", "exponential moving average" if _averages(train) else None),
        ("Chosen by", "best on selection" if train.get("pick") == "best" else "the last step"),
        ("Seed", result["seed"]),
    ]
    return [(name, str(text)) for name, text in told if text not in (None, "")]


def name_of(arch: str) -> str:
    """Return an architecture as the paper writes it, if it is one of the paper's."""
    return f"EfficientNet-{arch.upper()}" if re.fullmatch("b[0-8]|l2", arch) else arch


def _weights(name: str | None) -> str:
    return "none: random initialisation" if name is None else Path(name).name if is_file(name) else name


def _share(fraction: float | None) -> str:
    return f", {fraction:.0%} of it" if fraction not in (None, 1, 1.0) else ""


def _averages(train: Mapping[str, Any]) -> bool:
    return train.get("ema_half_life_fraction") is not None or train.get("ema_decay") is not None


def _counted(number: float, unit: str) -> str:
    return f"{number:,.10g} {unit[:-1] if number == 1 else unit}"


def _phase(phase: Mapping[str, Any]) -> str:
    length = next((f" for {_counted(phase[unit], unit)}" for unit in ("epochs", "steps") if phase.get(unit)), "")
    return f"{trained(phase)}{length}"


def trained(phase: Mapping[str, Any]) -> str:
    """Return what trains in a phase, in a word or two."""
    what = str(phase.get("train", ""))
    return f"from {what} on" if what.startswith("stage") else what


def _augmentation(augment: Mapping[str, Any]) -> str:
    policy = augment.get("policy")
    parts = [_POLICY.get(policy, policy)]
    parts += [f"{name} {augment[key]:g}" for name, key in _MIXES if augment.get(key)]
    parts += [f"label smoothing {augment['label_smoothing']:g}"] if augment.get("label_smoothing") else []
    return ", ".join(part for part in parts if part)


_MIXES = (("Mixup", "mixup_alpha"), ("CutMix", "cutmix_alpha"), ("cutout", "cutout"))


def scores(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each score that was measured: `name`, `about`, `is_own`, and per split a cell of texts or None."""
    rows = []
    for name, about in SCORES.items():
        cells = {split: _cell(result.get(split) or {}, name, result["metric"]) for split in ("selection", "test")}
        if any(cells.values()):
            rows.append({"name": name, "about": about, "is_own": name == result["metric"], **cells})
    return sorted(rows, key=lambda row: not row["is_own"])


def _cell(scored: Mapping[str, Any], name: str, own: str) -> dict[str, str] | None:
    value = scored.get(name)
    if value is None:
        return None
    ends = scored.get("interval95") if name == own else None
    text = f"{value:.4f}" if name == LOSS else f"{100 * value:.2f} %"
    return {"text": text, "interval": f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}" if ends else ""}


def headline(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the one figure that a page begins with: the set's own metric on test, else on selection; None if neither.

    With `value`, `low`, `high`, `published` in percent, the last three None where there is none, and the ends of a
    scale, `from` and `to`, on which they lie apart.
    """
    split = "test" if result.get("test") else "selection"
    scored = result.get(split)
    if not scored or scored.get(result["metric"]) is None:
        return None
    published = result.get("published")
    value, (low, high) = 100 * scored[result["metric"]], scored.get("interval95") or (None, None)
    low, high = (None if end is None else 100 * end for end in (low, high))
    paper = published and 100 * published["accuracy"]
    shown = [number for number in (value, low, high, paper) if number is not None]
    room = max(0.25 * (max(shown) - min(shown)), 0.5)
    made = {"split": split, "metric": result["metric"], "n": scored["n"], "value": value, "low": low, "high": high}
    return {**made, "published": paper, "from": max(min(shown) - room, 0), "to": min(max(shown) + room, 100)}


def others(result: Mapping[str, Any]) -> list[str]:
    """Return what the paper prints for this set with other networks, as text; nothing for other sets."""
    rows = [row for row in transfers_of(result["dataset"]) if row.arch != result["arch"]]
    return [f"{row.arch.upper()} {row.percent:.1f} %" for row in rows] + ([SOURCE] if rows else [])
