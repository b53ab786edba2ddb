"""Find and read dataset cards (`data/<name>.yaml`). What a card says is in `specs/card.py`; no torch."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

from workbench import shipped
from workbench.specs.card import LAYOUTS, SOURCE_KINDS, DatasetCard
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import fill
from workbench.specs.metric_names import SINGLE_LABEL
from workbench.specs.printable import MOST_LETTERS, odd_name
from workbench.specs.recipe import Recipe


def list_cards() -> list[str]:
    """Return the names of the cards that ship with the workbench."""
    return sorted(path.stem for path in shipped.CARDS.glob("*.yaml"))


def card_for(recipe: Recipe) -> DatasetCard:
    """Return a recipe's card, with what the recipe itself says of the source.

    Raises:
        UserError: No such card, or mistakes in it.
    """
    card, data = load_card(recipe.data.card), recipe.data
    if data.hub is not None:
        card = dataclasses.replace(card, sources=[dataclasses.replace(data.hub, kind="hub")])
    return dataclasses.replace(card, label_separator=data.label_separator or card.label_separator)


def load_card(name: str) -> DatasetCard:
    """Read one card.

    Args:
        name: A shipped card's name, or the path of a .yaml file.

    Raises:
        UserError: No such card, or mistakes in it.
    """
    path = Path(name) if name.endswith(".yaml") else shipped.CARDS / f"{name}.yaml"
    known = list_cards()
    # Only a plain name is looked up in the shipped folder, so that no name can walk out of it.
    if not os.path.isfile(path) or (not name.endswith(".yaml") and name not in known):
        remedy = suggestion(name, known, "see `workbench list datasets`") if name else "add data.card=NAME"
        raise UserError.of("data.card", name or "nothing", ", ".join(known) + ", or a .yaml file", remedy)
    card, problems = DatasetCard(name=path.stem), []
    fill(card, shipped.read_yaml(path), str(path), problems, {})
    problems += _mistakes(card, path)
    if problems:
        raise UserError(*problems)
    if card.classes:
        card.num_classes = len(card.classes)
    return card


def _mistakes(card: DatasetCard, path: Path) -> list[Problem]:
    """Return what is wrong in a card whose values have the right types."""
    found = []
    if card.layout not in LAYOUTS:
        found.append(Problem(f"{path}: layout", card.layout, ", ".join(LAYOUTS), "name the layout of the files"))
    if card.metric not in SINGLE_LABEL:
        found.append(Problem(f"{path}: metric", card.metric, ", ".join(SINGLE_LABEL), "name the reported metric"))
    for place, source in enumerate(card.sources):
        where = f"{path}: sources[{place}]"
        if source.kind not in SOURCE_KINDS:
            remedy = suggestion(source.kind, SOURCE_KINDS, "name a kind of source")
            found.append(Problem(f"{where}.kind", source.kind, ", ".join(SOURCE_KINDS), remedy))
        if source.kind == "torchvision" and not source.dataset:
            remedy = "add `dataset: Flowers102`, or what the class is called"
            found.append(Problem(f"{where}.dataset", "nothing", "a class of torchvision.datasets", remedy))
    if re.search(r"[/\\]", card.name) or card.name in ("", ".", "..") or odd_name(card.name):
        found.append(Problem(f"{path}: name", f"{card.name!r:.80}", "a name that can be a folder's", "choose another"))
    lists = [name for source in card.sources for name in (source.md5_list, source.test_list)]
    for inner in filter(None, [card.folder, *lists]):
        if Path(inner).is_absolute() or ".." in Path(inner).parts:
            allowed = "a path that stays inside data.root, or inside the copy"
            found.append(
                Problem(str(path), f"{inner!r:.80}", allowed, "give data.root or data.path on the command line")
            )
    odd = [f"{name!r:.80}, {why}" for name in card.classes if (why := odd_name(name))]
    if odd:
        allowed = f"names in one line, of at most {MOST_LETTERS} letters"
        found.append(Problem(f"{path}: classes", odd[0], allowed, "correct the name"))
    twice = [name for name, count in Counter(card.classes).items() if count > 1]
    if twice:
        found.append(Problem(f"{path}: classes", f"{', '.join(twice)} twice", "each name once", "tell the names apart"))
    if card.classes and card.num_classes not in (None, len(card.classes)):
        given = f"{card.num_classes} for {len(card.classes)} names in classes"
        found.append(Problem(f"{path}: num_classes", given, str(len(card.classes)), "correct it, or leave it out"))
    return found
