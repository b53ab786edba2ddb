"""Measured runtimes: what is tried, what is taken, what fits in memory, what is kept; and that the fit stays itself."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from workbench import fit, load_recipe
from workbench.specs.errors import UserError
from workbench.training import machine, runtime, runtime_trial
from workbench.training.runtime import Measured, Question, Runtime, choose, search, told

STATED = Runtime(True, "bf16", False, 64)


def question(steps=1000, compiles=1, sizes=(), stated=STATED, precisions=("bf16", "fp32")):
    return Question(stated, precisions, tuple(sizes), steps, compiles)


def times(seconds, asked=None):
    """Return a fake measure: seconds per step by a function of the candidate, None where that says None."""

    def measure(candidate, give_up):
        if asked is not None:
            asked.append((candidate, give_up))
        took = seconds(candidate)
        return took and Measured(candidate, took, 100.0 if candidate.compiled else 0.0)

    return measure


def test_the_fastest_layout_and_precision_are_taken_and_ties_go_to_the_recipe():
    by_name = {(True, "bf16"): 1.0, (False, "bf16"): 0.5, (True, "fp32"): 2.0, (False, "fp32"): 3.0}
    found = search(question(), times(lambda c: by_name[c.channels_last, c.precision]))
    assert found[0].runtime == STATED
    assert len(found) == 4
    assert choose(found, question()).runtime == dataclasses.replace(STATED, channels_last=False)
    by_name[False, "bf16"] = 0.98
    found = search(question(), times(lambda c: by_name[c.channels_last, c.precision]))
    assert choose(found, question()).runtime == STATED


def test_a_stated_precision_and_micro_batch_are_kept():
    asked = []
    search(question(precisions=("fp32",), stated=dataclasses.replace(STATED, precision="fp32")), times(len_1, asked))
    assert {(c.precision, c.micro_batch_size) for c, _ in asked} == {("fp32", 64)}


def len_1(candidate):
    return 1.0


def test_later_candidates_are_told_when_to_give_up():
    asked = []
    search(question(steps=10), times(lambda c: 2.0 if c == STATED else 4.0, asked))
    assert [bound for _, bound in asked] == [None] + 3 * [pytest.approx(2.0 * runtime.WORSE)]


def test_micro_batches_shrink_only_while_that_is_faster():
    asked = []
    seconds = {64: 1.0, 32: 0.8, 16: 0.9, 8: 0.1}
    found = search(question(sizes=(32, 16, 8)), times(lambda c: seconds[c.micro_batch_size], asked))
    assert choose(found, question()).runtime.micro_batch_size == 32
    assert 8 not in {c.micro_batch_size for c, _ in asked}
    assert runtime.smaller_sizes(256, 256) == (128, 64, 32)
    assert runtime.smaller_sizes(96, 48) == (24,)
    assert runtime.smaller_sizes(32, 16) == ()


@pytest.mark.parametrize(("steps", "parts", "compiled"), [(4000, 1, True), (4000, 25, False), (1000, 1, False)])
def test_compiling_must_repay_its_time_over_the_planned_steps(steps, parts, compiled):
    asked = []
    plan = question(steps=steps, compiles=parts)  # 1 s a step, compiled 0.5 s and 100 s of compiling each part
    found = search(plan, times(lambda c: 0.5 if c.compiled else 1.0, asked))
    assert any(c.compiled for c, _ in asked) == (steps >= runtime.COMPILE_FROM_SECONDS)
    chosen = choose(found, plan)
    assert chosen.runtime.compiled == compiled
    line = told(chosen, found, plan, 256)
    assert "\n" not in line
    assert "of 256" in line
    assert ("compiling takes" in line) == (steps == 4000)


def test_what_does_not_run_here_is_passed_over_and_nothing_at_all_is_an_error():
    found = search(question(), times(lambda c: None if c.precision == "fp32" else 1.0))
    assert {one.runtime.precision for one in found} == {"bf16"}
    with pytest.raises(UserError, match="does not fit in memory") as error:
        search(question(), times(lambda c: None))
    assert "train.micro_batch_size=auto" in str(error.value)


def test_measurements_are_kept_by_key_and_damaged_ones_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    key = {"arch": {"width": 2}, "torch": "2"}
    path = runtime.cache_file(key)
    assert tmp_path in path.parents
    assert path != runtime.cache_file({**key, "torch": "3"})
    assert runtime.read_cache(path, key) == []
    measured = [Measured(STATED, 0.5), Measured(dataclasses.replace(STATED, compiled=True), 0.25, 60.0)]
    runtime.write_cache(path, key, measured)
    assert runtime.read_cache(path, key) == measured
    assert runtime.read_cache(path, {"arch": "b7"}) == []
    asked = []
    search(question(steps=10**6), times(len_1, asked), measured)
    assert STATED not in {c for c, _ in asked}
    for damage in ("{", "[]", '{"key": 1}', json.dumps({"key": key, "measured": [{"runtime": {}}]})):
        path.write_text(damage)
        assert runtime.read_cache(path, key) == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file: no folder can be made in it
    runtime.write_cache(runtime.cache_file(key), key, measured)


def test_what_was_measured_for_other_settings_does_not_overrule_stated_ones():
    faster = [Measured(dataclasses.replace(STATED, precision="fp32", micro_batch_size=size), 0.1) for size in (64, 16)]
    asked = []
    plan = question(precisions=("bf16",))
    found = search(plan, times(len_1, asked), faster)
    assert {(one.runtime.precision, one.runtime.micro_batch_size) for one in found} == {("bf16", 64)}
    assert choose(found, plan).runtime == STATED
    assert [bound for _, bound in asked] == [None, pytest.approx(runtime.WORSE)]  # nor do they set the bound


# ---- memory --------------------------------------------------------------------------------------------------


def step_that_holds(most, tried):
    def fits(size):
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} GiB")
        return True

    return fits


@pytest.mark.parametrize("most", [1, 3, 8, 60, 255, 256, 10_000])
def test_the_largest_divisor_that_fits_is_found_in_few_tries(most):
    for batch in (256, 30, 7, 1):
        tried = []
        sizes = runtime.divisors(batch)
        assert runtime_trial.largest_that_fits(step_that_holds(most, tried), sizes) == max(
            size for size in range(1, batch + 1) if batch % size == 0 and size <= most
        )
        assert len(tried) <= len(sizes).bit_length() + 1
        assert tried[0] == batch


def test_no_room_at_all_and_other_errors_are_told_apart():
    with pytest.raises(UserError, match="not even 1 at a time fits") as error:
        runtime_trial.largest_that_fits(step_that_holds(0, []), (4, 2, 1))
    assert "model.recompute=true" in str(error.value)
    with pytest.raises(RuntimeError, match="shapes"):
        runtime_trial.largest_that_fits(lambda size: (_ for _ in ()).throw(RuntimeError("shapes")), (4, 2, 1))


RANK = """
import sys, torch
from torch import distributed
from workbench.training.runtime_trial import largest_that_fits
rank, most = int(sys.argv[1]), int(sys.argv[3])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
def fits(size):
    if size > most:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return True
