"""Kill fits (SIGKILL) at random moments, go on with each, and compare what is left with the undisturbed fit's, by bits.

python benchmarks/kills.py --kills 100     # several variants of a tiny recipe in turn, on a CPU
python benchmarks/kills.py --quick         # five kills: nothing is kept

Moments are uniform over the undisturbed fit's wall time, from the call of `fit` to its return; about a third of the
runs are killed a second time while they go on. Compared are weights, average, optimizer, rows, predictions, logits,
scores and the list of files; left out are times and rates, and how often test was opened, for a kill after that opens
it again. A row per variant goes to results/kills.csv; exit code 1 if anything differed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measured
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from workbench import fit, load_recipe
from workbench.specs.recipe import Recipe
from workbench.training import continuing, machine, run_folder

BASE = """
data: {card: folder, path: PATH, root: ROOT, batch_size: 8, resolution: 32, eval_resize: 32, num_workers: 0,
  holdout_fraction: 0.25, prepare: "off"}
model: {arch: tiny, bn_momentum: 0.1}
augment: {min_crop_area: 0.5}
optim: {name: adamw, lr: 0.003, weight_decay: 0.01}
train: {total_epochs: 4, device: cpu, num_validations: 4, checkpoint_minutes: 0.002}
track: {wandb: "off", log_every_steps: 3}
"""
VARIANTS = {
    "plain": (),
    "phases, average, accumulation": (
        "train.phases=[{train: head, epochs: 1}, {train: stage5, steps: 5}, {train: all}]",
        "train.ema_half_life_fraction=0.2",
        "train.micro_batch_size=4",
        "train.num_validations=2",
        "optim.name=sgd",
    ),
    "head on embeddings": (
        "train.phases=[{train: head, epochs: 2}, {train: stage5}]",
        "augment.crop=center",
        "train.precision=fp32",
        "model.dropout=0.2",
        "train.checkpoint_minutes=0",
    ),
    "mixup, drop path, a worker": (
        "augment.mixup_alpha=0.4",
        "model.drop_path=0.2",
        "data.num_workers=1",
        "train.pick=last",
        "train.checkpoint_minutes=10",
    ),
    "recompute, kept pixels": (
        "model.recompute=true",
        "data.prepare=raw",
        "optim.name=rmsprop_tf",
        "train.total_steps=14",
        "train.total_epochs=null",
    ),
}
TIMES = {"images_per_second", "train_seconds", "seconds", "elapsed", "peak_memory_bytes"}
UNLIKE = {"loops", "epoch", "hyper_parameters"}  # Lightning's counts: a fit that goes on does not use them


def paint(folder: Path, count: int = 16) -> None:
    """Write a folder of three classes that differ by colour."""
    for hue, name in enumerate(("red", "green", "blue")):
        for split, images in (("train", count), ("test", count // 2)):
            for number in range(images):
                noise = np.random.default_rng((hue, number, images)).integers(0, 90, (36, 40, 3))
                noise[..., hue] += 60
                path = folder / split / name / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.astype(np.uint8)).save(path)


def forked(work: Callable[[], object], kill_after: float | None, log: Path) -> tuple[int, float]:
    """Run `work` in a process of its own and kill that after some seconds.

    Returns:
        0, or minus the signal, or 1 with the traceback in `log`; and the seconds it ran.
    """
    began = time.perf_counter()
    child = os.fork()
    if not child:
        code = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            work()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - began


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of nested dicts and lists, without times and without counts of test openings."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        if key not in TIMES:
            yield from leaves(value, f"{name}/{key}")
    if not isinstance(content, dict | list):
        yield name, content


def differing(first: Any, second: Any) -> list[str]:
    """Return the places at which two nested values differ in a bit."""
    a, b = dict(leaves(first)), dict(leaves(second))
    both = [name for name in a if name in b]
    unlike = [name for name in both if not _is_same(a[name], b[name])]
    return sorted(a.keys() ^ b.keys()) + unlike


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and (a == b or a != a and b != b)


def differences(undisturbed: Path, resumed: Path) -> list[str]:
    """Compare two finished run folders; return what differs, as "file: place"."""
    files = [{p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()} for run in (undisturbed, resumed)]
    found = [f"{name}: there or not" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        a, b = undisturbed / name, resumed / name
        if name.endswith(".safetensors"):
            places = differing(load_file(a), load_file(b))
        elif name.endswith(".ckpt"):
            places = differing(*({k: v for k, v in read_checkpoint(p).items() if k not in UNLIKE} for p in (a, b)))
        elif name in ("result.json", "model.json"):
            places = differing(*(told(path) for path in (a, b)))
        elif name in ("metrics.csv", "predictions.csv", "splits.json"):
            places = [] if a.read_bytes() == b.read_bytes() else ["bytes"]
        else:
            continue
        found += [f"{name}: {place}" for place in places]
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's values."""
    return torch.load(path, weights_only=True)


