"""The Hugging Face hub's client, made impatient and distrustful: time limits, and hashes that are really checked.

`huggingface_hub` fetches and caches, but waits for a silent server for ever in places, and checks no hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MOST_LETTERS = 300
"""Of a client's own text in a reason."""


class HubError(Exception):
    """The hub does not give a file; the text is the reason."""


@contextlib.contextmanager
def impatient(seconds: float) -> Iterator[None]:
    """Give every request of the hub's client a limit: some of its calls would wait for a silent server for ever."""
    import huggingface_hub

    def limit(request: Any) -> None:
        asked = request.extensions.get("timeout", {})
        limits = {kind: asked.get(kind) or seconds for kind in ("connect", "read", "write", "pool")}
        request.extensions["timeout"] = limits

    hooks = huggingface_hub.get_session().event_hooks["request"]
    hooks.append(limit)
    try:
        yield
    finally:
        hooks.remove(limit)


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_as_listed(file: Path, listed: Any) -> bool:
    """Tell whether a file has the bytes that the hub's listing says: its SHA-256 (large files) or git's own hash."""
    if listed.lfs:
        return sha256_of(file) == listed.lfs.sha256
    data = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return blob.hexdigest() == listed.blob_id


def model_file(repository: str, path: str, revision: str | None, sha256: str, seconds: float) -> Path:
    """Return a file of a model repository from the hub's cache, fetching it if it is not there.

    What is cached is used as it is, without asking the hub, unless its hash is wrong. A file with wrong bytes is
    removed and fetched once more.

    Args:
        repository: `owner/name`.
        path: The file in it.
        revision: Commit or branch; None for the main branch.
        sha256: First digits of the hash; if empty, the hub's own hash of the file.
        seconds: Silence of the server after which it counts as stalled.

    Returns:
        The file in the cache.

    Raises:
        HubError: It cannot be had, or came twice with the wrong bytes.
    """
    import huggingface_hub

    where = {"repo_id": repository, "filename": path, "revision": revision or "main"}
    cached = huggingface_hub.try_to_load_from_cache(**where)
    if isinstance(cached, str) and _keep(Path(cached), sha256 or _hash_in_cache(Path(cached))):
        return Path(cached)
    with impatient(seconds):
        for _ in range(2):
            try:
                expected = sha256 or _listed_sha256(repository, path, where["revision"])
                file = Path(huggingface_hub.hf_hub_download(**where, etag_timeout=seconds))
            except HubError:
                raise
            except json.JSONDecodeError as error:
                raise HubError("it is not the hub that answers, but perhaps a network's log-in page") from error
            except Exception as error:  # whatever a server can do
                text = " ".join(str(error).split())[:MOST_LETTERS]
                raise HubError(f"{type(error).__name__}: {text}") from error
            if _keep(file, expected):
                return file
    raise HubError(f"{path} came twice with other bytes than its hash says ({expected}); it was removed")


def repository_folder(repository: str, names: Sequence[str], revision: str | None, seconds: float) -> Path:
    """Return a folder with files of a model repository, each with the bytes that the hub lists for one commit.

    Without a network what is cached of that revision is taken.

    Args:
        repository: `owner/name`.
        names: Files in it.
        revision: Commit or branch; None for the main branch.
        seconds: Silence of the server after which it counts as stalled.

    Raises:
        HubError: They cannot be had, or came with other bytes than listed.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with impatient(seconds):
            api = huggingface_hub.HfApi(endpoint=huggingface_hub.constants.ENDPOINT)
            info = api.model_info(repository, revision=revision or "main", files_metadata=True)
            listed = {sibling.rfilename: sibling for sibling in info.siblings}
            if lacking := [name for name in names if name not in listed]:
                raise HubError(f"{repository} has no {' and no '.join(lacking)}: it is no model of this workbench")
            where = {"repo_id": repository, "revision": info.sha, "etag_timeout": seconds}
            files = [Path(huggingface_hub.hf_hub_download(filename=name, **where)) for name in names]
    except HubError:
        raise
    except Exception as error:  # whatever a server can do
        cached = [
            huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or "main") for name in names
        ]
        if not isinstance(error, HfHubHTTPError) and all(isinstance(file, str) for file in cached):
            return Path(cached[0]).parent
        text = " ".join(str(error).split())[:MOST_LETTERS]
        raise HubError(f"{type(error).__name__}: {text}") from error
    for name, file in zip(names, files, strict=True):
        if not is_as_listed(file, listed[name]):
            file.resolve().unlink()
            raise HubError(f"{name} came with other bytes than the hub lists; it was removed: try again")
    return files[0].parent


def cache_folder() -> str:
    """Return where the hub's client keeps what it fetched."""
    import huggingface_hub

    return huggingface_hub.constants.HF_HUB_CACHE


def _keep(file: Path, digits: str) -> bool:
    """Tell whether a file's SHA-256 begins with these digits, and remove the file from the cache if not."""
    if sha256_of(file).startswith(digits):
        return True
    file.resolve().unlink()
    file.unlink(missing_ok=True)
    return False


def _hash_in_cache(file: Path) -> str:
    """Return the hub's own hash of a cached file, if the cache tells it: it links to a large file under that name."""
    linked = file.readlink().name if file.is_symlink() else ""
    return linked if re.fullmatch("[0-9a-f]{64}", linked) else ""


def _listed_sha256(repository: str, path: str, revision: str) -> str:
    """Ask the hub for the hash that it keeps of a large file."""
    import huggingface_hub

    info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    listed = {sibling.rfilename: sibling.lfs for sibling in info.siblings}
    if path not in listed:
        raise HubError(f"{repository} at {revision} has no {path}, only {', '.join(listed) or 'no files'}")
    if listed[path] is None:
        raise HubError(f"the hub keeps no SHA-256 of {path}")
    return listed[path].sha256