print(largest_that_fits(fits, (64, 32, 16, 8, 4, 2, 1)))
"""


@pytest.mark.slow
def test_ranks_agree_on_what_fits_on_all(tmp_path):
    base = [sys.executable, "-c", RANK]
    commands = [[*base, rank, str(tmp_path / "meet"), most] for rank, most in (("0", "50"), ("1", "9"))]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    ends = [process.communicate(timeout=180) for process in running]
    assert [out.strip() for out, _ in ends] == ["8", "8"], ends


# ---- whole fits ----------------------------------------------------------------------------------------------


def run(path, *overrides, resume=None):
    return fit(load_recipe(str(path), ["train.total_epochs=1", *overrides]).recipe, resume=resume)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_trial, "STEPS", 2)
    return tmp_path / "cache"


def test_auto_writes_what_it_chose_and_leaves_the_fit_as_the_same_settings_stated(tiny_recipe, cache):
    auto = run(tiny_recipe, "train.runtime=auto")
    kept = json.loads((auto.folder / "runtime.json").read_text())
    assert {one["runtime"]["channels_last"] for one in kept["measured"]} == {True, False}
    assert kept["line"].startswith("runtime: ")
    assert kept["line"] in (auto.folder / "log.txt").read_text()
    assert "runtime: auto" in (auto.folder / "recipe.yaml").read_text()
    assert len(list(cache.rglob("*.json"))) == 1
    chosen = kept["runtime"]
    stated = run(tiny_recipe, f"train.channels_last={str(chosen['channels_last']).lower()}")
    a, b = (load_file(outcome.folder / "model.safetensors") for outcome in (auto, stated))
    assert all(torch.equal(a[name], b[name]) for name in a)
    again = run(tiny_recipe, "train.runtime=auto")
    assert json.loads((again.folder / "runtime.json").read_text())["from_cache"] == 2


def test_a_stated_precision_and_micro_batch_win_over_kept_measurements(tiny_recipe, cache, monkeypatch):
    def measured(subject, one, give_up):
        return Measured(one, one.micro_batch_size / (2 if one.precision == "fp32" else 1))

    monkeypatch.setattr(runtime_trial, "measure", measured)
    monkeypatch.setattr(machine, "precisions", lambda device: ("fp32", "bf16"))
    monkeypatch.setattr(runtime, "FEWEST_IMAGES", 2)

    def chosen(*overrides):
        kept = json.loads((run(tiny_recipe, "train.runtime=auto", *overrides).folder / "runtime.json").read_text())
        return kept["runtime"]["precision"], kept["runtime"]["micro_batch_size"], kept["from_cache"]

    assert chosen() == ("fp32", 2, 0)
    assert chosen("train.precision=bf16", "train.micro_batch_size=4") == ("bf16", 4, 0)
    assert chosen() == ("fp32", 2, 6 + 2)  # what answered another question was kept


def test_a_run_goes_on_with_what_it_chose(tiny_recipe, cache, monkeypatch):
    first = run(tiny_recipe, "train.runtime=auto", "train.micro_batch_size=4")
    (first.folder / "result.json").unlink()
    (first.folder / "checkpoints" / "last.ckpt").unlink()
    path = first.folder / "runtime.json"
    kept = json.loads(path.read_text())
    assert kept["runtime"]["micro_batch_size"] == 4
    kept["runtime"]["channels_last"] = not kept["runtime"]["channels_last"]
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(runtime, "search", None)  # whoever measures again fails
    recipe = load_recipe(str(first.folder / "recipe.yaml")).recipe
    outcome = fit(recipe, resume=first.folder)
    stored = json.loads((outcome.folder / "model.json").read_text())["provenance"]["recipe"]["train"]
    assert stored["channels_last"] == kept["runtime"]["channels_last"]
    assert stored["runtime"] == "stated"


def test_micro_batch_auto_takes_all_that_memory_holds(tiny_recipe, cache, monkeypatch):
    whole = run(tiny_recipe, "train.micro_batch_size=auto")
    assert json.loads((whole.folder / "runtime.json").read_text())["runtime"]["micro_batch_size"] == 8
    assert not list(cache.rglob("*.json"))
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 12 * 2**20)
    cut = run(tiny_recipe, "train.micro_batch_size=auto")
    kept = json.loads((cut.folder / "runtime.json").read_text())
    assert kept["runtime"]["micro_batch_size"] in (1, 2, 4)
    assert "the largest that fits" in kept["line"]
    assert cut.result["steps"] == whole.result["steps"]
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 2**16)
    with pytest.raises(UserError, match="not even 1 at a time"):
        run(tiny_recipe, "train.micro_batch_size=auto")


def test_a_candidate_without_memory_or_compiler_is_none_and_other_errors_are_ours(monkeypatch):
    lines = []
    monkeypatch.setattr(runtime_trial.log, "info", lambda text, *parts: lines.append(text % parts))
    subject = runtime_trial.Subject(None, (), None, 64, 32, torch.device("cpu"))

    def failing(error):
        monkeypatch.setattr(runtime_trial, "_Step", lambda *_: (_ for _ in ()).throw(error))

    failing(torch.OutOfMemoryError("CUDA out of memory"))
    assert runtime_trial.measure(subject, STATED, None) is None
    failing(RuntimeError("no compiler\nand more"))
    assert runtime_trial.measure(subject, dataclasses.replace(STATED, compiled=True), None) is None
    assert ["memory" in lines[0], lines[1].endswith("does not compile: no compiler")] == [True, True]
    with pytest.raises(RuntimeError, match="no compiler"):
        runtime_trial.measure(subject, STATED, None)


def test_compile_without_a_compiler_is_refused_in_words(tiny_recipe, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="clang") as error:
        run(tiny_recipe, "train.compile=true")
    assert "train.compile=false" in str(error.value)


def test_compile_trains_by_the_compiled_network_and_evaluates_without(tiny_recipe, monkeypatch):
    built = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: built.append(self) or compiled(self))
    calls = []

    def compiled(net):
        net._compiled_call_impl = lambda *inputs: (calls.append(net.training), net._call_impl(*inputs))[1]

    outcome = run(tiny_recipe, "train.compile=true")
    assert len(built) == 1
    assert calls == [True] * outcome.result["steps"]


@pytest.mark.parametrize("given", ["0", "4.5", "fast", "true"])
def test_micro_batch_mistakes_are_told(tiny_recipe, given):
    with pytest.raises(UserError, match="or auto"):
        load_recipe(str(tiny_recipe), [f"train.micro_batch_size={given}"])
