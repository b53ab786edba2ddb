"""Small real inputs that several tests share. Everything is offline; shared real data is used where it lies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
SHARED = Path(__file__).resolve().parents[2] / "shared"

TINY_RECIPE = """
data:
  {card: folder, root: SETS, path: PATH, batch_size: 8, resolution: 32, eval_resize: 32, num_workers: 0,
  holdout_fraction: 0.25}
model: {arch: tiny, bn_momentum: 0.1}
augment: {min_crop_area: 0.5}
optim: {name: adamw, lr: 0.003, weight_decay: 0.01}
train: {total_epochs: 3, device: cpu, num_validations: 3}
track: {wandb: off, runs_dir: RUNS, log_every_steps: 2}
"""


def pytest_collection_modifyitems(items):
    """Put first what forks: in the fork of a process whose autograd has started threads nothing can be trained."""
    items.sort(key=lambda item: item.path.name != "test_exact_resume.py")


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much on a busy machine


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Run every test in a folder of its own, and as in a pipe: whatever terminal the tests are started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    os.unsetenv("COLUMNS")  # readline, which pytest loads, sets it for processes that are started, unseen by os.environ


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data" / "flowers-102" / "setid.mat").is_file():
        pytest.skip("the shared real images are not on this machine")
    return SHARED


def paint(path: Path, hue: int, seed: int, size: tuple[int, int] = (40, 36)) -> None:
    """Write a noisy picture of one colour, so that classes can be told apart by hue."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    noise[..., hue % 3] += 120 if hue < 3 else 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def folder_set(tmp_path_factory) -> Path:
    """A folder of three classes with train/ (16 each) and test/ (unequal: 6, 4, 2), and no val/."""
    root = tmp_path_factory.mktemp("sets") / "colours"
    for hue, name in enumerate(("red", "green", "blue")):
        for i in range(16):
            paint(root / "train" / name / f"{i:02d}.png", hue, 100 * hue + i)
        for i in range(6 - 2 * hue):
            paint(root / "test" / name / f"{i:02d}.png", hue, 1000 + 100 * hue + i)
    return root


@pytest.fixture
def tiny_recipe(tmp_path, folder_set) -> Path:
    """A recipe file that fits the tiny architecture on `folder_set` in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(fill_in(TINY_RECIPE, folder_set, tmp_path))
    return path


def fill_in(recipe: str, folder_set: Path, base: Path) -> str:
    """Put real folders into a recipe's text: the set, and where runs go. Prepared sets are shared by all tests."""
    folders = {"PATH": folder_set, "RUNS": base / "runs", "SETS": folder_set.parent}
    for word, folder in folders.items():
        recipe = recipe.replace(word, str(folder))
    return recipe


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, folder_set):
    """A finished fit of the tiny recipe with a head-only phase, an average and W&B offline."""
    from workbench import fit, load_recipe

    base = tmp_path_factory.mktemp("finished")
    path = base / "tiny.yaml"
    path.write_text(fill_in(TINY_RECIPE, folder_set, base))
    overrides = [
        "train.phases=[{train: head, epochs: 1}, {train: stage3}]",
        "train.ema_half_life_fraction=0.1",
        "train.total_epochs=24",
        "track.wandb=offline",
        "track.tags=[tested]",
    ]
    return fit(load_recipe(str(path), overrides).recipe)


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Return a function that puts repositories on a hub on loopback, for the clients in this process."""
    import datasets
    import huggingface_hub
    from loopback import HubServer

    from workbench.data import downloads, hub

    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 1.0)
    running = []

    def start(repos):
        server = HubServer(repos).__enter__()
        running.append(server)
        constants = huggingface_hub.constants
        values = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DOWNLOAD_TIMEOUT": 1,
            "HF_HUB_ETAG_TIMEOUT": 1,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
        values = {
            "HF_ENDPOINT": server.url,
            "HUB_DATASETS_URL": server.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_DATASETS_CACHE": tmp_path / "datasets",
            "DOWNLOADED_DATASETS_PATH": tmp_path / "downloads",
            "HF_HUB_OFFLINE": False,
            "HF_UPDATE_DOWNLOAD_COUNTS": False,
        }
        for name, value in values.items():
            monkeypatch.setattr(datasets.config, name, value)
        return server

    yield start
    for server in running:
        server.__exit__(None, None, None)
