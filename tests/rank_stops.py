"""What tests/test_rank_stops.py runs: SLURM's signal to two processes, many times, each forked from this one."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from torch import distributed

from workbench import load_recipe
from workbench.cli import fit_verb
from workbench.training import ranks, run
from workbench.training.interrupts import interruptible


def started(rank, port):
    """Environment variables as `srun` gives them in a job of `#SBATCH --ntasks=2`."""
    told = {"SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": 1, "SLURM_NTASKS": 2, "SLURM_NODELIST": "127.0.0.1"}
    told |= {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_JOB_ID": 77}
    told |= {"SLURM_JOB_NAME": "fit", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    return {name: str(value) for name, value in told.items()}


def fork(task, name, work):
    """Run `work(rank)` in two processes; return their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(2):
        pid = os.fork()
        if not pid:
            code = 99
            try:
                os.environ.update(started(rank, port))
                sys.stderr = (task / f"{name}-{rank}.err").open("w")
                work(rank)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    return pids


def codes(pids):
    """Return how processes ended; whoever hangs is killed."""
    until, found = time.monotonic() + 60, {}
    while len(found) < len(pids):
        for pid in set(pids) - set(found):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                found[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            for pid in set(pids) - set(found):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return [found[pid] for pid in pids]


def wait_for(met):
    until = time.monotonic() + 60
    while not met() and time.monotonic() < until:
        time.sleep(0.01)


def steps(task, name, how):
    """A fit of many short steps in place of `run._fit`, which ends at the step where any process was asked to."""

    def fit(recipe, resume, console):
        folder = Path(ranks.shared(str(task / f"{name}-run")))
        with interruptible(folder) as stop:
            folder.mkdir(exist_ok=True)
            stop.is_training = how == "in order"
            for step in range(10_000):
                time.sleep(0.002)
                asked = torch.tensor(float(stop.asked is not None))
                distributed.all_reduce(asked)
                if asked and how == "in order":
                    raise KeyboardInterrupt
                if step == 3:
                    (task / f"{name}-{ranks.rank()}.ready").touch()

    return fit


def main(task, recipe):
    torch.set_num_threads(1)
    task, found = Path(task), []
    options = ["train.devices=2", "train.total_epochs=200", "train.num_validations=1", "train.checkpoint_minutes=0.001"]
    recipe = load_recipe(recipe, options).recipe
    rounds = json.loads((task / "rounds.json").read_text())
    for number, (how, asked) in enumerate(rounds):
        name = f"round{number}"
        real = run._fit
        if how != "fit":
            run._fit = steps(task, name, how)
        pids = fork(task, name, lambda rank: fit_verb._fit(recipe, None))
        run._fit = real
        if how == "fit":
            before = sum(kind == "fit" for kind, _ in rounds[:number])
            wait_for(lambda before=before: len(list((task / "runs").glob("*/*/checkpoints/last.ckpt"))) > before)
        else:
            wait_for(lambda name=name: all((task / f"{name}-{rank}.ready").exists() for rank in range(2)))
        began = time.monotonic()
        for rank in asked:
            os.kill(pids[rank], signal.SIGUSR1)
        told = [(task / f"{name}-{rank}.err") for rank in range(2)]
        ended = {"codes": codes(pids), "seconds": time.monotonic() - began}
        found.append({**ended, "told": [path.read_text() for path in told]})
    (task / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
