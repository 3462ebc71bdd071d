"""The web application: pages that work without JavaScript, and the same as JSON under ``/api`` (``openapi.json``).

from captioner import load
from captioner.web.app import Settings, create_app
app = create_app(load(), Settings(index=Path("index")))     # any ASGI server runs it
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from captioner.errors import CaptionerError, ImageError, SearchIndexError, UsageError, printable
from captioner.predictors.images import BatchCaptioner
from captioner.search.contact_sheet import SIDE, to_jpeg
from captioner.search.index import Entry
from captioner.search.query import Match
from captioner.web.engine import PREVIEW, SIMILAR, Described, Engine, media_type, read_image, sha256_of
from captioner.web.fetch import Fetcher
from captioner.web.guard import Guard, Worker
from captioner.web.requests import Sent, read_sent, score, sentence, whole_number
from captioner.web.video import Shown, VideoError, is_video, video_clips

HERE = Path(__file__).parent
LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Host names that the server accepts; others could be a stranger's name for this machine (DNS rebinding)."""
PAGE = 60
"""Images on a page of the gallery."""
MOST_PAGES = 10**6
MOST_RESULTS = 100
DEFAULT_RESULTS = 24
THUMBNAIL_WAITING = 500
SHORT_BAR = 0.1
"""If the best caption's probability is lower than this, bars are drawn relative to it."""
FETCHES, FETCHES_WAITING = 4, 8
VIDEOS, VIDEOS_WAITING = 1, 2


@dataclass(frozen=True)
class Settings:
    """Settings of ``create_app``."""

    index: Path
    """Folder of the index, which may be created later."""
    hosts: Sequence[str] = ()
    """Further host names that the server accepts."""
    most_bytes: int = 20 * 2**20
    """Most bytes of a request's body and of a fetched image."""
    at_once: int = 2
    """Images that are processed at the same time."""
    waiting: int = 8
    """Images that may wait; further ones are refused with status 503."""
    body_seconds: float = 30.0
    """Seconds in which an upload must have arrived."""
    fetcher: Fetcher | None = field(default=None)
    """Fetches images by address; None refuses such requests."""
    device: str = "cpu"
    """Device of the model that embeds images if the captioner does not."""
    video_models: Sequence[Any] = ()
    """Recognizers and clip captioners; without any, single frames of videos are captioned."""


def create_app(captioner: BatchCaptioner, settings: Settings) -> Starlette:
    """Create the application for a captioner and the index at ``settings.index``.

    Raises ``SearchIndexError`` for an index of another captioner.
    """
    site = _Site(Engine(captioner, settings.index, settings.device), settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        site.engine.close()

    middleware = [
        Middleware(Guard, most=settings.most_bytes, seconds=settings.body_seconds),
        Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, *settings.hosts], www_redirect=False),
    ]
    handlers: Mapping[Any, Callable[..., Any]] = {
        HTTPException: site.failed,
        CaptionerError: site.failed,
        ClientDisconnect: site.gone,
    }
    return Starlette(routes=site.routes(), middleware=middleware, exception_handlers=handlers, lifespan=lifespan)


