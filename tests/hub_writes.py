"""A hub on loopback that can be written to, as `huggingface_hub` 2.4 writes: create, preupload, LFS, commit."""

from __future__ import annotations

import base64
import json
import re
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

import yaml
from loopback import GIT_ENDINGS, HubServer, _Handler

TOKEN = "hf_" + "0123456789abcdef" * 2
COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


class _WritingHandler(_Handler):
    def do_GET(self):  # noqa: N802
        if self._is_refused():
            return
        if urlsplit(self.path).path == "/api/whoami-v2":
            self._say({"name": "me", "type": "user"})
        else:
            self._serve()

    def do_PUT(self):  # noqa: N802
        self.site.uploaded[self.path.rsplit("/", 1)[-1]] = self._body()
        self._say({})

    def do_POST(self):  # noqa: N802
        path = urlsplit(self.path).path
        writes = {"/api/repos/create": self._create, "/api/validate-yaml": self._validate}
        known = writes.get(path) or (COMMIT.fullmatch(path) and self._commit) or (BATCH.fullmatch(path) and self._batch)
        if not known:
            self._serve()
        elif not self._is_refused():
            fault = self.site.next_fault("POST", path)
            body = self._body()
            if fault:
                self._say({"error": "broken on purpose"}, fault.status)
            else:
                self.site.asked.append(path)
                known(path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _say(self, answer, status=200):
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _is_refused(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return False
        self._body()
        self._say({"error": "Invalid credentials in Authorization header"}, 401)
        return True

    def _create(self, path, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            self._say({"error": f"You don't have the rights to create a model under {asked['organization']}"}, 403)
            return
        self.site.created[name] = asked
        self.site.repos[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self._say({"url": f"{self.site.url}/{name}"})

    def _validate(self, path, body):
        card = json.loads(body)["content"]
        self.site.metadata = yaml.safe_load(card.split("---\n")[1])
        self._say({"errors": [], "warnings": []})

    def _batch(self, path, body):
        wanted = json.loads(body)["objects"]
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.site.url}/lfs/{each['oid']}", "header": {}}}}
            for each in wanted
        ]
        self._say({"transfer": "basic", "objects": objects})

    def _commit(self, path, body):
        repo, verb = COMMIT.fullmatch(path).groups()
        if verb == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "regular" if name.endswith(GIT_ENDINGS) else "lfs" for name in files}
            self._say({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
            return
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.site.repos[repo][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.site.repos[repo][value["path"]] = self.site.spoil(self.site.uploaded[value["oid"]])
        commit = self.site.commit(repo)
        self._say({"success": True, "commitOid": commit, "commitUrl": f"{self.site.url}/{repo}/commit/{commit}"})


class WritableHub(HubServer):
    """A hub where `me` may write with `TOKEN`. `created` holds what repositories were asked for, by name."""

    def __init__(self, repos: dict[str, dict[str, bytes]]):
        super().__init__(repos)
        self.created: dict[str, dict] = {}
        self.uploaded: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.metadata: dict = {}
        self.spoil = lambda data: data

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_WritingHandler,), {"site": self}))
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self
