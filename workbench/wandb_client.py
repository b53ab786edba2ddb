"""Fetching a model artifact from W&B; `wandb` is imported only when one is asked for."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from workbench.specs.confidential import without_secrets

_LETTERS_OF_A_REASON = 300


class ArtifactError(Exception):
    """W&B does not give an artifact; the text is the reason."""


def artifact_folder(name: str, files: tuple[str, ...]) -> Path:
    """Return a folder with files of an artifact, fetched anew, but for what W&B's own cache holds.

    Args:
        name: `entity/project/name:alias`.
        files: What has to be in it.

    Raises:
        ArtifactError: No wandb, no such artifact, or no answer.
    """
    try:
        import wandb
    except ImportError as error:
        raise ArtifactError("wandb is not installed: pip install wandb") from error
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "efficientnet-workbench" / "wandb"
    try:
        artifact = wandb.Api().artifact(name)
        folder = cache / re.sub(r"[^\w.-]", "_", f"{name.rpartition(':')[0]}-{artifact.digest}")
        if not all((folder / file).is_file() for file in files):
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as beside:
                artifact.download(root=beside)
                if lacking := [file for file in files if not (Path(beside) / file).is_file()]:
                    raise ArtifactError(f"{name} holds no {' and no '.join(lacking)}: it is no model of this workbench")
                folder.mkdir(exist_ok=True)
                for file in files:
                    (Path(beside) / file).replace(folder / file)
    except ArtifactError:
        raise
    except Exception as error:  # no network, no key, no such artifact, an old server
        text = without_secrets(" ".join(str(error).split()))[:_LETTERS_OF_A_REASON]
        raise ArtifactError(f"{type(error).__name__}: {text}") from error
    return folder
