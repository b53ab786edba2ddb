"""A finished model in other projects: from a hub or W&B, without lightning, inside somebody else's module."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from workbench import EfficientNetClassifier, load_model, wandb_client
from workbench.models import model_sources
from workbench.specs.errors import UserError

PROJECT = Path(__file__).parent / "separate_project"
BLOCKED = ("lightning", "wandb", "torchmetrics", "datasets", "omegaconf", "huggingface_hub", "matplotlib", "click")
ALONE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Refused())
import torch
from workbench import load_model
net = load_model(sys.argv[1])
torch.save(net(torch.load(sys.argv[2])), sys.argv[3])
assert not [name for name in {blocked} if name in sys.modules]
"""


def refused(call, *given, **options):
    with pytest.raises(UserError) as error:
        call(*given, **options)
    return str(error.value)


def test_with_neither_lightning_nor_wandb_the_same_file_gives_the_same_bits(finished_run, tmp_path):
    classifier = EfficientNetClassifier.load(finished_run.folder)
    side = classifier.preprocessing.crop
    images = torch.randn(3, 3, side, side)
    torch.save(images, tmp_path / "images.pt")
    command = [sys.executable, "-c", ALONE.format(blocked=BLOCKED), str(finished_run.folder)]
    done = subprocess.run(
        [*command, str(tmp_path / "images.pt"), str(tmp_path / "logits.pt")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        assert torch.equal(torch.load(tmp_path / "logits.pt"), classifier(images))


@pytest.fixture
def files(finished_run):
    return {name: (finished_run.folder / name).read_bytes() for name in ("model.json", "model.safetensors")}


@pytest.fixture
def hub(serve, files, monkeypatch):
    monkeypatch.setattr(model_sources, "SILENCE_SECONDS", 2.0)
    return serve({"me/flowers": files, "me/empty": {"README.md": b"nothing"}})


def test_a_model_of_the_hub_is_fetched_checked_and_then_there_without_it(hub, finished_run, monkeypatch):
    names = load_model(finished_run.folder).classes
    assert load_model("hub:me/flowers").classes == names
    commit = hub.commit("me/flowers")
    assert EfficientNetClassifier.load(f"hub:me/flowers@{commit}").classes == names
    hub.__exit__()
    monkeypatch.setattr(hub, "__exit__", lambda *_: None, raising=False)
    assert load_model(f"hub:me/flowers@{commit}").classes == names
    assert load_model("hub:me/flowers").classes == names


def test_what_a_hub_does_not_give_is_said(hub):
    assert "no model of this workbench" in refused(load_model, "hub:me/empty")
    told = refused(load_model, "hub:me/other")
    assert "hub:me/other" in told
    assert "hf auth login" in told
    assert "Revision" in refused(load_model, "hub:me/flowers@0000000")
    for odd in ("hub:flowers", "hub:a/b/c", "wandb:a/b", "hub:../x"):
        assert "hub:owner/name[@revision]" in refused(load_model, odd)


def test_an_artifact_of_wandb_is_fetched_once(finished_run, files, tmp_path, monkeypatch):
    asked = []

    def download(root):
        asked.append(root)
        for name, content in files.items():
            (Path(root) / name).write_bytes(content)

    class Api:
        def artifact(self, name):
            if "missing" in name:
                raise ValueError(f"artifact {name} not found")
            return SimpleNamespace(digest="abc", download=download)

    import wandb

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        loaded = EfficientNetClassifier.load("wandb:me/garden/best:production")
        assert loaded.classes == load_model(finished_run.folder).classes
    assert len(asked) == 1
    told = refused(load_model, "wandb:me/garden/missing")
    assert "me/garden/missing:latest not found" in told
    assert "wandb login" in told
    files.pop("model.json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert "no model.json" in refused(load_model, "wandb:me/garden/best")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(wandb_client.ArtifactError, match="pip install wandb"):
        wandb_client.artifact_folder("a/b/c:latest", ())


def test_classes_are_checked_or_renamed(finished_run):
    own = load_model(finished_run.folder).classes
    assert load_model(finished_run.folder, classes=own).classes == own
    renamed = EfficientNetClassifier.load(finished_run.folder, classes={own[0]: "rose"})
    assert renamed.classes == ("rose", *own[1:])
    assert f"1 classes for a model of {len(own)}" in refused(load_model, finished_run.folder, classes=own[:1])
    swapped = refused(load_model, finished_run.folder, classes=own[::-1])
    assert f"0: {own[-1]} is not {own[0]}" in swapped
    assert "names that are not the model's, such as tulip" in refused(
        load_model, finished_run.folder, classes={"tulip": "rose"}
    )
    assert f"two classes called {own[1]}" in refused(load_model, finished_run.folder, classes={own[0]: own[1]})


def test_a_file_of_a_newer_workbench_says_so(finished_run, files, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    description = json.loads(files["model.json"])
    (tmp_path / "model.json").write_text(json.dumps({**description, "format": 2}))
    told = refused(load_model, tmp_path)
    assert "format 2, of a newer workbench" in told
    assert "pip install -U efficientnet-workbench" in told


def test_another_project_trains_it_in_a_module_of_its_own(finished_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT)
    from garden.training import classes_of, train

    moved = train(finished_run.folder, tmp_path)
    assert moved["frozen"] == 0
    assert moved["trained"] > 0
    assert moved["head"] > 0
    assert classes_of(finished_run.folder) == load_model(finished_run.folder).classes


@pytest.mark.slow
def test_the_shipped_types_hold_in_another_project(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(tmp_path), "garden"]
    environment = {**os.environ, "MYPYPATH": str(PROJECT.parents[1])}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment)
    own = [line for line in done.stdout.splitlines() if line.startswith("garden/")]
    assert own == [], "\n".join(own)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from workbench import load_model\nload_model(3)\nload_model('a').classes + 1\n")
    command = [*command[:-1], str(wrong)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment)
    assert 'Argument 1 to "load_model" has incompatible type "int"' in done.stdout, done.stdout