def told(path: Path) -> dict[str, Any]:
    """Read a run's JSON without what says when and how often it ran."""
    content = json.loads(path.read_text())
    for name in ("provenance", "tracking"):
        content.pop(name, None)
    if content.get("test"):
        content["test"].pop("openings", None)
    return content


def reached(folder: Path | None) -> str:
    """Return how far a killed run had come, by what it left."""
    if folder is None:
        return "before anything was written"
    if (folder / run_folder.TEST_OPENINGS).is_file():
        return "after test was opened"
    step = continuing.last_step(folder / run_folder.CHECKPOINTS)
    return "before the first checkpoint" if step is None else "after a checkpoint"


class Victim:
    """One variant of the recipe, its undisturbed run and the kills of its like."""

    def __init__(self, name: str, recipe: Path, work: Path):
        self.name, self.recipe, self.work = name, recipe, work
        self.trials, self.reached, self.again, self.differing = 0, Counter(), 0, 0
        self.undisturbed, self.seconds = self.finish(work / "undisturbed")
        self.undisturbed, self.seconds = self.finish(work / "once more")  # the set is prepared by now

    def loaded(self, runs: Path) -> Recipe:
        """Return the recipe with a place for its runs."""
        return load_recipe(str(self.recipe), [*VARIANTS[self.name], f"track.runs_dir={runs}"]).recipe

    def run(self, runs: Path, kill_after: float | None) -> tuple[int, float]:
        """Fit in `runs`, or go on with what is there."""
        folder, log = folder_in(runs), self.work / "said.txt"
        recipe = load_recipe(str(folder / run_folder.RECIPE)).recipe if folder else self.loaded(runs)
        return forked(lambda: fit(recipe, resume=folder), kill_after, log)

    def finish(self, runs: Path) -> tuple[Path, float]:
        """Let it end, and return the run folder and the seconds that took."""
        code, seconds = self.run(runs, None)
        if code:
            raise RuntimeError(f"{self.name}: exit code {code}, see {self.work / 'said.txt'}")
        return folder_in(runs), seconds

    def kill(self, draw: random.Random) -> list[str]:
        """Kill one run, perhaps twice, let it end and return what differs from the undisturbed one."""
        self.trials += 1
        runs = self.work / str(self.trials)
        code = 0
        while not code:  # a run that was faster than the kill is none
            code, _ = self.run(runs, draw.uniform(0, self.seconds))
            if not code:
                runs = self.work / f"{self.trials}-{draw.getrandbits(32):x}"
        self.reached[reached(folder_in(runs))] += 1
        if draw.random() < 1 / 3:
            code, _ = self.run(runs, draw.uniform(0, self.seconds))
            self.again += code == -signal.SIGKILL
        done = folder_in(runs)
        if done is None or not (done / run_folder.RESULT).is_file():
            done, _ = self.finish(runs)
        found = differences(self.undisturbed, done)
        self.differing += bool(found)
        return found


def folder_in(runs: Path) -> Path | None:
    """Return the run that has begun in a folder of runs."""
    found = [path.parent for path in runs.glob(f"*/*/{run_folder.RECIPE}")]
    return found[0] if found else None


@dataclasses.dataclass
class Row:
    """What is kept of a variant."""

    variant: str
    kills: int
    killed_again: int
    before_first_checkpoint: int
    after_a_checkpoint: int
    after_test_was_opened: int
    differing: int
    undisturbed_seconds: float


def main() -> None:
    """Kill, go on, compare, and keep a row per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="five kills; prints only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # and nothing is computed before a fork
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        paint(base / "colours")
        recipe = base / "tiny.yaml"
        recipe.write_text(BASE.replace("PATH", str(base / "colours")).replace("ROOT", str(base)))
        victims = [Victim(name, recipe, _folder(base / f"{i}")) for i, name in enumerate(VARIANTS)]
        for number in range(5 if arguments.quick else arguments.kills):
            victim = victims[number % len(victims)]
            if found := victim.kill(draw):
                print(f"kill {number}, {victim.name}: {len(found)} differ, such as {'; '.join(found[:6])}", flush=True)
    for victim in victims:
        counts = victim.reached
        early = counts["before anything was written"] + counts["before the first checkpoint"]
        late = counts["after a checkpoint"], counts["after test was opened"]
        row = Row(victim.name, victim.trials, victim.again, early, *late, victim.differing, round(victim.seconds, 2))
        print(*(f"{key}={value}" for key, value in dataclasses.asdict(row).items()))
        if not arguments.quick:
            measured.append("kills.csv", dataclasses.asdict(row), run_folder.command_line(), machine.describe())
    sys.exit(any(victim.differing for victim in victims))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


if __name__ == "__main__":
    main()
