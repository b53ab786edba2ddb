"""Sweep files: every mistake is found, at once, before any trial; and the shipped ones are right for both runners."""

import shlex
import subprocess
import sys

import pytest
import yaml

from workbench import shipped
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_train import Phase
from workbench.sweeps.commands import settings, trial_command
from workbench.sweeps.parameters import Parameter, grid, read_parameter
from workbench.sweeps.sweep_files import read_sweep

GOOD = """
program: workbench/__main__.py
command: ["${env}", "${interpreter}", -m, workbench, fit, --recipe, RECIPE, "${args_no_hyphens}"]
method: grid
metric: {name: val/top1, goal: maximize}
parameters:
  optim.lr: {values: [0.1, 0.01]}
  optim.clip_norm: {values: [None, 5.0]}
  train.open_test: {value: false}
"""


@pytest.fixture
def write(tmp_path, tiny_recipe):
    def make(text=GOOD, **replaced):
        content = yaml.safe_load(text.replace("RECIPE", str(tiny_recipe)))
        for key, value in replaced.items():
            if key == "parameters":
                content["parameters"] |= value
            elif value is None:
                del content[key]
            else:
                content[key] = value
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return make


def problems_of(path, *overrides):
    with pytest.raises(UserError) as caught:
        read_sweep(path, overrides)
    return caught.value.problems


def test_a_good_file_reads_as_it_says(write):
    sweep = read_sweep(write())
    assert (sweep.name, sweep.method, sweep.metric, sweep.run_cap) == ("sweep", "grid", "val/top1", None)
    assert [p.name for p in sweep.parameters] == ["optim.clip_norm", "optim.lr", "train.open_test"]
    assert sweep.base["optim"]["clip_norm"] is None, "the word None is null"


def test_a_grid_is_in_the_order_of_wandb():
    # the order of wandb/sweeps' grid search: names sorted, itertools.product; equal values once
    parameters = [Parameter("b", (1, 2, 2.0)), Parameter("a", ("x", "y")), Parameter("c", (True,))]
    assert [tuple(row.values()) for row in grid(parameters)] == [
        ("x", 1, True),
        ("x", 2, True),
        ("y", 1, True),
        ("y", 2, True),
    ]
    assert grid([Parameter("a", low=1, high=3, step=1)]) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_command_is_expanded_as_the_agent_does(monkeypatch):
    monkeypatch.setenv("SETS", "/sets")
    command = ["${env}", "${interpreter}", "${program}", "fit", "--recipe", "R", "data.root=${envvar:SETS}"]
    values = {"optim.lr": 1e-05, "train.open_test": False, "optim.clip_norm": None, "optim.decay_exclude": ["bias"]}
    texts = settings(values)
    assert texts == ["optim.lr=1e-05", "train.open_test=False", "optim.clip_norm=None", "optim.decay_exclude=['bias']"]
    made = trial_command([*command, "${args}"], "main.py", texts, ["x=1"])
    begin = [sys.executable, "main.py", "fit", "--recipe", "R", "data.root=/sets"]
    assert made == [*begin, *(f"--{text}" for text in texts), "x=1"]
    assert trial_command([*command, "${args_no_hyphens}"], "main.py", texts, []) == [*begin, *texts]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"value": 3}, Parameter("k", (3,))),
        ({"value": {"phi": 1.5}}, Parameter("k", ({"phi": 1.5},))),
        ({"min": 1, "max": 4}, Parameter("k", low=1, high=4, step=1)),
        ({"min": 1.0, "max": 4}, Parameter("k", low=1.0, high=4)),
        ({"distribution": "log_uniform_values", "min": 0.1, "max": 1}, Parameter("k", low=0.1, high=1, log=True)),
        ({"distribution": "q_uniform", "min": 9, "max": 33, "q": 8}, Parameter("k", low=8, high=32, step=8)),
    ],
)
def test_ranges_are_read_as_wandb_reads_them(block, expected):
    assert read_parameter("k", block, "f") == expected


def test_log_uniform_takes_exponents_of_e():
    made = read_parameter("k", {"distribution": "log_uniform", "min": -2, "max": 0}, "f")
    assert (made.low, made.high) == pytest.approx((0.1353353, 1.0))


