"""Files of named tensors, read without running code in them and written whole or not at all."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.atomic import replacing
from workbench.specs.errors import UserError


def read_tensors(path: Path, where: str = "model.weights") -> dict[str, Tensor]:
    """Read a .pth or .safetensors file as name -> tensor.

    Args:
        path: The file.
        where: Who asks, for the error text.

    Raises:
        UserError: Missing, damaged, or holding more than tensors.
    """
    if not path.is_file():
        raise UserError.of(where, f"{path}: no such file", "an existing file", "check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, SafetensorError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError.of(
            where, f"{path}: {first}", "a complete file that holds tensors only", "fetch it again"
        ) from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError.of(where, f"{path}: not a state dict", "name -> tensor", "save model.state_dict()")
    return dict(content)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: The disk refused, such as for lack of space.
    """
    with replacing(path) as beside:
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside)
        except SafetensorError as error:  # it hides what the system said
            number = errno.ENOSPC if "os error 28" in str(error) or "No space" in str(error) else errno.EIO
            raise OSError(number, str(error), str(path)) from error
        beside.chmod(0o644)  # safetensors writes for the owner alone; a run folder is read by others too
