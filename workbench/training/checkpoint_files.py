"""Checkpoints written straight to where they go.

Lightning's own way (2.6.6) goes through a file in $TMPDIR, which a small /tmp has no room for, and which is then copied
where the run folder is on another disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class StraightToPlace(TorchCheckpointIO):
    """Reads as Lightning does, and writes to the path that it is given and nowhere else."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: The disk refused; torch.save would hide why.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with Path(path).open("wb") as file:
            file.write(content.getbuffer())