@pytest.mark.parametrize(
    ("block", "given", "remedy"),
    [
        ({"parameters": {"lr": {"value": 1}}}, "a nested block", "flat, with a dotted name: k.lr"),
        ({"lr": {"values": [1]}, "wd": {"value": 2}}, "a nested block", "k.lr, k.wd"),
        (0.1, "0.1", "write k: {value: 0.1}"),
        ({"distribution": "log_uniform_value", "min": 1, "max": 2}, "log_uniform_value", "'log_uniform_values'"),
        ({"distribution": "normal", "mu": 0}, "normal", "use uniform"),
        ({"values": [1, 2], "probabilities": [0.1, 0.9]}, "categorical_w_probabilities", "leave the probabilities out"),
        ({"min": 1}, "min for uniform", "max and min"),
        ({"values": []}, "[]", "list the values"),
        ({"min": "1e-4", "max": 1}, "'1e-4'", "write 0.0001: to W&B's YAML it is text"),
        ({"min": 2.0, "max": 1}, "min 2, max 1", "correct the range"),
        ({"vlaues": [1]}, "vlaues", "did you mean 'values'?"),
        ({"values": [1], "min": 3}, "min, values for categorical", "values only"),
    ],
)
def test_a_wrong_parameter_says_what_to_write(block, given, remedy):
    with pytest.raises(UserError) as caught:
        read_parameter("k", block, "sweep.yaml: parameters.k")
    (problem,) = caught.value.problems
    assert problem.where.startswith("sweep.yaml: parameters.k")
    assert given in problem.given
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("change", "where", "given", "remedy"),
    [
        ({"method": "bayesian"}, "method", "bayesian", "did you mean 'bayes'?"),
        ({"method": "random"}, "run_cap", "nothing", "run_cap: 20"),
        ({"program": None}, "program", "nothing", "workbench/__main__.py"),
        ({"command": None}, "command", "nothing", "${args_no_hyphens}"),
        ({"command": ["python", "train.py", "${args}"]}, "command", "python train.py", "--recipe, NAME"),
        ({"command": ["fit", "--recipe", "${args_no_hyphens}"]}, "command", "fit", "name the recipe"),
        ({"command": ["fit", "--recipe", "tiny", "${args_json}"]}, "command", "${args_json}", "replace it"),
        ({"command": ["fit", "--recipe", "quickstrat", "${args}"]}, "recipe", "no such file", "quickstart"),
        ({"metric": None}, "metric", "nothing", "name: val/top1"),
        ({"metric": {"name": "val/top1"}}, "metric.goal", "takes for minimize", "goal: maximize"),
        ({"metric": {"name": "val/loss", "goal": "maximize"}}, "metric.goal", "maximize", "goal: minimize"),
        ({"metric": {"name": "test/top1", "goal": "maximize"}}, "metric.name", "test/top1", "opened once"),
        ({"metric": {"name": "val/accuracy"}}, "metric.name", "val/accuracy", "one of them"),
        (
            {"metric": {"name": "val/mean_average_precision", "goal": "maximize"}},
            "metric.name",
            "which this recipe never logs",
            "a metric of this set",
        ),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate", "envelope", "type: hyperband"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "early_terminate", "max_iter", "two forms"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.5}},
            "early_terminate.eta",
            "1.5",
            "round",
        ),
        ({"run_cap": 0}, "run_cap", "0", "how many trials"),
        ({"scheduler": {"engine": "ax"}}, "scheduler", "scheduler", "remove it"),
        ({"parameters": {"optim.lr": {"min": 0.1, "max": 1.0}}}, "parameters.optim.lr", "0.1 to 1.0", "list them"),
        ({"parameters": {"optim.lrr": {"value": 1}}}, "parameters.optim.lrr", "1", "'optim.lr'"),
        ({"parameters": {"optim.lr": {"values": [0.1, -1]}}}, "parameters.optim.lr", "-1", "correct"),
        ({"parameters": {"optim.lr": {"values": ["None", 1]}}}, "parameters.optim.lr", "None", "correct"),
        ({"parameters": {"train.open_test": {"value": True}}}, "train.open_test", "true", "final runs open test"),
        ({"parameters": {"data.train_on": {"value": "train+selection"}}}, "data.train_on", "selection", "train"),
    ],
)
def test_a_wrong_file_is_refused_before_any_trial(write, change, where, given, remedy):
    found = problems_of(write(**change))
    matching = [p for p in found if where in p.where and given in p.given and remedy in p.remedy]
    assert matching, "\n".join(map(str, found))


def test_a_missing_open_test_is_refused(write):
    text = GOOD.replace("  train.open_test: {value: false}\n", "")
    (problem,) = problems_of(write(text))
    assert "train.open_test: {value: false}" in problem.remedy
    assert read_sweep(write(text), ["train.open_test=false"]).base["train"]["open_test"] is False


