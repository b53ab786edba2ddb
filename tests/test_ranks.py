"""Several processes train as one: each image once, results of one process, files by the first, errors told once."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_RECIPE, fill_in, paint
from rank_checks import fit_stopped
from safetensors.torch import load_file

from workbench import fit, load_recipe
from workbench.recipe_files import to_yaml
from workbench.specs.errors import UserError
from workbench.training import ranks
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.metrics_csv import read_metrics

PLAIN = ["model.weights=embedded/blossoms", "model.drop_path=0", "model.dropout=0", "optim.name=sgd", "optim.lr=0.0003"]
PLAIN += ["train.total_epochs=2", "train.num_validations=2"]
VARIANTS = {
    "sync": [],
    "own": ["train.sync_bn=false"],
    "phases": ["train.phases=[{train: head, epochs: 1}, {train: all}]", "train.ema_half_life_fraction=0.3"],
    "recompute": ["model.recompute=true"],
    "embedded": ["train.phases=[{train: head}]", "augment.crop=center"],
}
ALONE = {"own": ["train.micro_batch_size=4"], "phases": ["train.micro_batch_size=4"]}
"""What one process needs for the same BatchNorm: as many images at once as the processes see together."""
TOGETHER = {"phases": ["train.micro_batch_size=2"]}


def launched(rank, size=2, port=0):
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    told |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    return {name: str(value) for name, value in told.items()}


SAME_AS_SYNC = ("recompute", "resumed", "from_one")
"""One process gives for these what it gives for `sync`, bit for bit: test_recompute.py, test_exact_resume.py."""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def uneven_set(tmp_path_factory, folder_set):
    """The coloured set with 21 test images, which two processes cannot share evenly."""
    root = tmp_path_factory.mktemp("uneven") / "colours"
    shutil.copytree(folder_set, root)
    for i in range(9):
        paint(root / "test" / "blue" / f"more{i}.png", 2, 5000 + i)
    return root


def fit_both_ways(base, uneven_set, names):
    """Fit variants by one process and by two; return (folders by one, what the two found, their folders)."""
    whole = base / "tiny.yaml"
    whole.write_text(fill_in(TINY_RECIPE, uneven_set, base))
    alone, plans = {}, {}
    for name in names:
        options, stops, resume = VARIANTS.get(name, []), name == "resumed", None
        if name == "from_one":
            resume = str(fit_stopped(load_recipe(str(whole), PLAIN).recipe))
        elif name not in SAME_AS_SYNC:
            alone[name] = fit(load_recipe(str(whole), [*PLAIN, *options, *ALONE.get(name, [])]).recipe).folder
        recipe = load_recipe(str(whole), [*PLAIN, *options, *TOGETHER.get(name, []), "train.devices=2"]).recipe
        (base / f"{name}.yaml").write_text(to_yaml(recipe))
        plans[name] = (str(base / f"{name}.yaml"), stops, resume)
    alone |= {name: alone["sync"] for name in names if name in SAME_AS_SYNC}
    (base / "plans.json").write_text(json.dumps(plans))
    script, port = Path(__file__).with_name("rank_checks.py"), free_port()
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(base)],
            env={**os.environ, **launched(rank, port=port)},
            cwd=base,
            stderr=(base / f"errors-{rank}").open("w"),
        )
        for rank in range(2)
    ]
    codes = [process.wait(timeout=900) for process in started]
    assert codes == [0, 0], (base / "errors-0").read_text()[-3000:] + (base / "errors-1").read_text()[-3000:]
    found = [json.loads((base / f"found-{rank}.json").read_text()) for rank in range(2)]
    return alone, found, {name: Path(folder) for name, folder in found[0]["folders"].items()}


@pytest.fixture(scope="module")
def together(tmp_path_factory, uneven_set):
    return fit_both_ways(tmp_path_factory.mktemp("ranks"), uneven_set, ["sync", "phases"])


@pytest.fixture(scope="module")
def more_together(tmp_path_factory, uneven_set):
    names = ["sync", "own", "recompute", "embedded", "resumed", "from_one"]
    return fit_both_ways(tmp_path_factory.mktemp("more_ranks"), uneven_set, names)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_batchnorm_over_two_processes_is_that_of_one_with_all_images(together):
    for found in together[1]:
        assert max(found["batchnorm"].values()) < 2e-5, found["batchnorm"]


def test_a_recomputed_network_takes_the_same_steps_in_two_processes(together):
    assert all(found["network"] < 1e-8 for found in together[1]), [found["network"] for found in together[1]]


def test_running_statistics_are_averaged_but_for_frozen_ones(together):
    assert [found["averaged"] for found in together[1]] == [[[0.5, 0.5], [0.0, 0.0]], [[0.5, 0.5], [1.0, 1.0]]]


def test_each_row_is_evaluated_once_whatever_their_number(together):
    for found in together[1]:
        assert found["parts"] == {"1": [0], "2": [0, 1], "21": list(range(21))}


def test_all_processes_end_with_the_same_weights_bit_for_bit(together):
    assert all(found["equal_weights"] >= 2 * len(together[2]) for found in together[1])


def check_weights(alone, folders, name):
    """The two ways differ by a small part of how far training has moved the weights."""
    one, two = (load_file(folder / "model.safetensors") for folder in (alone[name], folders[name]))
    before = EfficientNetClassifier("tiny", 3, "embedded/blossoms").net.state_dict()
    moved, differs = 0.0, 0.0
    for key, tensor in one.items():
        if "num_batches" in key or key.startswith("classifier") or (name == "own" and "running" in key):
            continue  # one process updates these twice a step then, on half the images each time
        moved += float((tensor - before[key]).square().sum())
        differs += float((tensor - two[key]).square().sum())
    assert differs <= 0.03**2 * moved, (differs**0.5, moved**0.5)
    torch.testing.assert_close(two["classifier.1.weight"], one["classifier.1.weight"], rtol=0, atol=1e-3)


def check_scores(alone, folders, name):
    one, two = (json.loads((folder / "result.json").read_text()) for folder in (alone[name], folders[name]))
    assert two["test"]["n"] == one["test"]["n"] == 21
    assert two["selection"]["n"] == 12
    for split in ("selection", "test"):
        assert two[split]["loss"] == pytest.approx(one[split]["loss"], rel=2e-2)
        assert two[split]["top1"] == pytest.approx(one[split]["top1"], abs=1 / 12 + 1e-6)
    ids = [[row["id"] for row in read_rows(folder / "predictions.csv")] for folder in (alone[name], folders[name])]
    assert ids[0] == ids[1]
    one, two = (read_metrics(folder / "metrics.csv") for folder in (alone[name], folders[name]))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for before, now in zip(one, two, strict=True):
        for key in before.keys() & {"train/loss", "val/loss", "train/lr"}:
            assert now[key] == pytest.approx(before[key], rel=2e-2), (key, before, now)


@pytest.mark.parametrize("name", ["sync", "phases"])
def test_two_processes_train_as_one_with_the_same_batch(together, name):
    alone, _, folders = together
    check_weights(alone, folders, name)
    check_scores(alone, folders, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recompute", "embedded", "from_one", "own"])
def test_other_fits_are_those_of_one_process_too(more_together, name):
    alone, _, folders = more_together
    if name != "embedded":  # there the network rests
        check_weights(alone, folders, name)
    if name != "own":
        check_scores(alone, folders, name)


@pytest.mark.slow
def test_a_resumed_fit_on_two_processes_ends_bit_equal_to_the_undisturbed_one(more_together):
    _, found, folders = more_together
    one, two = (load_file(folders[name] / "model.safetensors") for name in ("sync", "resumed"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (folders["sync"] / "metrics.csv").read_text() == (folders["resumed"] / "metrics.csv").read_text()
    assert all(rank["equal_weights"] >= 2 * len(folders) for rank in found)


def test_files_are_written_once(together):
    folder = together[2]["sync"]
    assert not list(folder.rglob("*.part"))
    assert len(json.loads((folder / "test_openings.json").read_text())) == 1
    told = (folder / "log.txt").read_text()
    assert told.count("W&B off") == told.count("prepared pixels:") == 1


def two_process_recipe(base, uneven_set, *overrides):
    whole = base / "tiny.yaml"
    whole.write_text(fill_in(TINY_RECIPE, uneven_set, base))
    return load_recipe(str(whole), [*PLAIN, "train.devices=2", *overrides]).recipe


@pytest.mark.slow
def test_fit_starts_its_processes_itself(tmp_path, uneven_set):
    outcome = fit(two_process_recipe(tmp_path, uneven_set, "train.total_epochs=1"))
    assert outcome.result["test"]["n"] == 21
    assert [path for path in (tmp_path / "runs").glob("*/*")] == [outcome.folder]
    assert load_recipe(str(outcome.folder / "recipe.yaml")).recipe.train.devices == 2


# ---- mistakes ----------------------------------------------------------------------------------------------------


def refused(recipe, *overrides):
    with pytest.raises(UserError) as caught:
        load_recipe(str(recipe), overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.devices=3"], ["data.batch_size", "3 processes", "evenly"]),
        (
            ["train.devices=2", "train.micro_batch_size=8"],
            ["data.batch_size", "2 processes x train.micro_batch"],
        ),
        (["train.devices=2", "train.compile=true"], ["train.compile", "2 processes"]),
        (["train.devices=2", "train.runtime=auto"], ["train.runtime", "stated"]),
        (["train.strategy=fsdp"], ["train.strategy", "fsdp in one process", "train.devices"]),
        (
            ["train.devices=2", "train.strategy=fsdp", "train.ema_decay=0.9"],
            ["train.device\n", "gpu", "train.ema_decay", "train.pick", "train.strategy=ddp"],
        ),
    ],
)
def test_what_does_not_fit_together_is_said(tiny_recipe, overrides, words):
    told = refused(tiny_recipe, *overrides)
    for word in words:
        assert word in told


def test_several_machines_need_who_starts_them(tiny_recipe):
    with pytest.raises(UserError) as caught:
        fit(load_recipe(str(tiny_recipe), ["train.num_nodes=2"]).recipe)
    assert "torchrun --nnodes=2 --nproc-per-node=1" in str(caught.value)
    assert "docs/ranks.md" in str(caught.value)


def test_another_number_of_processes_is_told_by_the_first_alone(monkeypatch, tiny_recipe):
    recipe = load_recipe(str(tiny_recipe), ["train.devices=4"]).recipe
    for rank in range(2):
        for name, value in launched(rank).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit if rank else UserError) as caught:
            fit(recipe)
        if not rank:
            assert "torchrun has started 2 processes" in str(caught.value)
            assert "train.devices=2 train.num_nodes=1" in str(caught.value)


def test_slurm_is_believed_only_where_srun_has_started_this(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.launched() is None  # a batch script: it runs once
    assert ranks.must_start(2, 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert ranks.launched() == ranks.Launch("srun", 3, 4, 1, 2)
    assert not ranks.must_start(2, 2)
