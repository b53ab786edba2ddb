"""Several processes that train one model: which of them this is, who goes first, what they know of each other.

torchrun, `srun` or `rank_launch.py` start them; every one calls the same `fit(recipe)`. Rank 0 writes the files and
tells the user; what it decides the others learn here. A fit in one process passes through all of this unchanged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import Tensor, distributed

from workbench.specs.errors import UserError
from workbench.training import rank_stops
from workbench.training.interrupts import Interrupted

Value = TypeVar("Value")
PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for rank 0, which may be preparing a large set; a guess. A lost one ends the wait sooner."""
STARTER, FOLDER = "WORKBENCH_STARTER", "folder.txt"
"""Environment variable: the folder of who has started the processes; in it: the run folder."""
_LOST_PEER = re.compile(r"onnection (closed|reset|refused)|[Bb]roken pipe|remote process exited", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Launch:
    """What whoever started this process says of it.

    Args:
        by: `torchrun` or `srun`.
        rank: Number of this process among all.
        size: All processes.
        local_rank: Number among those of this machine.
        local_size: Processes of this machine.
    """

    by: str
    rank: int
    size: int
    local_rank: int
    local_size: int


def launched() -> Launch | None:
    """Return how this process was started, None if it stands alone.

    `srun` is told from a batch script, which SLURM runs once whatever it has reserved, by SLURM_STEP_NUM_TASKS.
    """
    told = os.environ
    if "TORCHELASTIC_RUN_ID" in told and "RANK" in told:
        numbers = [int(told[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
        return Launch("torchrun", *numbers)
    tasks = int(told.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1:
        local = tasks // int(told.get("SLURM_STEP_NUM_NODES", 1))
        return Launch("srun", int(told["SLURM_PROCID"]), tasks, int(told["SLURM_LOCALID"]), local)
    return None


def is_first() -> bool:
    """Whether this process writes and speaks: rank 0, or the only one."""
    launch = launched()
    return launch is None or launch.rank == 0


def size() -> int:
    """Return the number of processes that have joined, 1 outside `joined`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number among those that have joined."""
    return distributed.get_rank() if size() > 1 else 0


def must_start(devices: int, num_nodes: int) -> bool:
    """Whether a fit has to start its processes itself.

    Raises:
        UserError: They are to be on several machines, which only torchrun or SLURM can start.
    """
    if devices * num_nodes == 1 or launched() is not None:
        return False
    if num_nodes > 1:
        start = f"torchrun --nnodes={num_nodes} --nproc-per-node={devices} ... -m workbench fit ..."
        raise UserError.of(
            "train.num_nodes",
            f"{num_nodes}, but this process was started alone",
            f"{num_nodes} machines x {devices} processes, started by torchrun or srun",
            f"on every machine: {start} (docs/ranks.md has both in full), or set train.num_nodes=1",
        )
    return True


@contextlib.contextmanager
def joined(devices: int, num_nodes: int, device: str) -> Iterator[None]:
    """Let this process take part with the others; alone, or where it does already, do nothing.

    An error is raised as it is in the first process that has one, a stop in rank 0, whoever was asked for it; the
    others leave by SystemExit, saying nothing.

    Args:
        devices: Processes per machine that the recipe states.
        num_nodes: Machines that it states.
        device: `cpu` or `gpu`.

    Raises:
        UserError: Another number of processes was started, or one was lost.
        Interrupted: Some process was asked to stop.
    """
    launch = launched()
    if launch is None or launch.size == devices * num_nodes == 1 or size() > 1:
        yield
        return
    if (launch.local_size, launch.size) != (devices, devices * num_nodes):
        if launch.rank:
            raise SystemExit(2)
        raise _other_number(launch, devices, num_nodes)
    store = _connect(launch, device)
    try:
        yield
    except BaseException as error:
        is_first_to_fail = not isinstance(error, FirstFailedError) and _tells(store)
        is_lost_peer = isinstance(error, RuntimeError) and _LOST_PEER.search(str(error))
        if launch.rank:
            rank_stops.leave_word(store, launch.rank, error)
        elif is_lost_peer or (isinstance(error, Interrupted) and error.by is None):
            if stop := rank_stops.of_others(store, launch.size):
                raise stop from error
        if isinstance(error, Interrupted):
            if launch.rank:
                raise SystemExit(130) from error
            raise
        if not is_first_to_fail:
            raise SystemExit(2 if isinstance(error, UserError) else 1) from error
        if is_lost_peer:
            raise UserError.of(
                "train.devices",
                f"another of the {launch.size} processes of this fit has ended without a word",
                "all of them running",
                "look whether the system killed it (memory?), then go on with --resume",
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


def _other_number(launch: Launch, devices: int, num_nodes: int) -> UserError:
    nodes = launch.size // launch.local_size
    return UserError.of(
        "train.devices, train.num_nodes",
        f"{devices} x {num_nodes}, but {launch.by} has started {launch.size} processes, {launch.local_size} here",
        "as many as were started",
        f"set train.devices={launch.local_size} train.num_nodes={nodes}, or start as many as the recipe says",
    )


def _connect(launch: Launch, device: str) -> distributed.Store:
    """Meet the other processes; return the store that all can write to."""
    if launch.by == "srun":
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
        os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        step = int(os.environ.get("SLURM_JOB_ID", 0)) + int(os.environ.get("SLURM_STEP_ID", 0))
        os.environ.setdefault("MASTER_PORT", str(15000 + step % 10000))
        # as torchrun names them: from here on there is one kind of launch
        told = {"RANK": launch.rank, "WORLD_SIZE": launch.size, "LOCAL_RANK": launch.local_rank}
        told |= {"LOCAL_WORLD_SIZE": launch.local_size, "GROUP_RANK": launch.rank // launch.local_size}
        os.environ.update({name: str(value) for name, value in told.items()})
    if device == "gpu":
        torch.cuda.set_device(launch.local_rank)
    store, rank, size = next(distributed.rendezvous("env://", launch.rank, launch.size, timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if device == "gpu" else "gloo"
    store = distributed.PrefixStore("workbench", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return store


def _tells(store: distributed.Store) -> bool:
    """Whether this process is the first that fails: then it tells why."""
    try:
        store.set_timeout(datetime.timedelta(seconds=5))
        return store.add("failed", 1) == 1
    except RuntimeError:  # rank 0, which holds the store, is gone: it has told
        return False


# ---- one after the other, and together ---------------------------------------------------------------------------


class FirstFailedError(Exception):
    """Rank 0 has failed, and told why."""


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Run a block in rank 0 first, then in the others; if it fails there, they leave without having begun it."""
    if size() == 1:
        yield
        return
    if rank():
        if not shared(None):
            raise FirstFailedError
        yield
        return
    try:
        yield
    except BaseException:
        shared(False)
        raise
    shared(True)


def shared(value: Value) -> Value:
    """Return rank 0's value in every process; the others' own does not matter."""
    if size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, 0)
    return values[0]


def by_first(make: Callable[[], Value]) -> Value:
    """Return what `make()` returns in rank 0, the only process that calls it."""
    value = None
    with in_turn():
        if rank() == 0:
            value = make()
    return shared(value)


def announced(folder: Path) -> Path:
    """Return a run folder, after telling it to `rank_launch.py`, if that has started this process."""
    if starter := os.environ.get(STARTER):
        Path(starter, FOLDER).write_text(str(folder), encoding="utf-8")
    return folder


def averaged(value: Any) -> Any:
    """Return the mean of a number or tensor over all processes; alone, what was given."""
    if size() == 1:
        return value
    mean = torch.as_tensor(value).detach().clone()
    distributed.all_reduce(mean)
    return mean / size()


def gathered(part: Tensor) -> Tensor:
    """Return every process's rows, (N, ...), in order of rank; the numbers of rows may differ. CPU tensors."""
    if size() == 1:
        return part
    parts: list[Any] = [None] * size()
    distributed.all_gather_object(parts, part)
    return torch.cat(parts)
