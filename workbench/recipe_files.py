"""Find, read, override, check and explain recipes: default < parent < recipe < command line. No torch.

What the keys mean is in `specs/recipe.py`; who acts on them, in `training/run.py`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from workbench import card_files, shipped
from workbench.overrides import SOURCE, parse_overrides, recipe_keys
from workbench.specs.card import DatasetCard
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import NULL_WORDS, fill
from workbench.specs.recipe import EXCLUSIVE, Recipe
from workbench.specs.recipe_checks import check_data, check_recipe
from workbench.specs.rules import apply_rule, keep_stated, open_keys


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


def list_protocols() -> list[str]:
    """Return the names of the shipped parents: recipes that lack only a dataset."""
    return sorted(f"protocols/{path.stem}" for path in (shipped.RECIPES / "protocols").glob("*.yaml"))


def find_recipe(name: str, beside: Path | None = None, but: Path | None = None) -> Path:
    """Find a recipe file.

    Args:
        name: A path, or a shipped recipe's name with or without .yaml.
        beside: A folder that is looked into first, for `extends`.
        but: A file that is not meant: the one that extends, which may have its parent's name.

    Raises:
        UserError: There is none.
    """
    candidates = [beside / name, beside / f"{name}.yaml"] if beside else [Path(name)]
    known = [*list_recipes(), *list_protocols()]
    # A shipped recipe is also found as recipes/NAME.yaml from an installed package, where no such folder lies.
    plain = name.removeprefix("recipes/").removesuffix(".yaml")
    if plain in known:
        candidates.append(shipped.RECIPES / f"{plain}.yaml")
    for path in candidates:
        if os.path.isfile(path) and not (but and path.samefile(but)):
            return path
    raise UserError.of(
        "recipe",
        f"{name}: no such file",
        "a .yaml file, or one of " + ", ".join(known),
        suggestion(plain, known, "see `workbench list recipes`"),
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
    recipe, sources, stated = Recipe(), {}, {}
    for number, (source, values) in enumerate([*layers, (SOURCE, parse_overrides(overrides, problems))]):
        _release_partners(recipe, values, source, sources)
        of_layer: dict[str, str] = {}
        fill(recipe, values, source, problems, of_layer)
        sources.update(of_layer)
        stated.update(dict.fromkeys(of_layer, number))
    keep_stated(recipe, stated)
    recipe.about.name = recipe.about.name or name
    _expand_home(recipe)
    path = layers[-1][0]
    card = None
    try:
        card = card_files.card_for(recipe)
    except UserError as error:
        problems += [dataclasses.replace(p, where=f"{path}: {p.where}") for p in error.problems]
    if not problems or card:
        problems += check_recipe(recipe, card, path)
    if problems:
        raise UserError(*problems)
    return LoadedRecipe(recipe, card, sources)


def load_data(card: str, overrides: Sequence[str]) -> LoadedRecipe:
    """Return a recipe of which only `data` is meant, for work on a dataset alone.

    Args:
        card: As `data.card`.
        overrides: `data.key=value`.

    Raises:
        UserError: Every mistake that was found.
    """
    problems: list[Problem] = []
    recipe, sources = Recipe(), {}
    values = parse_overrides(overrides, problems)
    for section in [name for name in values if name != "data"]:
        problems.append(Problem(SOURCE, section, "data.key=value", "leave out what is not about the dataset"))
        values.pop(section)
    recipe.data.card = card
    fill(recipe, values, SOURCE, problems, sources)
    _expand_home(recipe)
    try:
        made = card_files.card_for(recipe)
    except UserError as error:
        raise UserError(*problems, *error.problems) from error
    problems += check_data(recipe, made, SOURCE)
    if problems:
        raise UserError(*problems)
    return LoadedRecipe(recipe, made, sources)


def _release_partners(recipe: Recipe, values: dict[str, Any], source: str, sources: dict[str, str]) -> None:
    """Let a layer that states one of two exclusive keys replace the other one of an earlier layer."""
    for section, first, second in EXCLUSIVE:
        stated = values.get(section) if isinstance(values.get(section), dict) else {}
        for name, partner in ((first, second), (second, first)):
            is_off = stated.get(name) in NULL_WORDS or stated[name] is False
            if not is_off and partner not in stated:
                part = getattr(recipe, section)
                off = getattr(type(part), partner)  # a dataclass keeps its plain defaults as class attributes
                if getattr(part, partner) != off:
                    sources[f"{section}.{partner}"] = f"{source}, by {name}"
                setattr(part, partner, off)


_PATHS = (
    ("data", "root"),
    ("data", "prepared_root"),
    ("data", "path"),
    ("model", "weights"),
    ("track", "runs_dir"),
)


def _expand_home(recipe: Recipe) -> None:
    """Replace a leading ~ in every key that holds a path: a shell leaves it alone inside key=value."""
    for section, name in _PATHS:
        value = getattr(getattr(recipe, section), name)
        if value is not None:
            setattr(getattr(recipe, section), name, os.path.expanduser(value))
    if recipe.data.path is not None:  # a run is evaluated from anywhere
        recipe.data.path = os.path.abspath(recipe.data.path)


def _with_parents(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (source, values) from the oldest ancestor to the recipe itself."""
    chain, seen = [], []
    while True:
        if path.resolve() in seen:
            raise UserError.of(f"{path}: extends", "a circle of parents", "a chain that ends", "remove one `extends`")
        seen.append(path.resolve())
        values = shipped.read_yaml(path)
        parent = values.pop("extends", None)
        if chain:
            values.pop("about", None)  # what a parent claims and measured is not the child's
        chain.insert(0, (str(path), values))
        if parent is None:
            return chain
        if not isinstance(parent, str):
            raise UserError.of(f"{path}: extends", parent, "the name of one recipe", "name one parent")
        try:
            path = find_recipe(parent, beside=path.parent, but=path)
        except UserError as error:
            raise UserError(*(dataclasses.replace(p, where=f"{path}: extends") for p in error.problems)) from error


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain nested values, every key present."""
    return dataclasses.asdict(recipe)


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML that `load` reads back to the same recipe."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(recipe)))


def explain(loaded: LoadedRecipe) -> list[tuple[str, Any, str]]:
    """Return (dotted key, value, where it came from) for every key, in the schema's order.

    What a rule fills in is shown as it follows from the card, or as null if only the images can tell.
    """
    recipe, card = loaded.recipe, loaded.card
    rule, is_open, by_rule = recipe.train.rule, open_keys(recipe), {}
    data = recipe.data
    known = card.training_images(data.train_on, data.holdout_fraction, data.train_fraction), card.num_classes
    if None not in known:
        filled, settings = apply_rule(recipe, *known, card.native_pixels)
        by_rule = {setting.key: setting.reason for setting in settings}
        recipe = filled if by_rule else recipe
    values = to_dict(recipe)
    values["train"].update({"rule": rule, "rule_keeps": loaded.recipe.train.rule_keeps})
    rows = []
    for dotted in recipe_keys():
        section, name = dotted.split(".")
        value = values[section][name]
        source = next((s for k, s in loaded.sources.items() if k == dotted or k.startswith(f"{dotted}.")), "default")
        if dotted in by_rule:
            source = f"by rule {rule}: {by_rule[dotted]}"
        elif dotted in is_open:
            value, source = None, f"by rule {rule}, when the images are known"
        rows.append((dotted, value, source))
    return rows