class _Site:
    """The endpoints: each page has a counterpart under ``/api``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.computing = Worker(settings.at_once, settings.waiting)
        self.looking = Worker(settings.at_once, THUMBNAIL_WAITING)
        self.fetching = Worker(FETCHES, FETCHES_WAITING)
        self.watching = Worker(VIDEOS, VIDEOS_WAITING)
        self.takes_videos = find_spec("av") is not None
        self.pages = Environment(loader=PackageLoader("captioner.web"), autoescape=True, trim_blocks=True)
        self.pages.filters |= {"percent": percent, "data_uri": data_uri, "still": still_uri, "clock": clock}

    def routes(self) -> list[Route | Mount]:
        return [
            Route("/", self.home),
            Route("/caption", self.caption, methods=["POST"]),
            Route("/caption", self.to_home),
            Route("/search", self.search),
            Route("/gallery", self.gallery),
            Route("/images/{id:int}", self.image),
            Route("/images/{id:int}/file", self.file),
            Route("/images/{id:int}/thumbnail", self.thumbnail),
            Route("/api/caption", self.api_caption, methods=["POST"]),
            Route("/api/video", self.api_video, methods=["POST"]),
            Route("/api/search", self.api_search_image, methods=["POST"]),
            Route("/api/search", self.api_search),
            Route("/api/images", self.api_images),
            Route("/api/images/{id:int}", self.api_image),
            Route("/api/images/{id:int}/similar", self.api_similar),
            Route("/api/openapi.json", self.api_description),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    async def home(self, request: Request) -> Response:
        newest = await self.looking.run(self._newest, 12)
        return self._page("home.html", newest=newest)

    async def to_home(self, request: Request) -> Response:
        """For a result that is reloaded or bookmarked: uploads are not kept."""
        return RedirectResponse("/", 303)

    async def caption(self, request: Request) -> Response:
        sent = await self._sent(request)
        if is_video(sent.content):
            return self._page("video.html", name=shown_name(sent), clips=await self._clips(sent.content))
        values = await self.computing.run(self._caption_page, sent)
        return self._page("image.html", **values)

    async def image(self, request: Request) -> Response:
        entry = await self._entry(request)
        values = await self.computing.run(self._entry_page, entry)
        return self._page("image.html", **values)

    async def search(self, request: Request) -> Response:
        words = sentence(request)
        found: list[Match] = []
        if words:
            found = await self.computing.run(self.engine.search, words, DEFAULT_RESULTS)
        return self._page("search.html", words=words, matches=found)

    async def gallery(self, request: Request) -> Response:
        number = whole_number(request, "page", 1, MOST_PAGES)
        count = self.engine.summary.count
        pages = max(1, math.ceil(count / PAGE))
        if number > pages:
            raise HTTPException(404, f"the gallery has {pages} pages")
        entries = await self.looking.run(self.engine.page, (number - 1) * PAGE, PAGE) if count else []
        return self._page("gallery.html", entries=entries, number=number, pages=pages)

    async def file(self, request: Request) -> Response:
        entry = await self._entry(request)
        content = await self.looking.run(self.engine.content, entry)
        name = quote(file_name(entry), safe="")
        how = "attachment" if "download" in request.query_params else "inline"
        headers = {"content-disposition": f"{how}; filename*=utf-8''{name}", "cache-control": "private, max-age=3600"}
        return Response(content, media_type=media_type(content), headers=headers)

    async def thumbnail(self, request: Request) -> Response:
        entry = await self._entry(request)
        content = await self.looking.run(self.engine.thumbnail, entry)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def api_caption(self, request: Request) -> Response:
        sent = await self._sent(request)
        if is_video(sent.content):
            raise HTTPException(415, "this is a video; send it to /api/video")
        described = await self.computing.run(lambda: self._describe(sent.content)[1])
        captions = [{"text": one.text, "log_prob": one.log_prob, "score": score} for one, score in described.captions]
        similar = [match_json(match) for match in described.similar]
        model = self.engine.captioner.name
        return JSONResponse(
            {"captions": captions, "classes": classes_json(described.classes), "similar": similar, "model": model}
        )

    async def api_video(self, request: Request) -> Response:
        sent = await self._sent(request)
        if not is_video(sent.content):
            raise HTTPException(415, "this is not a video that is taken; send MP4, MOV, WebM, MKV, AVI, Ogg or MPEG")
        return JSONResponse({"clips": [clip_json(one) for one in await self._clips(sent.content)]})

    async def api_search(self, request: Request) -> Response:
        words, top = sentence(request), whole_number(request, "top", DEFAULT_RESULTS, MOST_RESULTS)
        if not words:
            raise UsageError("give a sentence as q")
        found = await self.computing.run(self.engine.search, words, top, score(request, 0.0))
        return JSONResponse({"results": [match_json(match) for match in found]})

    async def api_search_image(self, request: Request) -> Response:
        top, least = whole_number(request, "top", DEFAULT_RESULTS, MOST_RESULTS), score(request, -1.0)
        sent = await self._sent(request)
        found = await self.computing.run(self.engine.similar_to, sent.content, top, least)
        return JSONResponse({"results": [match_json(match) for match in found]})

    async def api_images(self, request: Request) -> Response:
        number = whole_number(request, "page", 1, MOST_PAGES)
        summary = self.engine.summary
        if summary.problem:
            raise SearchIndexError(summary.problem)
        entries = await self.looking.run(self.engine.page, (number - 1) * PAGE, PAGE)
        return JSONResponse({"count": summary.count, "page": number, "images": [entry_json(one) for one in entries]})

    async def api_image(self, request: Request) -> Response:
        return JSONResponse(entry_json(await self._entry(request)))

    async def api_similar(self, request: Request) -> Response:
        top, least = whole_number(request, "top", DEFAULT_RESULTS, MOST_RESULTS), score(request, -1.0)
        entry = await self._entry(request)
        found = await self.computing.run(self.engine.similar_in_index, entry, top, least)
        return JSONResponse({"results": [match_json(match) for match in found]})

    async def api_description(self, request: Request) -> Response:
        return FileResponse(HERE / "openapi.json", media_type="application/json")

    async def failed(self, request: Request, error: Exception) -> Response:
        """An error as a page or as JSON. This package's errors are ``CaptionerError``, the others ``HTTPException``."""
        status, headers, reason = 500, None, str(error)
        if isinstance(error, HTTPException):
            status, headers, reason = error.status_code, error.headers, error.detail
        elif isinstance(error, UsageError):
            status = 400
        elif isinstance(error, ImageError):
            status, reason = 422, f"this image cannot be read: {error.reason}"
        elif isinstance(error, VideoError):
            status, reason = 422, f"this video cannot be read: {error}"
        elif isinstance(error, SearchIndexError):
            status, reason = 404, "there is no index of images that fits; make it with: captioner index FOLDER"
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": reason}, status, headers)
        page = self.pages.get_template("error.html").render(**self._common(), status=status, reason=reason)
        return HTMLResponse(page, status, headers)

    async def gone(self, request: Request, error: Exception) -> Response:
        """The client disconnected before its upload ended, so nobody reads the response."""
        return Response(status_code=400)

    async def _sent(self, request: Request) -> Sent:
        return await read_sent(request, self.settings.fetcher, self.fetching)

    async def _clips(self, content: bytes) -> list[Shown]:
        """The described clips of a video, given its bytes."""
        if not self.takes_videos:
            raise HTTPException(415, "videos are not read here; whoever runs this: pip install 'captioner[video]'")
        captioner, models = self.engine.captioner, self.settings.video_models
        return await self.watching.run(video_clips, content, captioner, models)

    async def _entry(self, request: Request) -> Entry:
        id = request.path_params["id"]
        entry = await self.looking.run(self.engine.entry, id) if id < 2**63 else None
        if entry is None:
            raise HTTPException(404, "no such image in the index")
        return entry

    def _newest(self, count: int) -> list[Entry]:
        return self.engine.page(0, count) if self.engine.summary.count else []

    def _caption_page(self, sent: Sent) -> dict[str, Any]:
        image, described = self._describe(sent.content)
        return {"name": shown_name(sent), "entry": None} | self._description(image, described)

    def _entry_page(self, entry: Entry) -> dict[str, Any]:
        image, described = self._describe(self.engine.content(entry), SIMILAR + 1)
        others = [match for match in described.similar if match.entry.id != entry.id][:SIMILAR]
        values = {"name": file_name(entry), "entry": entry}
        return values | self._description(image, described._replace(similar=others))

    def _describe(self, content: bytes, top: int = SIMILAR) -> tuple[Image.Image, Described]:
        image = read_image(content)
        return image, self.engine.describe(image, sha256_of(content), top)

    def _description(self, image: Image.Image, described: Described) -> dict[str, Any]:
        best = max((one.score or 0.0 for one in described.captions), default=0.0)
        full = best if 0 < best < SHORT_BAR else 1.0
        captions = [(one.caption.text, one.score, (one.score or 0.0) / full) for one in described.captions]
        layer = self.engine.first_layer(image)
        shown = jpeg_uri(image)  # browsers do not show every format that is read here
        known = {
            "captions": captions,
            "ranking": self.engine.ranking,
            "classes": described.classes,
            "matches": described.similar,
        }
        return known | {"shown": shown, "layer": layer}

    def _page(self, template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self.pages.get_template(template).render(**self._common(), **values))

    def _common(self) -> dict[str, Any]:
        fetching = self.settings.fetcher is not None
        limits = {"megabytes": self.settings.most_bytes // 2**20, "videos": self.takes_videos}
        return {"summary": self.engine.summary, "fetching": fetching} | limits


def entry_json(entry: Entry) -> dict[str, Any]:
    """An indexed image as JSON, without its path on this machine."""
    return {
        "id": entry.id,
        "name": file_name(entry),
        "caption": entry.caption,
        "log_prob": entry.log_prob,
        "classes": classes_json(entry.classes),
        "file": f"/images/{entry.id}/file",
        "thumbnail": f"/images/{entry.id}/thumbnail",
    }


def match_json(match: Match) -> dict[str, Any]:
    return entry_json(match.entry) | {"score": match.score, "why": match.why}


def clip_json(shown: Shown) -> dict[str, Any]:
    """A clip of a video as JSON."""
    clip = shown.clip
    caption, log_prob = (clip.caption.text, clip.caption.log_prob) if clip.caption else (None, None)
    times = {"start": round(clip.start, 3), "end": round(clip.end, 3)}
    return times | {"caption": caption, "log_prob": log_prob, "labels": classes_json(clip.labels), "model": clip.model}


def shown_name(sent: Sent) -> str:
    """The file name of an upload, made safe to display."""
    return printable(PurePath(sent.name).name)[:80]


def classes_json(classes: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": name, "probability": probability} for name, probability in classes]


def file_name(entry: Entry) -> str:
    """An indexed image's file name, made safe to display."""
    return printable(PurePath(entry.path).name.encode(errors="replace").decode())


def percent(share: float) -> str:
    """A probability in percent with two significant digits."""
    value = 100 * share
    digits = 0 if value >= 10 else min(6, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f} %"


def clock(seconds: float) -> str:
    """A time as media players show it."""
    return f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02}"


def jpeg_uri(image: Image.Image, side: int = PREVIEW) -> str:
    """An RGB image as a JPEG data URI: uploads are not kept, so the page has no address for them."""
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(image, side)).decode()}"


def still_uri(image: Image.Image) -> str:
    """A frame as a small data URI."""
    return jpeg_uri(image, SIDE)


def data_uri(image: Image.Image) -> str:
    """A drawing as a lossless data URI."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
