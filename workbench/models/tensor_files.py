"""Files of named tensors, read without running code in them and written whole or not at all."""

from __future__ import annotations

import errno
import pickle
import zipfile
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
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes can do to the readers of three formats
        first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own text advises to run what is in the file
            first = "no checkpoint, or one that holds more than tensors, which could run code"
        raise UserError.of(
            where, f"{path}: {first}", "a complete file that holds tensors only", "fetch it again"
        ) from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(map(_is_plain, content, content.values())):
        raise UserError.of(where, f"{path}: not a state dict", "name -> tensor", "save model.state_dict()")
    return dict(content)


def _check_archive(path: Path) -> None:
    """Refuse a .pth file that holds more than it is long: `torch.save` packs nothing, so somebody else did.

    Raises:
        ValueError: It is such a file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("compressed, which torch.save never does: it could fill the memory")


def _is_plain(name: object, tensor: object) -> bool:
    """Whether an entry is a name with a tensor whose every value is in the file."""
    is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
    return isinstance(name, str) and is_dense and tensor.device.type == "cpu"


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
