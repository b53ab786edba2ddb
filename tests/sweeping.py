"""What the tests of sweeps share: a file over the tiny recipe, a fast stand-in for fits, and looks at the outcome."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from workbench.cli.app import app
from workbench.sweeps import processes

FAKE = [sys.executable, str(Path(__file__).with_name("fake_fit.py")), "fit"]
REAL = ["${env}", "${interpreter}", "-m", "workbench", "fit"]
RATES = {"optim.lr": {"values": [0.1, 0.01, 0.001]}}


@pytest.fixture(name="sweep_file")
def sweep_file_fixture(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setattr(processes, "_POLL_SECONDS", 0.02)

    def make(parameters, command=FAKE, orders="", **keys):
        parameters = {**parameters, "train.open_test": {"value": False}}
        if orders:
            parameters["track.notes"] = {"value": orders}
        content = {
            "program": "workbench/__main__.py",
            "command": [*command, "--recipe", str(tiny_recipe), "${args_no_hyphens}"],
            "method": "grid",
            "metric": {"name": "val/top1", "goal": "maximize"},
            "parameters": parameters,
            **keys,
        }
        path = tmp_path / "rates.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return make


def sweep(*words):
    result = CliRunner().invoke(app, ["sweep", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def board(folder="sweeps/rates"):
    with open(Path(folder) / "leaderboard.csv", newline="") as file:
        return list(csv.DictReader(file))


def tried(folder="sweeps/rates", name="optim.lr"):
    return [float(row[name]) for row in sorted(board(folder), key=lambda row: int(row["trial"]))]


def begun(folder="sweeps/rates/runs"):
    """Every start of a fake fit, as [what, process number] by trial."""
    files = sorted(Path(folder).glob("*/tiny/begun.txt"))
    return {path.parts[-3]: [line.split() for line in path.read_text().splitlines()] for path in files}


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", "sweep", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def is_alive(number):
    """Whether a process runs; one that has ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
