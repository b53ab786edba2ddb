"""README.md of a model, as a hub shows it: what it was trained on and how, its scores with n and intervals, its limits.

Everything comes from model.json and, for counts, from the run folder; what is not known there is said to be unknown.
The metadata on top are those of the hub's model cards (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from workbench import card_files
from workbench.models.portable import DESCRIPTION, preprocessing_from
from workbench.specs.card import DatasetCard
from workbench.specs.compared import backbone_from
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.specs.metric_names import LOSS, SCORES
from workbench.specs.printable import printable
from workbench.specs.weights import WEIGHTS, WeightsEntry, is_file
from workbench.training import run_folder

FILE = "README.md"
UNKNOWN_LICENCE = "unknown"
"""The hub's own word for it (https://huggingface.co/docs/hub/repositories-licenses)."""
MOST_CLASSES = 200
"""Names that a card prints; a choice of this project."""
_SOURCE_ON_HUB = re.compile(r"hub ([\w.-]+/[\w.-]+) at")


def model_card(
    folder: Path, description: Mapping[str, Any], where: str | None = None, licence: str = UNKNOWN_LICENCE
) -> str:
    """Write the card of a portable model.

    Args:
        folder: The model's folder; its splits.json gives the number of training images, if it is there.
        description: What model.json holds.
        where: What `load` is to be given, such as `hub:owner/name`; the folder's name if None.
        licence: One of the hub's identifiers, such as `mit`.

    Returns:
        Markdown below a block of YAML.

    Raises:
        UserError: The description's provenance is not what `fit` writes.
    """
    try:
        return without_secrets(_card(folder, description, where, licence))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        given = f"a provenance of another form: {type(error).__name__}: {error!s:.200}"
        raise UserError.of(folder / DESCRIPTION, given, "what `fit` writes", "save the model again") from error


def _card(folder: Path, description: Mapping[str, Any], where: str | None, licence: str) -> str:
    provenance = description["provenance"]
    result, recipe = _mapping(provenance, "result"), _mapping(provenance, "recipe")
    arch = backbone_from(description["arch"]).name
    weights = result.get("weights") or _mapping(recipe, "model").get("weights")
    facts = {
        "arch": arch,
        "result": result,
        "recipe": recipe,
        "splits": _counts(folder),
        "card": _dataset_card(recipe),
        "entry": next((e for e in WEIGHTS if (e.name, e.arch) == (weights, arch)), None),
        "weights": Path(weights).name if isinstance(weights, str) and is_file(weights) else weights,
        "environment": _mapping(provenance, "environment"),
    }
    title = (
        f"{arch} on {result['dataset']}" if result.get("dataset") else f"{arch}, {len(description['classes'])} classes"
    )
    published = result.get("published")
    environment = Environment(loader=PackageLoader("workbench.training", "."), keep_trailing_newline=True)
    environment.filters["md"] = inline
    return environment.get_template("model_card.jinja").render(
        metadata=yaml.safe_dump(_metadata(_line(title), licence, facts), sort_keys=False, allow_unicode=True),
        title=title,
        arch=arch,
        task=description["task"].replace("_", "-"),
        classes=description["classes"],
        most=MOST_CLASSES,
        preprocessing=preprocessing_from(description),
        scores=_score_rows(result),
        tested=bool(result.get("test")),
        openings=(result.get("test") or {}).get("openings"),
        published=published and f"{100 * published['accuracy']:.1f} % ({published['source']})",
        training=_training(facts),
        where=where or f"path/to/{folder.resolve().name}",
        limits=_limits(description, facts),
    )


def write_card(folder: Path, description: Mapping[str, Any], licence: str, overwrite: bool = False) -> Path:
    """Write README.md beside a model.

    Raises:
        UserError: There is another one, perhaps edited by hand.
    """
    path, text = folder / FILE, model_card(folder, description, licence=licence)
    if path.exists() and not overwrite and path.read_text(encoding="utf-8", errors="replace") != text:
        given = "it is there, and is not what would be written: perhaps edited by hand"
        raise UserError.of(path, given, "no card yet, or --overwrite", "add --overwrite to lose what is there")
    run_folder.write_text(path, text)
    return path


