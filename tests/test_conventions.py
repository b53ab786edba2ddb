"""House rules, checked over the syntax tree: layers, sizes, names, words."""

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "workbench").rglob("*.py"))

# Each layer may import from those above it and from itself; the order is that of docs in CONTRIBUTING.md.
LAYERS = [
    "specs",
    "atomic",
    "shipped",
    "card_files",
    "overrides",
    "recipe_files",
    "hub_client",
    "wandb_client",
    "models",
    "data",
    "training",
    "analysis",
    "sweeps",
    "exports",
    "serving",
    "cli",
]
FORBIDDEN = {"models": {"data"}, "data": {"models", "recipe_files"}}
OUTSIDE = {
    "specs": set(),
    "atomic": set(),
    "shipped": {"omegaconf", "yaml"},
    "card_files": set(),
    "overrides": {"omegaconf", "yaml"},
    "recipe_files": {"omegaconf", "yaml"},
    "hub_client": {"huggingface_hub"},
    "wandb_client": {"wandb"},
    "models": {"torch", "torchvision", "safetensors", "timm"},
    "data": {"torch", "torchvision", "numpy", "PIL", "scipy", "lightning", "datasets", "pyarrow", "huggingface_hub"}
    | {"filelock", "jinja2", "rich"},
    "sweeps": {"optuna", "omegaconf", "yaml", "rich"},
    "analysis": {"torch", "torchvision", "numpy", "PIL", "matplotlib", "scipy", "jinja2", "safetensors"},
}
STANDARD = __import__("sys").stdlib_module_names


def layer_of(path):
    return path.relative_to(ROOT / "workbench").with_suffix("").parts[0]


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from ((node.module, alias.name) for alias in node.names)


def parsed():
    return [(path, ast.parse(path.read_text())) for path in MODULES]


@pytest.mark.parametrize("path", [p for p in MODULES if layer_of(p) in LAYERS], ids=lambda p: str(p.name))
def test_a_module_imports_only_from_layers_above(path):
    layer = layer_of(path)
    for module, name in imports_of(ast.parse(path.read_text())):
        parts = [*module.split("."), name] if name else module.split(".")
        if parts == ["workbench", "__version__"]:
            continue
        if parts[0] == "workbench":
            target = parts[1]
            assert target in LAYERS, f"{path.name} imports {module}: name a layer"
            assert LAYERS.index(target) <= LAYERS.index(layer), f"{path.name} imports {target} from below"
            assert target not in FORBIDDEN.get(layer, ()), f"{path.name} ({layer}) must not know {target}"
        elif layer in OUTSIDE and parts[0] not in STANDARD:
            assert parts[0] in OUTSIDE[layer], f"{path.name}: {parts[0]} is not for {layer}/"


def test_only_the_outer_layers_know_a_recipe():
    for path, tree in parsed():
        if layer_of(path) in ("models", "data"):
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            assert "Recipe" not in names, path


def test_only_building_plan_and_run_read_a_recipe_in_training():
    readers = {
        "building.py",
        "recipe_numbers.py",
        "plan.py",
        "run.py",
        "one_fit.py",
        "evaluate.py",
        "tracking.py",
        "probe.py",
        "runtime_recipe.py",
    }
    for path, tree in parsed():
        if layer_of(path) == "training" and path.name not in readers:
            assert not [m for m, _ in imports_of(tree) if m and m.endswith("specs.recipe")], path


def test_files_and_functions_stay_short():
    for path, tree in parsed():
        lines = path.read_text().count("\n")
        assert lines <= 300, f"{path.name} has {lines} lines: it wants to be two files"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (node.end_lineno - body[0].lineno + 1) if body else 0
                assert length <= 60, f"{path.name}: {node.name} has {length} lines"


def test_no_two_modules_share_a_name_and_none_is_a_drawer():
    names = [path.stem for path in MODULES if path.stem not in ("__init__", "__main__")]
    twice = {a for a, b in itertools.combinations(sorted(names), 2) if a == b}
    # a noun may have its facts in specs/ and its code in models/
    assert twice <= {"weights", "compared"}, twice
    assert not set(names) & {"utils", "helpers", "common", "base", "misc"}


def test_every_module_says_what_it_is_for():
    for path, tree in parsed():
        assert (ast.get_docstring(tree) or "").strip(), path


def test_nothing_swallows_errors_or_asserts_about_users():
    for path, tree in parsed():
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}: raise, do not assert"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path.name}:{node.lineno}: a bare except"


def test_metrics_are_named_from_the_list():
    from workbench.specs.metric_names import SCORES

    pattern = re.compile(r"^(train|val|test)/([a-z0-9_]+)$")
    known = {*SCORES, "loss", "lr", "confusion", "mistakes"}
    for path, tree in parsed():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and (m := pattern.match(node.value)):
                assert m.group(2) in known, f"{path.name}: {node.value}"


def test_the_top_level_holds_what_the_house_has():
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.split()}
    assert top <= {
        *("workbench", "recipes", "data", "tests", "benchmarks", "results", "docs", ".ci"),
        *("pyproject.toml", "README.md", "Makefile", "constraints.txt", ".gitignore", "CONTRIBUTING.md", "LICENSE"),
    }
