"""What the machine is and what suits it: precision, loader processes, memory settings, versions."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from workbench.specs.errors import UserError

_LIBRARIES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "datasets",
    "wandb",
    "omegaconf",
    "numpy",
    "pillow",
)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # numbers from glibc's malloc.h


def accelerator(device: str) -> str:
    """Return `gpu` or `cpu` for a recipe's `train.device`."""
    return device if device != "auto" else "gpu" if torch.cuda.is_available() else "cpu"


def choose_precision(precision: str, device: str) -> str:
    """Return Lightning's word for a recipe's `train.precision`.

    `auto` takes bf16 autocast only where the hardware computes in it: on a CPU without such instructions bf16 was
    measured 14 times slower than fp32 (results/step_speed.csv). fp16 makes this family's gradients NaN more easily.
    """
    if precision == "auto":
        if device == "gpu":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]


def precisions(device: str) -> tuple[str, ...]:
    """Return the precisions that the hardware computes in, the one that `train.precision: auto` takes first."""
    usual = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}[choose_precision("auto", device)]
    return (usual,) if usual == "fp32" else (usual, "fp32")


def check_compiler(device: str) -> None:
    """Check that torch.compile finds what it makes code with.

    Raises:
        UserError: No C++ compiler (CPU), or no Triton (GPU).
    """
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    found = find_spec("triton") if device == "gpu" else any(name and shutil.which(name) for name in compilers)
    if not found:
        needed = "Triton, which comes with PyTorch" if device == "gpu" else "g++ or clang++, which torch.compile calls"
        raise UserError.of("train.compile", "true", needed, "install it, or set train.compile=false")


def available_memory_bytes() -> int | None:
    """Return the memory that this process can still take without swapping, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    with contextlib.suppress(OSError, ValueError):  # a container's own limit, where there is one: "max" is none
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free


def choose_workers(num_workers: int | None, is_cheap: bool) -> int:
    """Return the number of loader processes: none for images that cost little to decode, else one core less."""
    if num_workers is not None:
        return num_workers
    return 0 if is_cheap else max(1, min(8, (os.cpu_count() or 2) - 1))


def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of giving them back after every step.

    Without this, each step's activations are mapped and faulted in anew: B0 at 176 px on 2 cores was measured at
    29.8 images/s without and 32.4 with it (results/step_speed.csv). Other systems are left alone.

    Returns:
        Whether it took effect.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def peak_memory_bytes(device: str) -> int:
    """Return the most memory used so far: of the GPU's allocator, or of this process."""
    if device == "gpu":
        return torch.cuda.max_memory_allocated()
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def describe() -> dict[str, Any]:
    """Return versions, git state and hardware as plain values."""
    return {
        "workbench": metadata.version("efficientnet-workbench") if _installed() else "source",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "git": _git(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "date": datetime.date.today().isoformat(),
    }


def hardware_name(environment: dict[str, Any], device: str) -> str:
    """Return the name that measured speeds are kept under, from what `describe` returned."""
    return environment["gpu"] if device == "gpu" else f"{environment['processor']} x {environment['cores']}"


def _installed() -> bool:
    try:
        metadata.version("efficientnet-workbench")
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git() -> dict[str, Any] | None:
    """Return the source tree's commit and whether it is changed, or None outside a checkout."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, timeout=10)
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=source, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(status.stdout.strip())}