def inline(value: object) -> str:
    """Return text from outside as one line of Markdown that shows it as it stands: no markup, link or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", _line(value)).replace("://", ":\\//")


def _line(value: object) -> str:
    """Return text as one line: in the YAML too, whose end would be a line of dashes."""
    return printable(" ".join(str(value).split()), keep="")


def _mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _counts(folder: Path) -> dict[str, int]:
    try:
        return (run_folder.read_json(folder / run_folder.SPLITS) or {}).get("counts", {})
    except ValueError:
        return {}


def _dataset_card(recipe: Mapping[str, Any]) -> DatasetCard | None:
    try:
        return card_files.load_card(str(_mapping(recipe, "data").get("card") or ""))
    except (UserError, OSError):
        return None  # a card of the user's own, which is not here


def _metadata(title: str, licence: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hub's metadata; a key of which nothing is known is left out."""
    result, on_hub = facts["result"], _SOURCE_ON_HUB.match(str(facts["result"].get("source")))
    entry: WeightsEntry | None = facts["entry"]
    made: dict[str, Any] = {
        "license": licence,
        "library_name": "efficientnet-workbench",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "efficientnet-workbench", facts["arch"]],
        "datasets": [on_hub[1]] if on_hub else None,
        "metrics": ["accuracy"] if result.get("metric") else None,
        "base_model": entry.repository if entry and entry.repository else None,
    }
    split = "test" if result.get("test") else "selection"
    scores = result.get(split)
    if scores:
        kind = on_hub[1] if on_hub else _line(result["dataset"])
        name = (facts["card"] and _line(facts["card"].title)) or _line(result["dataset"])
        dataset = {"name": name, "type": kind, "split": split}
        metrics = [_metric(name, scores, result["metric"]) for name in SCORES if name in scores and name != LOSS]
        task = {"type": "image-classification", "name": "image classification"}
        made["model-index"] = [{"name": title, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    return {name: value for name, value in made.items() if value}


def _metric(name: str, scores: Mapping[str, Any], own: str) -> dict[str, Any]:
    interval, about = scores.get("interval95") if name == own else None, f"{name}, n = {scores['n']}"
    args: dict[str, Any] = {"n": scores["n"]}
    if interval:
        args["interval95"] = [round(end, 6) for end in interval]
        about += f", 95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
    kind = "accuracy" if name == "top1" else name
    return {"type": kind, "value": round(scores[name], 6), "name": about, "args": args}


def _score_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for split in ("selection", "test"):
        scores = result.get(split) or {}
        for name in (name for name in SCORES if name in scores):
            interval = scores.get("interval95") if name == result["metric"] else None
            value = f"{scores[name]:.4f}" if name == LOSS else f"{100 * scores[name]:.2f} %"
            told = f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %" if interval else ""
            own = name == result["metric"]
            rows.append(
                {"split": split, "n": scores["n"], "name": name, "is_own": own, "value": value, "interval": told}
            )
    return rows


def _training(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (what, value) of how the model was made; the paths of the machine that trained it are left out."""
    result, recipe, card, entry = (facts[name] for name in ("result", "recipe", "card", "entry"))
    source, count = str(result.get("source") or "not known"), facts["splits"].get("train")
    optim, train, data = (_mapping(recipe, name) for name in ("optim", "train", "data"))
    images = f"{count} training images, " if count is not None else ""
    licence = (card.licence if card else "") or "not known"
    told = {
        "recipe": str(result.get("recipe") or ""),
        "data": f"{(card and card.title) or result.get('dataset') or 'not known'}; {images}"
        + (source if source.startswith("hub ") else "local files" if result.get("source") else "source not known"),
        "licence of the pictures": licence,
        "citation": card.citation if card else "",
        "began from": facts["weights"] or "random initialisation" if result or recipe else "not known",
        "licence of those weights": (entry.licence if entry else "not known") if facts["weights"] else "",
        "length": f"{result.get('epochs')} epochs, {result.get('steps')} steps of {data.get('batch_size')} images",
        "optimizer": f"{optim.get('name')}, peak rate {optim.get('lr')}, weight decay {optim.get('weight_decay')}",
        "seed": str(train.get("seed")),
        "notes": "; ".join(result.get("stamps") or []),
        "made with": ", ".join(
            f"{k} {facts['environment'][k]}" for k in ("workbench", "torch") if k in facts["environment"]
        ),
    }
    if not (result and recipe):
        told |= {"length": "not known", "optimizer": "not known", "seed": "not known"}
    return [(name, value) for name, value in told.items() if value]


def _limits(description: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return what a user of the model should know before trusting an answer."""
    count, calibration = len(description["classes"]), description.get("calibration")
    if description["task"] == "single_label":
        limits = [f"It always answers with one of its {count} classes: of anything else it cannot say that it is none."]
    else:
        limits = [f"It knows {count} classes; each is answered on its own, and none may apply."]
    if calibration:
        limits.append(
            f"Probabilities are calibrated by a temperature of {calibration['temperature']:.3g}, fitted on "
            f"{calibration['n']} selection images: on pictures like those, not on others."
        )
    else:
        limits.append("Its probabilities are not calibrated: 90 % need not mean that 9 of 10 such answers are right.")
    limits.append("Scores are of pictures taken like the training ones; on others nothing was measured here.")
    if facts["card"] and facts["card"].traps:
        limits.append(f"Of the dataset: {facts['card'].traps}")
    if (facts["result"].get("test") or {}).get("openings", 1) > 1:
        limits.append("Test was opened more than once, so its score is no longer that of pictures never looked at.")
    return limits
