"""The network on loopback: a hub and a file server that the real clients talk to, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

GIT_ENDINGS = (".md", ".txt", ".json", ".jsonl", ".csv", ".yaml", ".py")  # every other file is in LFS
VERBS = r"(?:/(?P<verb>revision|tree|paths-info|resolve)/(?P<rev>[^/]+)(?:/(?P<path>.+))?)?"
KINDS = r"/(?:(?:api/)?datasets/|api/models/|(?=[^/]+/[^/]+/resolve/))"  # models' files have no prefix
HUB_PATH = re.compile(KINDS + r"(?P<repo>[^/]+/[^/]+)" + VERBS)
PORTAL = b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>"


@dataclass
class Fault:
    """What goes wrong with the next requests whose path contains `match`.

    `cut`, `stall` and `wrong` spoil the body, so they let HEAD pass; `html` is a log-in page with status 200.
    """

    match: str
    kind: Literal["status", "cut", "stall", "wrong", "html"]
    times: int = 1  # how many requests it hits
    method: str = ""  # hit this one only, such as GET; empty hits all
    status: int = 503  # of kind `status`
    code: str = ""  # its X-Error-Code: EntryNotFound, RepoNotFound, RevisionNotFound or GatedRepo
    share: float = 0.5  # of the body, sent by `cut` and `stall`
    seconds: float = 5.0  # of a stall; keep it above the client's timeout

    def hits(self, method: str, path: str) -> bool:
        if method == "HEAD" and self.kind in ("cut", "stall", "wrong"):
            return False
        return self.times > 0 and self.match in path and self.method in ("", method)


@dataclass
class Answer:
    """A whole answer, before a fault or a Range header changes it."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: FileServer  # which keeps its own log

    def log_message(self, *_):
        pass

    def _serve(self):
        url = urlsplit(self.path)
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        answer = self.site.find(url.path, parse_qs(url.query) | parse_qs(form))
        fault = self.site.next_fault(self.command, unquote(url.path))
        kind = fault.kind if fault else ""
        if kind == "status":
            answer = Answer(b"broken on purpose", fault.status, {"X-Error-Code": fault.code} if fault.code else {})
        elif kind == "html":
            answer = Answer(PORTAL, headers={"Content-Type": "text/html"})
        else:
            if kind == "wrong":
                start = len(answer.body) // 2
                flipped = bytes(byte ^ 0xFF for byte in answer.body[start : start + 4])
                answer.body = answer.body[:start] + flipped + answer.body[start + 4 :]
            answer = _ranged(answer, self.headers.get("Range"))
        self.site.log.append((self.command, unquote(url.path), answer.status))
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            share = fault.share if kind in ("cut", "stall") else 1
            self.wfile.write(answer.body[: int(share * len(answer.body))])
        if kind == "stall":
            self.site.closing.wait(fault.seconds)
        self.close_connection = self.close_connection or kind in ("cut", "stall")

    def handle(self):
        with suppress(ConnectionError):  # the client may leave early
            super().handle()

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815


