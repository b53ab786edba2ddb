"""A dataset on the Hugging Face hub: its files at one commit, each checked against the hub's own hash before use.

`datasets` says which files a split has and reads them; `huggingface_hub` fetches them; neither checks a hash.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.data.dataset_rows import found_in_pieces, unreadable, with_unused
from workbench.data.downloads import TIMEOUT_SECONDS, SourceError, check_room, persistently
from workbench.data.found import Found
from workbench.data.md5_recovery import Recovered, recover
from workbench.data.pieces import Piece, stream
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.hub_client import impatient, is_as_listed
from workbench.specs.card import DatasetCard, Source, SplitNames
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")


def find_on_hub(source: Source, card: DatasetCard, folder: Path, originals: Path) -> Found:
    """Fetch what is missing of a dataset and return it.

    Args:
        source: The dataset, its columns and splits.
        card: The set; its classes give the labels.
        folder: Where its files go; complete ones in it are checked and kept.
        originals: Folder of the creators' files, for lists that the copy lacks.

    Raises:
        SourceError: The hub does not give it, with the reason.
        UserError: It is there, but not as the card or the recipe says; or no space.
    """
    what = f"hub {source.id}"
    with _quiet(), impatient(TIMEOUT_SECONDS):
        info = persistently(lambda: _dataset_info(source), what)
        described = persistently(lambda: _described(source, info.sha), what)
        files, unused = _files_of_splits(source, described, info.sha)
        hashes = {file.rfilename: file for file in info.siblings}
        wanted = [path for paths in files.values() for path in paths]
        wanted += [path for path in (source.md5_list, source.test_list) if path in hashes]
        _check_names([info.sha, *wanted], what)
        place = folder / source.id.replace("/", "--") / info.sha
        fetches = [_Fetch(source.id, info.sha, path, hashes[path], place) for path in wanted]
        missing = [fetch for fetch in fetches if not fetch.is_there()]
        sizes = (sum(fetch.listed.size or 0 for fetch in several) / 1e9 for several in (missing, fetches))
        check_room(folder.parent, sum(sizes), "fetched and prepared")
        for number, fetch in enumerate(missing, 1):
            log.info("%s: fetching %s (%d of %d)", what, fetch.path, number, len(missing))
            persistently(fetch, f"{what}: {fetch.path}")
        try:
            pieces = _pieces(files, described, hashes, place)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise unreadable(what, error) from error
    recovered = _recovered(pieces, source, (place, originals)) if source.md5_list else None
    return with_unused(found_in_pieces(pieces, source, card, f"{what} at {info.sha[:12]}", recovered), unused)


def _check_names(names: Iterable[str], what: str) -> None:
    """Refuse files that would be written outside of the folder that mirrors the copy.

    Raises:
        SourceError: There are some.
    """
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if {"", ".", ".."} & {*parts} or not name.isprintable():
            raise SourceError(f"{what} lists the file {name!r:.80}, which would lie outside its folder")


def _recovered(pieces: list[Piece], source: Source, places: tuple[Path, ...]) -> Recovered:
    """Recover the official test split, if the lists that this needs are anywhere."""
    names = source.md5_list, source.test_list
    found = [next((place / name for place in places if (place / name).is_file()), None) for name in names]
    gone = [name for name, file in zip(names, found, strict=True) if file is None]
    if gone:
        where = f"neither the copy nor {places[-1]} has {' and '.join(gone)}"
        return Recovered(stamp=f"official test not recovered, as {where}: test is held out of train instead")
    return recover(pieces, source, *found)


def _dataset_info(source: Source) -> Any:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    return api.dataset_info(source.id, revision=source.revision, files_metadata=True, timeout=TIMEOUT_SECONDS)


def _described(source: Source, sha: str) -> Any:
    """Return the builder of `datasets` for a copy: it knows the files of each split and what columns they have."""
    import datasets

    return datasets.load_dataset_builder(source.id, source.config, revision=sha)


def _files_of_splits(source: Source, described: Any, sha: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return our split -> paths in the repository, and the splits that are not asked for.

    Raises:
        UserError: A split that the copy does not have.
    """
    there = {
        str(name): [url.split(f"@{sha}/", 1)[1] for url in urls] for name, urls in described.config.data_files.items()
    }
    files = {}
    for ours, theirs in (
        (TRAIN, source.splits.train),
        (SELECTION, source.splits.selection),
        (TEST, source.splits.test),
    ):
        if theirs in there:
            files[ours] = there[theirs]
        elif theirs is not None and theirs != getattr(SplitNames(), ours):
            raise UserError.of(
                f"hub {source.id}",
                f"no split {theirs}",
                ", ".join(there),
                f"correct data.hub.splits.{ours}, or null it",
            )
    if TRAIN not in files:
        remedy = "name the split to train on in data.hub.splits.train"
        raise UserError.of(f"hub {source.id}", f"no split {source.splits.train}", ", ".join(there), remedy)
    return files, [name for name in there if name not in dataclasses.astuple(source.splits)]


class _Fetch:
    """Fetches one file and checks it; one that is wrong is removed, so that the next attempt begins anew.

    Args:
        repository: `owner/name`.
        sha: The commit.
        path: The file in it.
        listed: What the hub says of it: size, and sha256 (large files) or git's own hash.
        place: Folder that mirrors the repository.
    """

    def __init__(self, repository: str, sha: str, path: str, listed: Any, place: Path):
        self.repository, self.sha, self.path, self.listed, self.place = repository, sha, path, listed, place

    def is_there(self) -> bool:
        """Whether the file is complete already."""
        file = self.place / self.path
        return file.is_file() and is_as_listed(file, self.listed)

    def __call__(self) -> None:
        import huggingface_hub

        options = {"repo_type": "dataset", "revision": self.sha, "local_dir": self.place}
        file = Path(huggingface_hub.hf_hub_download(self.repository, self.path, **options))
        if not is_as_listed(file, self.listed):
            file.unlink()
            raise SourceError(f"{self.path} came with other bytes than the hub's hash says")


def _pieces(files: Mapping[str, list[str]], described: Any, hashes: Mapping[str, Any], place: Path) -> list[Piece]:
    """Open what was fetched: a parquet file at a time, other formats a split at a time."""
    kind, features = described.name, described.info.features
    groups = [(split, [path]) for split, paths in files.items() for path in paths]
    if kind != "parquet":
        groups = list(files.items())
    pieces = []
    for split, paths in groups:
        told = "\n".join(f"{path} {hashes[path].blob_id}" for path in paths)
        key = hashlib.sha256(told.encode()).hexdigest()
        size = sum(hashes[path].size or 0 for path in paths)
        only = place / paths[0] if len(paths) == 1 else None
        pieces.append(Piece(split, key, stream(kind, [place / path for path in paths], features), size, only, place))
    return pieces


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the clients' warnings and bars away: what fails is said once, by the ladder of sources."""
    import datasets
    import huggingface_hub.utils

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = [(module, module.are_progress_bars_disabled()) for module in (datasets, huggingface_hub.utils)]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    for module, _ in bars:
        module.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for module, was_off in bars:
            if not was_off:
                module.enable_progress_bars()
