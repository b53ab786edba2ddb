"""`workbench serve`: a page on which to try a model, and the same over HTTP for programs."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys

import click

from workbench.specs.errors import UserError

LARGEST_PORT = 65535


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; others reach this one not.")
@click.option("--port", type=click.IntRange(0, LARGEST_PORT), default=8000, show_default=True, help="0: any free one.")
@click.option("--max-megabytes", type=click.FloatRange(0.001, 1000), default=20.0, show_default=True, help="Of a file.")
@click.option(
    "--max-megapixels", type=click.FloatRange(0.001, 100), default=40.0, show_default=True, help="Of a picture."
)
@click.option("--per-minute", type=click.IntRange(1), default=60, show_default=True, help="Pictures of one address.")
@click.option("--waiting", type=click.IntRange(0), default=8, show_default=True, help="Pictures that may queue.")
def command(
    model: str, host: str, port: int, max_megabytes: float, max_megapixels: float, per_minute: int, waiting: int
) -> None:
    """Open a page on which a picture is dropped and classified, with the places that speak for a class.

    Pictures are answered one at a time and not kept. Programs send a file's bytes to /predict.

    \b
    workbench serve RUN
    workbench serve RUN --port 8001
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict?top=3
    """  # noqa: D301 - click needs the character that \b stands for
    try:
        import uvicorn

        from workbench.serving.web import build_app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("uvicorn", "starlette"):
            raise
        remedy = "pip install 'efficientnet-workbench[serve]'"
        raise UserError.of("serve", f"no {error.name} installed", "the extra `serve`", remedy) from error
    with _listening(host, port) as listener:  # before the model is read: what is refused is refused at once
        from workbench.serving.limits import Limits
        from workbench.serving.one_picture import OnePicture
        from workbench.training.classifier import EfficientNetClassifier

        served = OnePicture(EfficientNetClassifier.load(model), round(1e6 * max_megapixels))
        limits = Limits(round(1e6 * max_megabytes), per_minute, waiting)
        config = uvicorn.Config(
            build_app(served, limits, _names_of(host)),
            log_level="warning",
            proxy_headers=False,  # else whoever asks could say which address to count
            server_header=False,
            ws="none",
            lifespan="off",
            limit_concurrency=waiting + 64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        address = f"[{host}]" if ":" in host else host
        print(f"http://{address}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        if not _is_loopback(host):
            print("anyone who can reach this machine can send pictures; there is no password", file=sys.stderr)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address.

    Raises:
        UserError: The port is taken or not for this user, or the address is not one of this machine's.
    """
    where = "serve --port"
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise _not_an_address(host) from error
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            remedy = f"choose another with --port {port % LARGEST_PORT + 1}, or --port 0 for any free one"
            raise UserError.of(where, f"{port} is in use on {host}", "a free port", remedy) from error
        if error.errno == errno.EACCES:
            allowed = "from 1024 on, for whoever is not root"
            raise UserError.of(where, port, allowed, "choose another, such as --port 8000") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_an_address(host) from error
        raise
    return listener


def _not_an_address(host: str) -> UserError:
    allowed = "an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for all"
    return UserError.of("serve --host", host, allowed, "leave --host out to serve this machine alone")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_of(host: str) -> frozenset[str] | None:
    """Return what a request may call this server; None for any, where it is not for this machine alone."""
    if not _is_loopback(host):
        return None
    return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host})
