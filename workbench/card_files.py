"""Find and read dataset cards (`data/<name>.yaml`). What a card says is in `specs/card.py`; no torch."""

from __future__ import annotations

from pathlib import Path

from workbench import shipped
from workbench.specs.card import LAYOUTS, DatasetCard
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import fill
from workbench.specs.metric_names import SINGLE_LABEL


def list_cards() -> list[str]:
    """Return the names of the cards that ship with the workbench."""
    return sorted(path.stem for path in shipped.CARDS.glob("*.yaml"))


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
    if not path.is_file() or (not name.endswith(".yaml") and name not in known):
        remedy = suggestion(name, known, "see `workbench list datasets`") if name else "add data.card=NAME"
        raise UserError.of("data.card", name or "nothing", ", ".join(known) + ", or a .yaml file", remedy)
    card, problems = DatasetCard(name=path.stem), []
    fill(card, shipped.read_yaml(path), str(path), problems, {})
    if card.layout not in LAYOUTS:
        problems.append(Problem(f"{path}: layout", card.layout, ", ".join(LAYOUTS), "name the layout of the files"))
    if card.metric not in SINGLE_LABEL:
        problems.append(Problem(f"{path}: metric", card.metric, ", ".join(SINGLE_LABEL), "name the reported metric"))
    if problems:
        raise UserError(*problems)
    return card
