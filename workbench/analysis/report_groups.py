"""Runs that differ by seed only become one figure; runs that differ otherwise never do, and it is said by what."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench import recipe_files
from workbench.analysis.report_runs import EXPORT, RunScore, settings_of
from workbench.analysis.seeds import SeedSummary, summarise
from workbench.specs.architectures import Scaling, count_parameters
from workbench.specs.compared import resolve_backbone
from workbench.specs.errors import UserError

OVER_SEEDS = "over seeds (Student's t)"
OVER_IMAGES = "over images, one run"
_HALF_DIGIT = 0.00005
"""`about.expect` is written with four decimals."""
_NAMED = 8
_OWN = {"source": "from", "metric": "metric", "stamps": "stamps"}
IMAGES = "test ids and labels (hash)"


@dataclass(frozen=True)
class Group:
    """Runs of one recipe on the same images.

    Args:
        runs: One per seed.
        repeated: Names of runs that repeat a seed; they are not counted.
        summary: Of the dataset's own score on test, fractions.
        interval95: Of that score, or None if there is none.
        interval_of: What it is over; empty if there is none.
    """

    runs: tuple[RunScore, ...]
    repeated: tuple[str, ...]
    summary: SeedSummary
    interval95: tuple[float, float] | None
    interval_of: str

    @property
    def first(self) -> RunScore:
        """The run that stands for what all have in common."""
        return self.runs[0]

    @property
    def seeds(self) -> str:
        """The seeds, as text."""
        return " ".join("?" if run.seed is None else str(run.seed) for run in self.runs)

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader must know of any of its runs, each once."""
        return tuple(dict.fromkeys(flag for run in self.runs for flag in run.told))

    def mean_of(self, score: str) -> float | None:
        """Return the mean over seeds of `test/name` or `val/name` as a fraction, or None if a run lacks it."""
        split, _, name = score.partition("/")
        found = [(run.test if split == "test" else run.selection) or {} for run in self.runs]
        values = [scores.get(name) for scores in found]
        return None if None in values else summarise(values).mean

    @property
    def num_images(self) -> int | None:
        """Test images, or None if not known."""
        return self.first.test.get("n")


def group_runs(runs: Sequence[RunScore]) -> list[Group]:
    """Group runs whose test split was opened by everything but their seed; the first run of a seed counts.

    Runs whose seed is not known are never taken for two seeds of one recipe: each stays alone.
    """
    kinds: dict[Any, list[RunScore]] = {}
    for run in runs:
        if run.test is not None:
            kinds.setdefault(run.kind if run.seed is not None else (run.kind, run.name), []).append(run)
    return [_group(same) for same in kinds.values()]


def _group(same: list[RunScore]) -> Group:
    by_seed: dict[Any, RunScore] = {}
    repeated = []
    for run in sorted(same, key=lambda run: run.name):
        if run.seed in by_seed:
            repeated.append(run.name)
        by_seed.setdefault(run.seed, run)
    kept = tuple(by_seed[seed] for seed in sorted(by_seed, key=lambda seed: (seed is None, seed)))
    summary = summarise([run.test[run.metric] for run in kept])
    interval, over = summary.interval95, OVER_SEEDS
    if interval is None:
        stated = kept[0].test.get("interval95")
        interval, over = (tuple(stated), OVER_IMAGES) if stated else (None, "")
    return Group(kept, tuple(repeated), summary, interval, over)


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return `key -> its value in each group` for what differs between groups of one dataset and architecture."""
    told = [
        {**{_OWN[name]: getattr(g.first, name) for name in _OWN}, IMAGES: g.first.images or None, **g.first.compared}
        for g in groups
    ]
    # an export tells only the columns that were shown: what it does not tell is no difference
    names = dict.fromkeys(name for values in told for name in values)
    found = {}
    for name in names:
        values = [
            "not told" if g.first.source == EXPORT and t.get(name) is None else t.get(name)
            for g, t in zip(groups, told, strict=True)
        ]
        texts = [plain(value) for value in values]
        if len({text for text in texts if text != "not told"}) > 1:
            found[name] = texts
    return found


def plain(value: Any) -> str:
    """Return a recipe's value as a reader writes it."""
    if value is None or value in ((), "", []):
        return "none"
    if isinstance(value, tuple):
        return "; ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def expectation(group: Group) -> tuple[str, str]:
    """Hold a group's mean to what its recipe has been measured to give.

    Returns:
        (`inside`, `below`, `above`, `not comparable`, `not checked` or empty where nothing is expected; a sentence).
    """
    expect = group.first.expect
    if not isinstance(expect, Mapping) or not expect.get("metric"):
        return "", ""
    low, high, value = expect.get("low"), expect.get("high"), group.mean_of(expect["metric"])
    stated = f"expected {expect['metric']} "
    if low is None or high is None or value is None:
        return "not checked", f"{stated}cannot be checked: the recipe gives no range, or the run no such score"
    stated += f"{100 * low:.2f} to {100 * high:.2f} ({expect.get('num_seeds', 0)} seeds; {expect.get('measured', '')})"
    if group.first.parts:
        return "not comparable", f"{stated}; this is a part of the set"
    word = "below" if value < low - _HALF_DIGIT else "above" if value > high + _HALF_DIGIT else "inside"
    changed = _changed(group)
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    note = f"; {', '.join(changed[:_NAMED])}{more} differ in this run from the recipe of that name" if changed else ""
    return word, f"{stated}; measured {100 * value:.2f}: {word}{note}"


def _changed(group: Group) -> list[str]:
    """Return the keys in which a run differs from the shipped recipe of its name: `expect` was measured with that."""
    run = group.first
    if run.recipe not in recipe_files.list_recipes():
        return []
    with contextlib.suppress(UserError):
        shipped = settings_of({})
        loaded = recipe_files.to_dict(recipe_files.load(run.recipe).recipe)
        shipped |= {name: loaded[name.split(".")[0]][name.split(".")[1]] for name in shipped}
        return [name for name, value in shipped.items() if plain(run.settings.get(name)) != plain(value)]
    return []


def parameters_m(backbone: Any, num_classes: int = 0) -> float | None:
    """Count a network's parameters, millions; None if it cannot be built here.

    Args:
        backbone: What `resolve_backbone` takes or returned, or None if it is not known.
        num_classes: Outputs of a linear head; 0 for no head, as in Table 5.
    """
    if backbone is None:
        return None
    try:
        backbone = resolve_backbone(backbone) if isinstance(backbone, str | dict) else backbone
        if isinstance(backbone, Scaling):
            return sum(count_parameters(backbone, num_classes).values()) / 1e6
        import torch

        from workbench.models.backbones import build_backbone

        with torch.device("meta"):
            network = build_backbone(backbone, num_classes or 1000, "linear" if num_classes else "none")
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6
    except UserError:
        return None
