"""Several processes from the command line: stopped, killed, mistaken, on two nodes. What is told, and told once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_ranks import free_port, two_process_recipe

from workbench import fit, load_recipe
from workbench.recipe_files import to_yaml
from workbench.specs.errors import UserError


def start(command, base, **environment):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=base,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
    )


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def after_a_score(process):
    for line in process.stderr:
        if line.startswith("step"):
            return


@pytest.fixture
def long_fit(tmp_path, folder_set):
    options = ["train.total_epochs=100", "train.num_validations=100", "train.pick=last"]
    (tmp_path / "two.yaml").write_text(to_yaml(two_process_recipe(tmp_path, folder_set, *options)))
    return ["-m", "workbench", "fit", "--recipe", str(tmp_path / "two.yaml")]


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_all(tmp_path, long_fit):
    process = start(long_fit, tmp_path)
    after_a_score(process)
    ranks_of_it = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    (run,) = (tmp_path / "runs").glob("*/*")
    assert f"go on with: python -m workbench fit --resume {run}\n" in errors
    assert "Traceback" not in errors
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert len(ranks_of_it) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks_of_it)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_is_told_of(tmp_path, long_fit):
    process = start(long_fit, tmp_path)
    after_a_score(process)
    killed, other = children(process.pid)[::-1]
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    (run,) = (tmp_path / "runs").glob("*/*")
    assert "process 1 of 2 was ended by SIGKILL" in errors
    assert f"workbench fit --resume {run}" in errors
    assert errors.count("mistake") == 1
    assert not Path(f"/proc/{other}").exists()


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_started_them(tmp_path, long_fit):
    process = start(long_fit, tmp_path)
    after_a_score(process)
    ranks_of_it = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    until = time.monotonic() + 30
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in ranks_of_it):
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks_of_it)


@pytest.mark.slow
def test_a_mistake_found_on_the_way_is_told_once_and_the_fit_can_go_on(tmp_path, folder_set):
    own = tmp_path / "colours"
    shutil.copytree(folder_set, own)
    options = ["train.total_epochs=100", "train.num_validations=100", "data.prepare=off"]
    (tmp_path / "two.yaml").write_text(to_yaml(two_process_recipe(tmp_path, own, *options)))
    process = start(["-m", "workbench", "fit", "--recipe", str(tmp_path / "two.yaml")], tmp_path)
    after_a_score(process)
    (own / "train").rename(own / "elsewhere")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.count("do this:") == 1
    assert "Traceback" not in errors
    (own / "elsewhere").rename(own / "train")
    (run,) = (tmp_path / "runs").glob("*/*")
    recipe = load_recipe(str(run / "recipe.yaml"), ["train.devices=1", "train.total_epochs=100"]).recipe
    assert fit(recipe, resume=run).result["steps"] == 400


@pytest.mark.slow
def test_a_mistake_before_the_first_step_is_told_once_and_leaves_nothing(tmp_path, folder_set):
    recipe = two_process_recipe(tmp_path, folder_set)
    recipe.data.path = str(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        fit(recipe)
    assert len(caught.value.problems) == 1
    assert "nowhere" in str(caught.value)
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.slow
def test_two_nodes_by_torchrun_make_one_run(tmp_path, folder_set):
    recipe = two_process_recipe(tmp_path, folder_set, "train.total_epochs=1", "train.devices=1", "train.num_nodes=2")
    (tmp_path / "two.yaml").write_text(to_yaml(recipe))
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=static"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    fitted = ["-m", "workbench", "fit", "--recipe", str(tmp_path / "two.yaml")]
    nodes = [start([*torchrun, f"--node-rank={n}", *fitted], tmp_path, GLOO_SOCKET_IFNAME="lo") for n in range(2)]
    told = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    (run,) = (tmp_path / "runs").glob("*/*")
    assert json.loads((run / "result.json").read_text())["test"]["n"] == 12
    assert [out.splitlines()[-1:] for out, _ in told] == [[str(run)], []]