def _ranged(answer: Answer, wanted: str | None) -> Answer:
    """Return the asked range of a good answer, as 206 or 416."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if answer.status != 200 or match is None:
        return answer
    size = len(answer.body)
    first, last = int(match[1]), min(int(match[2] or size), size - 1)
    if first > last:
        return Answer(b"", 416, {"Content-Range": f"bytes */{size}"})
    span = {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(answer.body[first : last + 1], 206, answer.headers | span)


class FileServer:
    """Plain GET and HEAD downloads, as a context manager. `files` is content by path, without a leading slash."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, int]] = []  # method, path, status
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Return the first fault that hits a request, one time used up; None for normal service."""
        with self._lock:
            fault = next((fault for fault in self.faults if fault.hits(method, path)), None)
            if fault:
                fault.times -= 1
            return fault

    def find(self, path: str, fields: dict[str, list[str]]) -> Answer:
        """Return the whole answer to a quoted path; `fields` are those of the query and of a posted form."""
        data = self.files.get(unquote(path).lstrip("/"))
        return Answer(status=404) if data is None else Answer(data)


class HubServer(FileServer):
    """Repositories as the Hugging Face hub serves them: `owner/name` to content by path; one commit each."""

    def __init__(self, repos: dict[str, dict[str, bytes]]):
        super().__init__({})
        self.repos = repos

    def commit(self, repo: str) -> str:
        """Return the 40-hex commit of a repository: a hash of its paths and bytes."""
        sums = [(path, hashlib.sha1(data).hexdigest()) for path, data in sorted(self.repos[repo].items())]
        return hashlib.sha1(json.dumps(sums).encode()).hexdigest()

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment of a process whose clients see this hub alone, keep to `cache`, and wait 2 s."""
        foreign = re.compile(r"HF_|HUGGING|TRANSFORMERS_OFFLINE$|.*_PROXY$", re.IGNORECASE)
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
        own |= {"HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        own["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"  # else `datasets` asks s3.amazonaws.com
        return {name: value for name, value in os.environ.items() if not foreign.match(name)} | own

    def find(self, path: str, fields: dict[str, list[str]]) -> Answer:
        """Answer as the hub does; of an unknown repository it says 401, not 404."""
        match = HUB_PATH.fullmatch(path)
        if match is None:
            return Answer(status=404)
        repo, verb = unquote(match["repo"]), match["verb"] or "revision"
        if repo not in self.repos:
            return Answer(status=401, headers={"X-Error-Code": "RepoNotFound"})
        commit, files = self.commit(repo), self.repos[repo]
        if unquote(match["rev"] or "main") not in ("main", commit):
            return Answer(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        entries, wanted = _listing(files), unquote(match["path"] or "")
        known = {"resolve": files.keys(), "tree": entries.keys() - files.keys() | {""}}
        if wanted not in known.get(verb, {wanted}):
            return Answer(status=404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        if verb == "resolve":
            entry = entries[wanted]
            etag = f'"{entry.get("lfs", entry)["oid"]}"'
            linked = {"X-Linked-Etag": etag, "X-Linked-Size": str(entry["size"])} if "lfs" in entry else {}
            return Answer(files[wanted], headers={"X-Repo-Commit": commit, "ETag": etag} | linked)
        if verb == "paths-info":
            return Answer(json.dumps([entries[name] for name in fields.get("paths", []) if name in entries]).encode())
        if verb == "tree":
            prefix = f"{wanted}/" if wanted else ""
            deep = fields.get("recursive") == ["true"]
            inside = [name for name in entries if name.startswith(prefix) and (deep or "/" not in name[len(prefix) :])]
            return Answer(json.dumps([entries[name] for name in sorted(inside)]).encode())
        siblings = [{"rfilename": name} for name in sorted(files)]
        if "blobs" in fields:
            siblings = [entries[name] | {"rfilename": name, "blobId": entries[name]["oid"]} for name in sorted(files)]
        return Answer(json.dumps({"id": repo, "sha": commit, "private": False, "siblings": siblings}).encode())


def _listing(files: dict[str, bytes]) -> dict[str, dict]:
    """Return the tree entry of every file and folder by its path."""
    entries = {}
    for path, data in files.items():
        for folder in PurePosixPath(path).parents[:-1]:
            entries[str(folder)] = {"type": "directory", "path": str(folder), "oid": "0" * 40, "size": 0}
        entries[path] = {"type": "file", "path": path, "size": len(data)}
        entries[path]["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if not path.endswith(GIT_ENDINGS):
            digest = hashlib.sha256(data).hexdigest()  # `oid` in trees, `sha256` in siblings
            entries[path]["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}
    return entries


def make_parquet(rows: list[dict], features: Features, *, described: bool = True) -> bytes:
    """Return rows as a parquet file. An image is `{"bytes": ..., "path": ...}`.

    Hub copies keep the features in the file's metadata; without `described`, the columns are plain.
    """
    buffer = io.BytesIO()
    Dataset.from_list(rows, features=features).to_parquet(buffer)
    if not described:
        plain = pq.read_table(buffer).replace_schema_metadata(None)
        pq.write_table(plain, buffer := io.BytesIO())
    return buffer.getvalue()


def make_readme(configs: dict[str, dict[str, tuple[str, int]]], features: Features | None = None) -> bytes:
    """Return a README.md whose YAML declares configurations: name to splits, split to (path pattern, rows).

    `dataset_info`, with the features and the numbers of rows, is written where features are given.
    """
    card = DatasetCardData()
    for config, splits in configs.items():
        files = [{"split": split, "path": path} for split, (path, _) in splits.items()]
        MetadataConfigs({config: {"data_files": files}}).to_dataset_card_data(card)
        if features is not None:
            sizes = {split: SplitInfo(split, num_bytes=1, num_examples=rows) for split, (_, rows) in splits.items()}
            info = DatasetInfo(features=features, splits=SplitDict(sizes))
            DatasetInfosDict({config: info}).to_dataset_card_data(card)
    return f"---\n{card.to_yaml()}\n---\n".encode()
