"""Finished run folders written by hand: what `report` and `compare` read, without a fit."""

import csv
import dataclasses
import json

from workbench import recipe_files
from workbench.specs.recipe import Recipe


def write_run(folder, dataset="flowers", seed=0, score=0.97, metric=None, arch="b0", **more):
    """Write a finished run.

    Args:
        folder: Where to; made.
        dataset: Name of its card.
        seed: Of the fit.
        score: Its own score on test, or on the selection split with `test=False`.
        metric: Its own score's name; the card's by default.
        arch: Name of an EfficientNet.
        more: `changes` (dotted recipe key -> value), `expect`, `stamps`, `test`, `result` (further values), `openings`,
            `ids` (test ids), `labels` (their hash), `name` (the recipe's), `interval`, `steps`.
    """
    from workbench.card_files import load_card

    metric = metric or load_card(dataset).metric
    recipe = dataclasses.asdict(Recipe())
    recipe["about"] |= {"name": more.get("name", f"{dataset}_{arch}"), "expect": more.get("expect")}
    recipe["data"]["card"], recipe["model"]["arch"], recipe["train"]["seed"] = dataset, arch, seed
    for key, value in more.get("changes", {}).items():
        section, name = key.split(".")
        recipe[section][name] = value
    scores = {"loss": 0.5, "top1": score, "top5": 0.99, "mean_per_class": score, metric: score, "n": 1000}
    scores["interval95"] = more.get("interval", [score - 0.01, score + 0.01])
    tested = more.get("test", True)
    result = {
        **{"recipe": recipe["about"]["name"], "arch": arch, "weights": recipe["model"]["weights"], "dataset": dataset},
        **{"metric": metric, "selection": None if tested else scores | {"step": 10}, "published": None},
        "test": {**scores, "openings": 1} if tested else None,
        **{"stamps": more.get("stamps", []), "dropped": 0, "steps": more.get("steps", 10), "seed": seed},
        **more.get("result", {}),
    }
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_files.to_yaml(_filled(recipe)))
    (folder / "result.json").write_text(json.dumps(result))
    splits = {"test": more.get("ids", ["a", "b"]), "labels_sha256": more.get("labels", "0")}
    (folder / "splits.json").write_text(json.dumps(splits))
    (folder / "test_openings.json").write_text(json.dumps([{}] * more.get("openings", 1)))
    return folder


def _filled(recipe):
    """Turn nested values into a recipe without checking them."""
    made = Recipe()
    for section, values in recipe.items():
        for name, value in values.items():
            setattr(getattr(made, section), name, value)
    return made


def write_predictions(folder, rows):
    """Write predictions.csv from (id, class, predicted, confidence, probability of the class, rank)."""
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "class", "predicted", "confidence", "class_probability", "class_rank"))
        writer.writerows(rows)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
