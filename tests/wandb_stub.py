"""A stand-in for W&B's server on loopback: it answers wandb's own client, keeps what is sent, and can misbehave."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from wandb_answers import Answers

KEY = "0123456789abcdef" * 2 + "01234567"


class WandbStub(Answers):
    """The server. `fault(operation, count)` may return a status, "stall" or "drop" in place of an answer.

    Operations are GraphQL names, `file_stream` and `upload`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.fault = lambda operation, count: None
        self.lock = threading.RLock()
        self.released = threading.Event()

    def __enter__(self) -> WandbStub:
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; whoever is being stalled is let go."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What a client needs to come here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}


class _Handler(BaseHTTPRequestHandler):
    stub: WandbStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Serve a connection; a client may drop it."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _misbehave(self, operation: str) -> bool:
        with self.stub.lock:
            self.stub.asked.append(operation)
            fault = self.stub.fault(operation, self.stub.asked.count(operation))
        if fault is None:
            return False
        if fault == "stall":
            self.stub.released.wait(60)
        if isinstance(fault, int):
            self._send({"errors": [{"message": f"the test wants status {fault}"}], "error": "as wanted"}, fault)
        self.close_connection = True
        return True

    def _send(self, answer: Any, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()
        with self.stub.lock:
            self.stub.bodies.append(body)
        if self.path.startswith("/graphql"):
            sent = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])[1]
            if not self._misbehave(operation):
                with self.stub.lock:
                    data = self.stub.answer(operation, sent["query"], sent.get("variables") or {})
                self._send({"data": data})
        elif self.path.endswith("/file_stream"):
            if not self._misbehave("file_stream"):
                with self.stub.lock:
                    self.stub.stream(tuple(self.path.split("/")[-4:-1]), json.loads(body))
                self._send({})
        else:
            self._send({})

    def do_PUT(self) -> None:  # noqa: N802
        body = self._body()
        if not self._misbehave("upload"):
            with self.stub.lock:
                self.stub.bodies.append(body)
                self.stub.keep(self.path, body)
            self._send({})

    def do_GET(self) -> None:  # noqa: N802
        self._send({})
