"""A stand-in for `workbench fit` that takes milliseconds: `fake_fit.py fit --recipe R key=value ... | --resume RUN`.

Its accuracy is higher the nearer `optim.lr` is to 0.01. Orders come as text in track.notes: `sleep=S` sleeps between
its four validations, `fail-above=LR` fails, `deaf` ignores SIGTERM, `nan` scores NaN, `hold` stays for a minute before
the third validation if it is not resumed and no file `go` is there.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from workbench import recipe_files

VALIDATIONS = 4


def main(words):
    if words[1] == "--resume":
        run = Path(words[2])
        recipe = recipe_files.load(str(run / "recipe.yaml")).recipe
    else:
        recipe = recipe_files.load(words[2], words[3:]).recipe
        run = Path(recipe.track.runs_dir) / recipe.about.name / f"20260101-000000-{os.getpid()}"
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(recipe_files.to_yaml(recipe))
        (run / "metrics.csv").write_text("epoch,step,val/top1\n")
    with (run.parent / "begun.txt").open("a") as file:
        file.write(f"{words[1]} {os.getpid()}\n")
    orders = dict(order.partition("=")[::2] for order in (recipe.track.notes or "").split())
    if "deaf" in orders:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if recipe.optim.lr > float(orders.get("fail-above", math.inf)):
        sys.exit("Traceback\nRuntimeError: out of memory")
    score = round(0.9 - 0.1 * abs(math.log10(recipe.optim.lr) + 2), 6)
    metrics = run / "metrics.csv"
    for step in range(metrics.read_text().count("\n"), VALIDATIONS + 1):
        time.sleep(float(orders.get("sleep", 0)))
        if "hold" in orders and step == 3 and words[1] != "--resume" and not Path("go").exists():
            time.sleep(60)
        with metrics.open("a") as file:
            file.write(f"{step - 1},{step},{score * step / VALIDATIONS}\n")
    scores = {"top1": math.nan if "nan" in orders else score, "mean_per_class": score, "n": 12, "interval95": [0, 1]}
    test = None
    if recipe.train.open_test:
        (run / "test_openings.json").write_text("[{}]")
        test = {**scores, "top1": score + 0.001 * recipe.train.seed, "openings": 1}
    kept = recipe.data.train_on == "train"
    result = {"recipe": recipe.about.name, "arch": "tiny", "dataset": "folder", "metric": "top1", "stamps": []}
    result |= {"selection": scores if kept else None, "test": test, "published": None, "steps": 24, "seconds": 0.1}
    (run / "splits.json").write_text(json.dumps({"counts": {"train": 36, "selection": 12, "test": 12}}))
    (run / "result.json").write_text(json.dumps(result))
    print(run)


main(sys.argv[1:])
