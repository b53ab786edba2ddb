"""Find finished runs on disk and read what a report needs of them; nothing of it loads torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import card_files, shipped
from workbench.analysis.report_checks import check_run
from workbench.specs.compared import backbone_from
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.specs.weights import is_file
from workbench.training import run_folder

RUN, EVALUATION, EXPORT = "run folder", "evaluation", "W&B export"
SAME_RUN = ("about.", "track.")
"""Sections that do not change what a run computes; and of the others these keys:"""
_PART = "partial:"
"""How the stamp of a part of a set begins, see `splits.check_table`."""
_OWN_WEIGHTS = ("model.safetensors", "best.safetensors")
"""Names that the weights of every run have: only their folder tells them apart."""
SAME_RUN_KEYS = {
    *("train.seed", "train.open_test", "data.root", "data.prepared_root", "data.path", "data.card"),
    *("data.download", "data.num_workers", "data.allow_partial"),
}


@dataclass(frozen=True)
class RunScore:
    """What is known of one run.

    Args:
        name: Its folder, or what W&B calls it.
        source: `RUN`, `EVALUATION` or `EXPORT`.
        recipe: The recipe's name.
        dataset: Name of the card.
        arch: Name of the architecture.
        backbone: What `resolve_backbone` takes to count its parameters, or None if that is not known.
        metric: The dataset's own score.
        selection: Scores on the selection split, fractions, or None.
        test: Scores on the test split with `n`, `interval95` and `openings` where they are known, or None.
        seed: Of the fit.
        settings: Every recipe key that changes what a run computes, dotted.
        images: Fingerprint of test ids and labels, empty if not known.
        stamps: What a reader of any figure on its set must know.
        flags: What a reader must know: test opened again, images dropped or leaked.
        expect: What its recipe has been measured to give.
    """

    name: str
    source: str
    recipe: str
    dataset: str
    arch: str
    backbone: Any
    metric: str
    selection: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    seed: int | None
    settings: Mapping[str, Any]
    images: str = ""
    stamps: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    expect: Mapping[str, Any] | None = None

    @property
    def weights(self) -> str:
        """Where training started."""
        return str(self.settings.get("model.weights") or "random")

    @property
    def parts(self) -> tuple[str, ...]:
        """The stamps that make its figures those of a part of the set."""
        return tuple(stamp for stamp in self.stamps if stamp.startswith(_PART))

    @property
    def told(self) -> tuple[str, ...]:
        """What a reader must know: the other stamps, and the flags."""
        return (*(stamp for stamp in self.stamps if stamp not in self.parts), *self.flags)

    @property
    def compared(self) -> dict[str, Any]:
        """The settings as runs are told apart by them: a weights file by its name, wherever it lies."""
        weights = self.settings.get("model.weights")
        if not isinstance(weights, str) or not is_file(weights):
            return dict(self.settings)
        path = Path(weights)
        name = f"{path.parent.name}/{path.name}" if path.name in _OWN_WEIGHTS else path.name
        return {**self.settings, "model.weights": name}

    @property
    def kind(self) -> tuple[str, ...]:
        """What must be the same in runs that are averaged."""
        settings = json.dumps(self.compared, sort_keys=True, default=str)
        return self.source, self.dataset, self.arch, self.metric, settings, self.images, json.dumps(self.stamps)


@dataclass(frozen=True)
class LeftOut:
    """Something that was found and is not in the report's numbers, and why."""

    name: str
    reason: str


def find_runs(paths: Iterable[str | Path]) -> tuple[list[RunScore], list[LeftOut]]:
    """Read every finished run at or below some folders, and outputs of `evaluate --json`.

    Args:
        paths: Run folders, folders of run folders (a sweep's too), or .json files of evaluations.

    Returns:
        The runs in the order found, each once, and what was left out.

    Raises:
        UserError: A path that is not there, or none that holds a run.
    """
    runs: dict[Path, RunScore] = {}
    left_out: list[LeftOut] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError.of("report", f"{path}: no such file or folder", "run folders", "check the path")
        if path.is_file() and path.suffix == ".json" and path.name != run_folder.RESULT:
            run = _read_evaluation(path)
            try:
                check_run(run.selection, run.test, run.metric, run.seed, run.expect)
            except (ValueError, KeyError, TypeError) as error:
                left_out.append(LeftOut(str(path), f"damaged: {type(error).__name__}: {error}"))
            else:
                runs[path.resolve()] = run
            continue
        for folder in _run_folders(path if path.is_dir() else path.parent):
            if folder.resolve() in runs:
                continue
            if not (folder / run_folder.RESULT).is_file():
                left_out.append(LeftOut(str(folder), _unfinished(folder)))
                continue
            try:
                runs[folder.resolve()] = read_run(folder)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                left_out.append(LeftOut(str(folder), f"damaged: {type(error).__name__}: {error}"))
            except UserError as error:
                left_out.append(LeftOut(str(folder), f"damaged: {error.problems[0].given}"))
    return list(runs.values()), list({entry.name: entry for entry in left_out}.values())


def _run_folders(top: Path) -> Iterable[Path]:
    """Yield the folders with a recipe at or below one, by name; nothing inside a run folder is looked at."""
    for folder, inner, files in os.walk(top):
        inner.sort()
        if run_folder.RECIPE in files:
            inner.clear()
            yield Path(folder)


