"""Send a finished model to a repository of the Hugging Face hub or to W&B, whole or not at all, and check it there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import hub_client
from workbench.models.portable import DESCRIPTION, TENSORS, read_description
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.training import model_card, run_folder
from workbench.training.tracking import start_seconds

HUB, WANDB = "hub:", "wandb:"
TARGETS = "hub:owner/name or wandb:entity/project/name"
SILENCE_SECONDS = 60.0
"""Silence of a hub after which it counts as stalled; a choice of this project."""
UPLOAD_SECONDS = 600.0
"""How long W&B may take for all: B7's 256 MB need 205 s at 10 Mbit/s."""
_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_LETTERS_OF_A_REASON = 300
_REMEDIES = {
    401: "log in again with a token that may write: `hf auth login`, or set HF_TOKEN",
    403: "ask for the right to write there, or choose an owner that is you; the token too must allow writing",
    404: "check the owner's name",
    413: "the hub says that it is too large: see what your plan allows",
    429: "the hub has had enough requests: wait some minutes",
}


def push(
    model: str | Path,
    target: str,
    *,
    public: bool = False,
    update: bool = False,
    licence: str | None = None,
    aliases: Sequence[str] = (),
) -> str:
    """Send a model, its card, recipe and result.

    Args:
        model: A run folder or model folder. Its README.md is sent as the card; if it has none, one is written for the
            purpose.
        target: `hub:owner/name` or `wandb:entity/project/name`.
        public: A repository that is made by this is open to everybody; else it is private. Only of the hub.
        update: A repository that holds something may be added to. Only of the hub; W&B keeps every version.
        licence: One of the hub's identifiers, for a card that is written.
        aliases: Beside W&B's own `latest`.

    Returns:
        The address of what was made, with the version that can be asked for.

    Raises:
        UserError: No model there, no such target, or a server that refuses, stalls or cannot be reached.
    """
    folder, description = read_description(model)
    if hub_client.sha256_of(folder / TENSORS) != description["sha256"]:
        given = "not the file that its description was written for (SHA-256 differs)"
        raise UserError.of(folder / TENSORS, given, description["sha256"], "bring both files of one model together")
    if target.startswith(HUB) and re.fullmatch(f"{_NAME}/{_NAME}", name := target.removeprefix(HUB)):
        card = _card(folder, description, target, licence)
        return _to_hub(folder, card, name, public, update)
    if target.startswith(WANDB) and re.fullmatch(f"{_NAME}/{_NAME}/{_NAME}", name := target.removeprefix(WANDB)):
        card = _card(folder, description, target + ":latest", licence)
        return _to_wandb(folder, description, card, name.split("/"), aliases)
    raise UserError.of("push", target, TARGETS, "name a target like these")


def _card(folder: Path, description: Mapping[str, Any], where: str, licence: str | None) -> bytes:
    """Return the card: the folder's own, if it has one."""
    own = folder / model_card.FILE
    if own.is_file():
        if licence is not None:
            given = f"--license with a card that is there ({own})"
            raise UserError.of("push", given, "one of both", f"write `license: {licence}` in it, or take it away")
        return own.read_bytes()
    return model_card.model_card(folder, description, where, licence or model_card.UNKNOWN_LICENCE).encode()


def _files(folder: Path) -> list[Path]:
    beside = [folder / name for name in (run_folder.RECIPE, run_folder.RESULT)]
    return [folder / TENSORS, folder / DESCRIPTION, *filter(Path.is_file, beside)]


