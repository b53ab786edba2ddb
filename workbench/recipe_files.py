"""Find, read, override, check and explain recipes: default < parent < recipe < command line. No torch.

What the keys mean is in `specs/recipe.py`; who acts on them, in `training/run.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from workbench import card_files, shipped
from workbench.specs.card import DatasetCard
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import fill
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_checks import check_recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe.

    Args:
        recipe: The values.
        card: Its dataset card.
        sources: `dotted.key -> where its value came from`; keys not listed have their default.
    """

    recipe: Recipe
    card: DatasetCard
    sources: dict[str, str]


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with the workbench."""
    return sorted(path.stem for path in shipped.RECIPES.glob("*.yaml"))


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """Find a recipe file.

    Args:
        name: A path, or a shipped recipe's name with or without .yaml.
        beside: A folder that is looked into first, for `extends`.

    Raises:
        UserError: There is none.
    """
    candidates = [beside / name, beside / f"{name}.yaml"] if beside else [Path(name)]
    known = list_recipes()
    stem = Path(name).stem
    # A shipped recipe is also found as recipes/NAME.yaml from an installed package, where no such folder lies.
    if stem in known and name in (stem, f"{stem}.yaml", f"recipes/{stem}.yaml", f"recipes/{stem}"):
        candidates.append(shipped.RECIPES / f"{stem}.yaml")
    for path in candidates:
        if path.is_file():
            return path
    raise UserError.of(
        "recipe",
        f"{name}: no such file",
        "a .yaml file, or one of " + ", ".join(known),
        suggestion(stem, known, "see `workbench list recipes`"),
    )


def load(name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe with its parents, apply overrides and check everything.

    Args:
        name: A path or a shipped recipe's name.
        overrides: `key=value` or `--key=value`, dotted keys; later ones win.

    Raises:
        UserError: Every mistake that was found.
    """
    path = find_recipe(name)
    return load_layers(_with_parents(path), overrides, path.stem)


def load_layers(layers: Sequence[tuple[str, dict[str, Any]]], overrides: Sequence[str], name: str) -> LoadedRecipe:
    """Merge layers of nested values and overrides over the defaults, and check everything.

    Args:
        layers: (source, nested values), later ones win.
        overrides: As for `load`.
        name: The recipe's name if no layer states one.

    Raises:
        UserError: Every mistake that was found.
    """
    problems: list[Problem] = []
    recipe, sources = Recipe(), {}
    for source, values in [*layers, *_parsed_overrides(overrides, problems)]:
        _release_partners(recipe, values)
        fill(recipe, values, source, problems, sources)
    recipe.about.name = recipe.about.name or name
    path = layers[-1][0]
    card = None
    try:
        card = card_files.load_card(recipe.data.card)
    except UserError as error:
        problems += [dataclasses.replace(p, where=f"{path}: {p.where}") for p in error.problems]
    if not problems or card:
        problems += check_recipe(recipe, card, path)
    if problems:
        raise UserError(*problems)
    return LoadedRecipe(recipe, card, sources)


_PARTNERS = (
    ("train", "total_epochs", "total_steps"),
    ("train", "ema_half_life_fraction", "ema_decay"),
    ("schedule", "warmup_epochs", "warmup_steps"),
)


def _release_partners(recipe: Recipe, values: dict[str, Any]) -> None:
    """Let a layer that states one of two exclusive keys replace the other one of an earlier layer."""
    for section, first, second in _PARTNERS:
        stated = values.get(section) if isinstance(values.get(section), dict) else {}
        for name, partner in ((first, second), (second, first)):
            if name in stated and partner not in stated:
                setattr(getattr(recipe, section), partner, None)


def _with_parents(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (source, values) from the oldest ancestor to the recipe itself."""
    chain, seen = [], []
    while True:
        if path.resolve() in seen:
            raise UserError.of(f"{path}: extends", "a circle of parents", "a chain that ends", "remove one `extends`")
        seen.append(path.resolve())
        values = shipped.read_yaml(path)
        parent = values.pop("extends", None)
        chain.insert(0, (str(path), values))
        if parent is None:
            return chain
        if not isinstance(parent, str):
            raise UserError.of(f"{path}: extends", parent, "the name of one recipe", "name one parent")
        try:
            path = find_recipe(parent, beside=path.parent)
        except UserError as error:
            raise UserError(*(dataclasses.replace(p, where=f"{path}: extends") for p in error.problems)) from error


def _parsed_overrides(overrides: Sequence[str], problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each override as nested values."""
    for text in overrides:
        stripped = text.removeprefix("--")
        dotted, equals, raw = stripped.partition("=")
        if not equals or not dotted:
            near = suggestion(dotted, dotted_keys(), "write key=value, as in optim.lr=0.01")
            problems.append(Problem("command line", text, "key=value or --key=value", near))
            continue
        if "${" in raw:
            problems.append(Problem(f"command line: {dotted}", raw, "plain values", "write the value out"))
            continue
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]))["value"] if raw else None
        except (YAMLError, OmegaConfBaseException, ValueError):
            value = raw
        for part in reversed(dotted.split(".")):
            value = {part: value}
        yield "command line", value


def dotted_keys() -> list[str]:
    """Return every recipe key, `section.key`."""
    sections = dataclasses.fields(Recipe)
    return [f"{s.name}.{f.name}" for s in sections for f in dataclasses.fields(s.default_factory)]


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain nested values, every key present."""
    return dataclasses.asdict(recipe)


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML that `load` reads back to the same recipe."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(recipe)))


def explain(loaded: LoadedRecipe) -> list[tuple[str, Any, str]]:
    """Return (dotted key, value, where it came from) for every key, in the schema's order."""
    values = to_dict(loaded.recipe)
    rows = []
    for dotted in dotted_keys():
        section, name = dotted.split(".")
        source = next((s for k, s in loaded.sources.items() if k == dotted or k.startswith(f"{dotted}.")), "default")
        rows.append((dotted, values[section][name], source))
    return rows
