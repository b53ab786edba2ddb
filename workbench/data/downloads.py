"""Fetch a set's original files through torchvision, with its checksums; a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import socket
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.specs.errors import UserError

log = logging.getLogger("workbench")
TIMEOUT_SECONDS = 30.0
"""Silence of a server after which it counts as stalled."""
DONE = ".complete"
"""Beside files that have all come."""
ATTEMPTS = 3
PAUSE_SECONDS = 2.0
"""Before the second attempt; doubled before each later one."""


MOST_LETTERS = 300
"""Of a client's own text in a reason."""


class SourceError(Exception):
    """A source that does not give the set; its text is the reason."""


def fetch_torchvision(dataset: str, folder: Path) -> None:
    """Download and unpack a set as `torchvision.datasets` lays it out under a root.

    Args:
        dataset: Class in `torchvision.datasets`.
        folder: The root to fill; whatever was in it is removed first. A second call after success does nothing.

    Raises:
        SourceError: With the reason of the last attempt; the folder is gone then.
        UserError: No space.
    """
    import torchvision.datasets

    done = folder / DONE
    if done.is_file():
        return
    make: Any = getattr(torchvision.datasets, dataset, None)
    if not (isinstance(make, type) and issubclass(make, torchvision.datasets.VisionDataset)):
        raise SourceError(f"torchvision.datasets has no set {dataset!r:.80}")

    def fetch() -> None:
        shutil.rmtree(folder, ignore_errors=True)  # torchvision would take a half-unpacked folder for a whole one
        folder.mkdir(parents=True)
        with _impatient(), _quiet(), careful_archives(folder):
            make(root=str(folder), download=True)

    try:
        persistently(fetch, f"torchvision's {dataset}", lambda: _web_page_in(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for archive in (*folder.rglob("*.tgz"), *folder.rglob("*.tar.gz")):
        archive.unlink()  # unpacked already
    done.touch()


def persistently(fetch: Callable[[], Any], what: str, explain: Callable[[], str | None] = lambda: None) -> Any:
    """Call `fetch` up to `ATTEMPTS` times, with pauses, and return what it returns.

    Args:
        fetch: Raises on failure; a 4xx answer or a full disk is not tried again.
        what: What is fetched, for the log.
        explain: Says more of a failure from what it left, or None.

    Raises:
        SourceError: With the reason of the last attempt.
        UserError: What `fetch` raises of that kind.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return fetch()
        except UserError:
            raise
        except Exception as error:  # whatever a server can do
            text = " ".join(str(error).split())[:MOST_LETTERS]
            reason = explain() or (text if isinstance(error, SourceError) else f"{type(error).__name__}: {text}")
            if attempt == ATTEMPTS or _is_final(error):
                raise SourceError(reason) from error
            log.info("%s: %s; trying again (%d of %d)", what, reason, attempt + 1, ATTEMPTS)
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    return None


def check_room(folder: Path, gigabytes: float, what: str) -> None:
    """Check that something fits.

    Args:
        folder: Where.
        gigabytes: Its size.
        what: What happens to it, for the message.

    Raises:
        UserError: It does not.
    """
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise UserError.of(
            folder.parent,
            f"{free:.1f} GB free",
            f"{gigabytes:.1f} GB, {what}",
            "free some space, or write elsewhere with data.prepared_root=DIR",
        )


def _is_final(error: Exception) -> bool:
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    full = isinstance(error, OSError) and error.errno in (13, 28, 30, 122)
    return full or (isinstance(status, int) and 400 <= status < 500 and status not in (408, 429))


def _web_page_in(folder: Path) -> str | None:
    """Return a sentence if a file under a folder is a web page under another name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".gz", ".tgz", ".mat", ".tar", ".zip"):
            start = path.read_bytes()[:256] if path.stat().st_size < 256 else path.open("rb").read(256)
            if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
                return f"the server sent a web page in place of {path.name}"
    return None


@contextlib.contextmanager
def careful_archives(folder: Path) -> Iterator[None]:
    """Let no archive that is unpacked meanwhile fill the disk, write outside its folder, or make a device.

    Links and paths that lead outside are tarfile's own `data` filter's to refuse; zipfile would cut them short in
    silence. The sizes that members state, of which neither unpacks more, are held against the free space.

    Args:
        folder: On the disk that is written to.
    """
    tar, packed = tarfile.TarFile.extractall, zipfile.ZipFile.extractall

    def from_tar(archive: tarfile.TarFile, *args: Any, **options: Any) -> None:
        free, stated = shutil.disk_usage(folder).free, 0

        def careful(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo | None:
            nonlocal stated
            stated += member.size  # as they come: a list of all would have to unpack everything first
            _check_size(stated, free)
            return tarfile.data_filter(member, place)

        tar(archive, *args, **{**options, "filter": careful})

    def from_zip(archive: zipfile.ZipFile, *args: Any, **options: Any) -> None:
        _check_size(sum(member.file_size for member in archive.infolist()), shutil.disk_usage(folder).free)
        for name in archive.namelist():
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise SourceError(f"the archive holds {name!r:.80}, which leads out of its folder")
        packed(archive, *args, **options)

    tarfile.TarFile.extractall, zipfile.ZipFile.extractall = from_tar, from_zip
    try:
        yield
    finally:
        tarfile.TarFile.extractall, zipfile.ZipFile.extractall = tar, packed


def _check_size(num_bytes: int, free: int) -> None:
    if num_bytes > free:
        raise SourceError(f"the archive holds {num_bytes / 1e9:.1f} GB or more, and {free / 1e9:.1f} GB are free")


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let a socket that stays silent fail: urllib, which torchvision uses, would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchvision's progress bars off anything but a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
