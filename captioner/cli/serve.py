"""``captioner serve``: the web page and JSON API."""

from __future__ import annotations

import socket
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.index import IndexFolder
from captioner.cli.options import Device, Prompt
from captioner.errors import UsageError, print_error, warn
from captioner.optional import require

if TYPE_CHECKING:
    from captioner.predictors.images import BatchCaptioner

PACKAGES = ("starlette", "uvicorn", "jinja2", "python_multipart")
CONNECTIONS = 512
"""Most open connections; further ones get status 503."""


def serve(
    folder: IndexFolder = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="An image captioner, as for captioner caption. Repeat the option for video models: a recognizer, a "
            "clip captioner.  [default: the index's captioner]",
        ),
    ] = None,
    prompt: Prompt = None,
    device: Device = "cpu",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Unless it is 127.0.0.1, all who reach it see your images.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free port.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also answer requests for this host name, for example behind a proxy."),
    ] = None,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Let visitors enter the address of an image, which this machine fetches."),
    ] = False,
    max_upload: Annotated[int, typer.Option(metavar="MB", min=1, max=1000, help="Largest upload.")] = 20,
    at_once: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Images computed at the same time.")] = 2,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the web page: captions of images and videos, similar images and search.

    By default the server listens only on this machine, and it needs no network. captioner index makes the index to
    search; the page shows later changes of it. Press Ctrl-C to stop.
    """
    for package in PACKAGES:
        require(package, "web")
    for name in allow_host or []:
        if "*" in name.removeprefix("*.") and name != "*":  # starlette would refuse it at the first request
            raise UsageError(f"--allow-host {name}: write a name, or *.example.com for all names below it")
    import uvicorn

    from captioner.search.index import default_folder
    from captioner.web.app import Settings, create_app
    from captioner.web.fetch import Fetcher

    place = folder or default_folder()
    captioner, videos = _load(model or [], place, device, prompt)
    most = max_upload * 2**20
    fetcher = Fetcher(most=most) if allow_urls else None
    hosts = [*(allow_host or []), host]
    app = create_app(
        captioner, Settings(place, hosts, most, at_once, fetcher=fetcher, device=device, video_models=videos)
    )
    listening = _bind(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    if host not in ("127.0.0.1", "localhost", "::1"):
        warn(f"everyone who reaches {host} sees the images of the index; there are no passwords")
    print_error(f"captioner serves {address} (press Ctrl-C to stop)")
    if open_page:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(
        app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=5, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listening])


def _load(names: list[str], place: Path, device: str, prompt: str | None) -> tuple[BatchCaptioner, list[Any]]:
    """The image captioner, by default that of the index, and the video models."""
    from captioner.predictors import load
    from captioner.predictors.images import BatchCaptioner
    from captioner.search.index import DATABASE, Index

    loaded = [load(name, device, prompt=prompt) for name in names]
    images = [one for one in loaded if isinstance(one, BatchCaptioner)]
    videos = [one for one in loaded if not isinstance(one, BatchCaptioner)]
    if len(images) > 1:
        raise UsageError(f"--model: {images[0].name} and {images[1].name} both caption images; give only one of them")
    for one in videos:
        if not hasattr(one, "recognize"):
            one.vision  # noqa: B018  # raises now if a clip captioner cannot describe videos
    if images:
        return images[0], videos
    name = "default"
    if (place / DATABASE).is_file():
        with Index(place) as index:
            name = index.model.name
    return load(name, device, prompt=prompt), videos


def _bind(host: str, port: int) -> socket.socket:
    """A socket that already listens: no browser comes too early. Raises ``UsageError`` if the port is in use."""
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        if found is not None:
            found.close()
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error
    return found
