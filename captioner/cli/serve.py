"""``captioner serve``: the web page and JSON API."""

from __future__ import annotations

import socket
import threading
import webbrowser
from typing import Annotated

import typer

from captioner.cli.index import IndexFolder
from captioner.cli.options import Device
from captioner.errors import UsageError, print_error, warn
from captioner.optional import require

PACKAGES = ("starlette", "uvicorn", "jinja2", "python_multipart")
CONNECTIONS = 512
"""Open connections, beyond which answers are 503."""


def serve(
    folder: IndexFolder = None,
    model: Annotated[
        str | None,
        typer.Option(help="A captioner: default, a checkpoint or a training run's folder.  [default: the index's]"),
    ] = None,
    device: Device = "cpu",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than 127.0.0.1 show your images to all who reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also answer requests for this host name, for example behind a proxy."),
    ] = None,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Let visitors give the address of an image, which this machine fetches."),
    ] = False,
    max_upload: Annotated[int, typer.Option(metavar="MB", min=1, max=1000, help="Largest upload.")] = 20,
    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Images that are computed at a time.")] = 2,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show the web page: caption an image, find similar ones, search by a sentence.

    It listens on this machine only and needs no network. captioner index makes the index that is searched; the page
    sees later changes of it. Press Ctrl-C to end it.
    """
    for package in PACKAGES:
        require(package, "web")
    import uvicorn

    from captioner.predictors import load
    from captioner.search.index import DATABASE, Index, default_folder
    from captioner.web.app import Settings, create_app
    from captioner.web.fetch import Fetcher

    place = folder or default_folder()
    if model is None and (place / DATABASE).is_file():
        with Index(place) as index:
            model = index.model.name
    captioner = load(model or "default", device)
    most = max_upload * 2**20
    fetcher = Fetcher(most=most) if allow_urls else None
    hosts = [*(allow_host or []), host]
    app = create_app(captioner, Settings(place, hosts, most, at_once, fetcher=fetcher))
    listening = _bind(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    if host not in ("127.0.0.1", "localhost", "::1"):
        warn(f"whoever reaches {host} sees the images of the index; there are no passwords")
    print_error(f"captioner serves {address} (Ctrl-C ends it)")
    if open_page:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=5, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listening])


def _bind(host: str, port: int) -> socket.socket:
    """A socket with an address; ``UsageError`` where it is taken."""
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
    return found