def _to_hub(folder: Path, card: bytes, name: str, public: bool, update: bool) -> str:
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import RepositoryNotFoundError

    token = huggingface_hub.get_token()
    if token is None:
        raise UserError.of("push", "no token of the hub", "a token that may write", _REMEDIES[401])
    api = huggingface_hub.HfApi(endpoint=huggingface_hub.constants.ENDPOINT, token=token)
    additions = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in _files(folder)]
    additions.append(CommitOperationAdd(path_in_repo=model_card.FILE, path_or_fileobj=card))
    try:
        with hub_client.impatient(SILENCE_SECONDS):
            try:
                there = {s.rfilename for s in api.model_info(name).siblings or ()} - {".gitattributes"}
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401 and not _is_known(api):
                    raise  # the hub says 401 of a repository that is not there, and of a token that it does not know
                there = set()
                api.create_repo(name, private=not public)
            if there and not update:
                given = f"{name}, which exists and holds {len(there)} files"
                raise UserError.of("push", given, "a new repository, or --update", "add --update, or choose a new name")
            made = api.create_commit(name, additions, commit_message=f"Push {folder.name}")
            _check_there(api, name, made.oid, folder)
    except UserError:
        raise
    except Exception as error:  # whatever a server or a network can do
        raise _refusal(name, error) from error
    return f"{made.commit_url}\nload it with {HUB}{name}@{made.oid}"


def _is_known(api: Any) -> bool:
    """Tell whether the hub knows whose token this is."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.whoami()
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            return False
        raise
    return True


def _check_there(api: Any, name: str, revision: str, folder: Path) -> None:
    """Compare the hub's hashes with the files that were sent."""
    listed = {s.rfilename: s for s in api.model_info(name, revision=revision, files_metadata=True).siblings}
    for file in (folder / TENSORS, folder / DESCRIPTION):
        if file.name not in listed or not hub_client.is_as_listed(file, listed[file.name]):
            given = f"{file.name} is not there as it was sent"
            raise UserError.of(f"hub {name}", given, "the same bytes", "push again with --update")


def _refusal(name: str, error: Exception) -> UserError:
    from huggingface_hub.errors import HfHubHTTPError

    cause = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) and cause.response is not None else None
    text = without_secrets(" ".join(str(error).split()))[:_LETTERS_OF_A_REASON]
    given = f"the hub answers {status}: {text}" if status else f"{type(error).__name__}: {text or 'no answer'}"
    remedy = _REMEDIES.get(status, "see what it says; nothing of the model was published unless it says so")
    if status is None:
        remedy = "check the network and HF_ENDPOINT, then push again"
    return UserError.of(f"hub {name}", given, "a hub that takes it", remedy)


def _to_wandb(
    folder: Path, description: Mapping[str, Any], card: bytes, name: Sequence[str], aliases: Sequence[str]
) -> str:
    import wandb

    entity, project, collection = name
    result = description["provenance"].get("result") or {}
    kept = ("recipe", "arch", "weights", "dataset", "metric", "selection", "test", "steps", "seed")
    artifact = wandb.Artifact(collection, type="model", metadata={key: result[key] for key in kept if key in result})
    for file in _files(folder):
        artifact.add_file(str(file))
    with artifact.new_file(model_card.FILE, mode="wb") as written:
        written.write(card)
    with tempfile.TemporaryDirectory() as scratch:
        settings = wandb.Settings(silent=True, console="off", disable_code=True, init_timeout=start_seconds())
        settings.finish_timeout = UPLOAD_SECONDS
        run = None
        try:
            run = wandb.init(
                entity=entity, project=project, job_type="push", dir=scratch, mode="online", settings=settings
            )
            sent = run.log_artifact(artifact, aliases=["latest", *aliases]).wait(timeout=int(UPLOAD_SECONDS))
            version = sent.version
        except Exception as error:  # no network, no such key, no quota, an old server
            text = without_secrets(" ".join(str(error).split()))[:_LETTERS_OF_A_REASON]
            given, remedy = f"{type(error).__name__}: {text}", "check `wandb login`, the entity's name and the network"
            raise UserError.of(f"W&B {'/'.join(name)}", given, "a server that takes it", remedy) from error
        finally:
            if run is not None:
                run.finish()
    return f"{run.url}\nload it with {WANDB}{'/'.join(name)}:{version}"
