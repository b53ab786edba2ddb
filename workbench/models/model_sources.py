"""Where a portable model comes from: this disk, a repository of the Hugging Face hub, or an artifact of W&B."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench import hub_client, wandb_client
from workbench.specs.errors import UserError

HUB, WANDB = "hub:", "wandb:"
TENSORS, DESCRIPTION = "model.safetensors", "model.json"
SOURCES = "a run or model folder, hub:owner/name[@revision], or wandb:entity/project/name[:alias]"
SILENCE_SECONDS = 30.0
"""Silence of a hub after which it counts as stalled; a choice of this project."""
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAMED = 3


def local_path(source: str | Path) -> Path:
    """Return where a model's files lie on this disk, fetching them if they are elsewhere.

    Args:
        source: A path, `hub:owner/name[@revision]` or `wandb:entity/project/name[:alias]` (`latest` without one).

    Raises:
        UserError: No such form, or a server that refuses, stalls or cannot be reached.
    """
    text = str(source)
    try:
        if match := re.fullmatch(rf"{HUB}({_PART}/{_PART})(?:@([\w./-]+))?", text):
            return hub_client.repository_folder(match[1], (DESCRIPTION, TENSORS), match[2], SILENCE_SECONDS)
        if match := re.fullmatch(rf"{WANDB}({_PART}/{_PART}/{_PART})(?::([\w.-]+))?", text):
            return wandb_client.artifact_folder(f"{match[1]}:{match[2] or 'latest'}", (DESCRIPTION, TENSORS))
    except (hub_client.HubError, wandb_client.ArtifactError) as error:
        remedy = "check the name, the network, and whether you are logged in: `hf auth login`, `wandb login`"
        raise UserError.of(text, error, "a model that can be fetched", remedy) from error
    if text.startswith((HUB, WANDB)) and not Path(source).exists():
        raise UserError.of("model", text, SOURCES, "name it like these")
    return Path(source)


def fitting_classes(own: Sequence[str], wanted: Sequence[str] | Mapping[str, str] | None) -> tuple[str, ...]:
    """Return a model's class names, checked against a list of them or renamed by a map.

    Args:
        own: The model's, in the order of its outputs.
        wanted: The same names in the same order, or a map from old name to new one.

    Raises:
        UserError: Other names, another order, a name that the model does not have, or two classes of one name.
    """
    if wanted is None:
        return tuple(own)
    if isinstance(wanted, Mapping):
        if unknown := [name for name in wanted if name not in set(own)]:
            given = f"{len(unknown)} names that are not the model's, such as {', '.join(map(str, unknown[:_NAMED]))}"
            raise UserError.of("classes", given, "names of the model", f"it has {', '.join(own[:_NAMED])} ...")
        renamed = tuple(wanted.get(name, name) for name in own)
        if twice := sorted({name for name in renamed if renamed.count(name) > 1}):
            given = f"two classes called {twice[0]}"
            raise UserError.of("classes", given, "a name for each class", "give each its own")
        return renamed
    given = tuple(wanted)
    if given != tuple(own):
        pairs = [f"{i}: {a} is not {b}" for i, (a, b) in enumerate(zip(given, own, strict=False)) if a != b]
        told = f"{len(given)} classes for a model of {len(own)}" + (f" ({'; '.join(pairs[:_NAMED])})" if pairs else "")
        raise UserError.of("classes", told, "the model's own in its order", "to rename give a map {old: new}")
    return given