def read_run(folder: Path) -> RunScore:
    """Read one finished run.

    Raises:
        UserError, KeyError, ValueError, TypeError: Its files are damaged.
    """
    result = run_folder.read_json(folder / run_folder.RESULT)
    recipe = flat(shipped.read_yaml(folder / run_folder.RECIPE))
    test = result["test"]
    check_run(result["selection"], test, result["metric"], result["seed"], recipe.get("about.expect"))
    if test:
        test = dict(test)
        openings = len(run_folder.read_json(folder / run_folder.TEST_OPENINGS) or [])
        test["openings"] = max(openings, test.get("openings", 1))
    description = run_folder.read_json(folder / "model.json") or {}
    return RunScore(
        name=str(folder),
        source=RUN,
        recipe=str(result["recipe"]),
        dataset=str(result["dataset"]),
        arch=str(result["arch"]),
        backbone=backbone_from(description["arch"]) if "arch" in description else recipe.get("model.arch"),
        metric=str(result["metric"]),
        selection=result["selection"],
        test=test,
        seed=result["seed"],
        settings=settings_of(recipe) | own_path(str(result["dataset"]), recipe) | _probed(result),
        images=_fingerprint(folder),
        stamps=tuple(map(str, result["stamps"])),
        flags=_flags(result, test, result["steps"]),
        expect=recipe.get("about.expect"),
    )


def _read_evaluation(path: Path) -> RunScore:
    """Read what `evaluate --json` printed into a file; the model tells its recipe, if it is still there."""
    try:
        found = run_folder.read_json(path)
        on_test = found["split"] == "test"
        scores = {**found["scores"], "openings": found["test_openings"] or 1}
        _ = scores[found["metric"]]
        model = Path(found["model"])
        description = run_folder.read_json(model / "model.json") or {}
        recipe = flat(description.get("provenance", {}).get("recipe") or {})
        return RunScore(
            name=str(path),
            source=EVALUATION,
            recipe=str(recipe.get("about.name") or model.name),
            dataset=found["dataset"],
            arch=description.get("arch", {}).get("name", "not known"),
            backbone=backbone_from(description["arch"]) if description else None,
            metric=found["metric"],
            selection=None if on_test else scores,
            test=scores if on_test else None,
            seed=recipe.get("train.seed"),
            settings={**(settings_of(recipe) if recipe else {}), "evaluated model": str(model)},
            images=f"{str(found.get('ids_sha256') or 'not known')[:8]}, {scores.get('n')} images",
            stamps=tuple(map(str, found["stamps"])),
            flags=("evaluated again, not a fit's own score", *_flags(found, scores if on_test else None, 1)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError.of(
            path,
            f"not an evaluation: {type(error).__name__}: {error}",
            "a run folder, or a file with what `workbench evaluate RUN --json` printed",
            "give the run's folder",
        ) from error


def _flags(result: Mapping[str, Any], test: Mapping[str, Any] | None, steps: int) -> tuple[str, ...]:
    flags = []
    if steps == 0:
        flags.append("evaluated without training")
    if test and test["openings"] > 1:
        flags.append(f"test opened {test['openings']} times")
    if result.get("dropped"):
        flags.append(f"{result['dropped']} images dropped that do not decode")
    leaked = result.get("leaked") or (test or {}).get("leaked")
    if leaked:
        flags.append(f"{leaked if isinstance(leaked, int) else len(leaked)} test images leaked from train")
    return tuple(flags)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's nested values as `section.key -> value`; deeper mappings are values."""
    return {
        f"{section}.{name}": value
        for section, inner in values.items()
        if isinstance(inner, Mapping)
        for name, value in inner.items()
    }


def _unfinished(folder: Path) -> str:
    """Return what to do about a run without a result."""
    command = folder / run_folder.COMMAND
    is_probe = command.is_file() and "probe" in command.read_text(encoding="utf-8", errors="replace").split()
    return "not finished: probe again" if is_probe else "not finished: go on with `fit --resume`"


def _probed(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a probe from a fit, and from a probe of other features."""
    return {"probe": str(result["probe"]["stage"])} if "probe" in result else {}


def settings_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat recipe keys that change what a run computes; a key younger than the run has its default."""
    filled = {**flat(dataclasses.asdict(Recipe())), **recipe}
    return {
        name: value for name, value in filled.items() if not name.startswith(SAME_RUN) and name not in SAME_RUN_KEYS
    }


def own_path(dataset: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data.path` where it says which images there are: for every card that does not count its set's images.

    Two folders can hold other pictures under the same names.

    Args:
        dataset: Name of the card.
        recipe: Flat.
    """
    try:
        is_counted = card_files.load_card(dataset).sizes.test is not None
    except UserError:
        is_counted = False
    path = recipe.get("data.path")
    return {} if is_counted or not path else {"data.path": path}


def _fingerprint(folder: Path) -> str:
    """Return a short hash of the test images' ids and all labels, so that only the same images are averaged."""
    splits = run_folder.read_json(folder / run_folder.SPLITS) or {}
    told = json.dumps([sorted(splits.get("test", [])), splits.get("labels_sha256", "")])
    return hashlib.sha256(told.encode()).hexdigest()[:8]
