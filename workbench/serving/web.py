"""The web application: a page for people, `POST /predict` for programs, `GET /health`.

A picture is the body of its request, as its file is: no form is parsed and nothing reaches a disk. A page of another
site can neither send pictures here nor read answers: a request that names another origin or host is refused.
"""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.serving.limits import Gate, Limits, RequestError
from workbench.serving.one_picture import Answer, OnePicture
from workbench.specs.errors import UserError
from workbench.specs.printable import printable

HERE = Path(__file__).resolve().parent
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
TOP = 5
"""Classes in an answer, if the request does not say."""
JPEG_QUALITY = 90
log = logging.getLogger("workbench")


def build_app(model: OnePicture, limits: Limits, hosts: frozenset[str] | None) -> Starlette:
    """Build the application.

    Args:
        model: What answers.
        limits: What is allowed.
        hosts: Names that a request may call this server by, without a port; any if None.
    """
    served = _Served(model, Gate(limits))
    routes = [
        Route("/", served.page),
        Route("/page.css", _file("page.css", "text/css")),
        Route("/page.js", _file("page.js", "text/javascript")),
        Route("/health", served.health),
        Route("/predict", served.predict, methods=["POST"]),
    ]
    told: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        RequestError: _refused,
        UserError: _not_answered,
        HTTPException: _no_such_page,
    }
    return Starlette(routes=routes, exception_handlers=told, middleware=[Middleware(_Guard, hosts=hosts)])


class _Guard:
    """Refuses what comes from elsewhere, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                made = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *made]
            await send(message)

        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin"))
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        answer: ASGIApp = self.app
        if self.hosts is not None and name not in self.hosts:
            answer = _error(403, f"this server is not called {name!r:.80}")
        elif origin and origin.split("://")[-1] != host:
            answer = _error(403, "pictures are taken from this server's own page and from programs only")
        await answer(scope, receive, with_headers)


class _Served:
    def __init__(self, model: OnePicture, gate: Gate):
        self.model, self.gate = model, gate
        loader = jinja2.FileSystemLoader(HERE)
        # autoescape: a model's names may come from anyone
        template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        self._page = template.get_template("page.jinja").render(
            arch=model.model.net.scaling.name,
            count=len(model.model.classes),
            dataset=_dataset(model.model.provenance),
            temperature=(model.model.calibration or {}).get("temperature"),
            multi_label=model.model.multi_label,
            upload_bytes=gate.limits.upload_bytes,
        )

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def health(self, request: Request) -> Response:
        net = self.model.model
        return JSONResponse({"status": "ready", "arch": net.net.scaling.name, "classes": len(net.classes)})

    async def predict(self, request: Request) -> Response:
        self.gate.count(request.client.host if request.client else "")
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/"):
            raise RequestError(415, "a form: send the file's bytes alone as the body, as curl --data-binary @FILE does")
        top, name, with_map = self._asked(request)
        try:
            data = await self.gate.body(request.stream(), request.headers.get("content-length"))
        except ClientDisconnect:
            return Response(status_code=400)
        async with self.gate.turn():
            began = time.perf_counter()
            answer = await run_in_threadpool(self.model.answer, data, top, name)
            seconds = time.perf_counter() - began
            body = await run_in_threadpool(_as_json, answer, with_map)
        calibrated = self.model.model.calibration is not None
        return JSONResponse({**body, "calibrated": calibrated, "seconds": round(seconds, 4)})

    def _asked(self, request: Request) -> tuple[int, str | None, bool]:
        """Return how many classes, which class to map and whether the map is wanted."""
        given = request.query_params
        if unknown := set(given) - {"top", "class", "map"}:
            raise RequestError(400, f"unknown {', '.join(sorted(unknown))!r:.80}; there are top, class and map")
        top = given.get("top", str(TOP))
        if not (top.isascii() and top.isdecimal() and len(top) < 7 and int(top)):
            raise RequestError(400, f"top is {top!r:.80}, not a whole number from 1")
        return int(top), given.get("class"), given.get("map", "0") != "0"


def _as_json(answer: Answer, with_map: bool) -> dict[str, Any]:
    rows = zip(answer.classes, answer.probabilities, strict=True)
    body: dict[str, Any] = {
        "answers": [{"class": name, "probability": round(share, 6)} for name, share in rows],
        "width": answer.size[0],
        "height": answer.size[1],
    }
    if with_map:
        pictures = {"seen": _data_uri(answer.look.crop), "overlay": _data_uri(answer.look.overlay())}
        body["map"] = {"class": answer.look.name, "method": answer.look.method, **pictures}
    return body


def _data_uri(pixels: Any) -> str:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _dataset(provenance: dict[str, Any]) -> str:
    """Return the name of what a model was trained on, if it says so; it may say anything."""
    result = provenance.get("result")
    name = result.get("dataset") if isinstance(result, dict) else None
    return printable(name, keep="")[:80] if isinstance(name, str) else ""


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (HERE / name).read_text(encoding="utf-8")

    async def answered(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answered


def _error(status: int, told: str, retry_seconds: int | None = None) -> JSONResponse:
    headers = {} if retry_seconds is None else {"retry-after": str(retry_seconds)}
    return JSONResponse({"error": printable(told, keep="")}, status, headers)


async def _refused(request: Request, error: RequestError) -> Response:
    return _error(error.status, error.told, error.retry_seconds)


async def _not_answered(request: Request, error: UserError) -> Response:
    problem = error.problems[0]
    return _error(400, f"{problem.where}: {problem.given}; allowed: {problem.allowed}")


async def _no_such_page(request: Request, error: HTTPException) -> Response:
    told = "there are / for people, POST /predict and GET /health for programs"
    return _error(error.status_code, f"{error.detail}: {told}")