def test_all_mistakes_come_at_once(write):
    wrong = {"optim": {"parameters": {"lr": {"value": 1}}}, "optim.lr": {"distribution": "beta"}}
    found = problems_of(write(method="gird", metric={"name": "test/top1"}, run_cap="many", parameters=wrong))
    places = [problem.where.rpartition(": ")[2] for problem in found]
    assert places == ["method", "parameters.optim.lr", "parameters.optim", "metric.name", "run_cap"]


def test_contradictions_between_values_are_found_in_the_whole_grid(write):
    values = {"data.batch_size": {"values": [8, 12]}, "train.micro_batch_size": {"values": [4, 8]}}
    (problem,) = problems_of(write(parameters=values))  # 12 and 8 do not divide, the others do
    assert "train.micro_batch_size" in problem.where
    assert "data.batch_size=12" in problem.allowed


def test_a_searched_key_cannot_be_typed_beside_the_file(write):
    (problem,) = problems_of(write(), "optim.lr=0.5")
    assert "optim.lr" in problem.where


@pytest.mark.parametrize("text", ["method: grid\nmethod: bayes\n", "- a\n", "method: [\n", ""])
def test_what_is_no_sweep_file_says_so(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    (problem,) = problems_of(str(path))
    assert str(path) in problem.where


def test_an_unknown_name_lists_the_shipped_ones():
    (problem,) = problems_of("kornblit_grid")
    assert "kornblith_grid" in problem.remedy


SHIPPED = sorted((shipped.RECIPES / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_sweeps_are_right(path):
    sweep = read_sweep(path.stem)
    assert sweep.base["train"]["open_test"] is False
    assert sweep.name == path.stem
    content = yaml.safe_load(path.read_text())
    expected = "${env} ${interpreter} -m workbench fit --recipe NAME ${args_no_hyphens}".split()
    expected[6] = content["command"][6]
    assert content["command"] == expected
    assert content["program"] == "workbench/__main__.py"


def test_the_grid_is_kornblith_s():
    sweep = read_sweep("kornblith_grid")
    rows = grid(sweep.parameters)
    assert len(rows) == 56
    rates = sorted({row["optim.lr"] for row in rows})
    decays = sorted({row["optim.weight_decay_times_lr"] for row in rows})
    assert rates == pytest.approx([10 ** (-4 + i / 2) for i in range(7)], rel=2e-3)
    assert decays == pytest.approx([0, *(10 ** (-6 + i / 2) for i in range(7))], rel=2e-3)


def test_the_cheaper_ones_have_12_trials():
    assert read_sweep("kornblith_bayes").run_cap == 12
    assert len(grid(read_sweep("flowers_reduced").parameters)) == 12


def test_every_key_in_epochs_is_converted_for_the_final_runs():
    """`final_settings` keeps the steps of what is said in epochs; a new key of this kind must be thought of there."""
    import dataclasses

    keys = {
        f"{section.name}.{key.name}"
        for section in dataclasses.fields(Recipe)
        for key in dataclasses.fields(section.default_factory)
        if key.metadata.get("unit") == "epochs"
    }
    phase = {f"phase.{key.name}" for key in dataclasses.fields(Phase) if key.metadata.get("unit") == "epochs"}
    assert keys | phase == {"train.total_epochs", "schedule.warmup_epochs", "schedule.decay_epochs", "phase.epochs"}


def test_the_plan_says_what_would_happen_and_loads_no_torch(write):
    path = write(early_terminate={"type": "hyperband", "max_iter": 27, "s": 2}, run_cap=3)
    script = (
        "import sys; from click.testing import CliRunner; from workbench.cli.app import app\n"
        f"r = CliRunner().invoke(app, ['sweep', {path!r}, '--plan', '--final']); print(r.output, r.exception)\n"
        "assert r.exit_code == 0 and not {'torch', 'optuna'} & set(sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "trials:    3" in output
    assert "after 3, 9 values" in output
    (line,) = [line for line in output.splitlines() if line.startswith("a trial:")]
    assert shlex.split(line)[6:] == [
        "--recipe",
        yaml.safe_load(open(path))["command"][6],
        "optim.clip_norm=None",
        "optim.lr=0.1",
        "train.open_test=False",
        *("track.runs_dir=sweeps/sweep/runs/0000", "track.group=sweep", "track.job_type=trial"),
    ]
    assert "seeds 0 to 2" in output
