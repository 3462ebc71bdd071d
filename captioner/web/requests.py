"""Validated contents of requests: an uploaded or fetched image, and query parameters."""

from __future__ import annotations

from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from captioner.errors import UsageError
from captioner.web.fetch import Fetcher, FetchError
from captioner.web.guard import Worker

FIELDS = 4
"""Most fields of a form, not counting its file."""
FIELD_BYTES = 4096
LONGEST_SENTENCE = 500
"""Most characters of a sentence to search for."""


class Sent(NamedTuple):
    """An image that came with a request."""

    content: bytes
    name: str
    """Its file name or address."""


async def read_sent(request: Request, fetcher: Fetcher | None, fetching: Worker) -> Sent:
    """The image in a form: the file ``image`` (or ``video``), or the content of the address ``url`` if allowed."""
    refusal = request.scope.get("captioner.refusal")
    if refusal is not None:
        raise refusal
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "send the image as the field image of a form (multipart/form-data)")
    async with request.form(max_files=1, max_fields=FIELDS, max_part_size=FIELD_BYTES) as form:
        image, url = form.get("image") or form.get("video"), form.get("url")
        if isinstance(image, UploadFile) and image.size:
            return Sent(await image.read(), image.filename or "image")
    if not isinstance(url, str) or not url.strip():
        raise HTTPException(400, "no image was sent; choose a file" + (" or give an address" if fetcher else ""))
    if fetcher is None:
        raise HTTPException(403, "images are not fetched by their address here; start captioner serve --allow-urls")
    try:
        return Sent(await fetching.run(fetcher.fetch, url.strip()), url.strip())
    except FetchError as error:
        raise HTTPException(400, str(error)) from error


def whole_number(request: Request, name: str, default: int, most: int) -> int:
    """A query parameter from 1 to ``most``."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise UsageError(f"{name} must be a whole number from 1 to {most}, not {text[:20]!r}")
    return int(text)


def score(request: Request, default: float) -> float:
    """The query parameter ``min_score``, -1 to 1."""
    text = request.query_params.get("min_score", "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = 2.0
    if not -1 <= found <= 1:
        raise UsageError(f"min_score must be a number from -1 to 1, not {text[:20]!r}")
    return found


def sentence(request: Request) -> str:
    """The query parameter ``q``; empty if there is none."""
    text = request.query_params.get("q", "").strip()
    if len(text) > LONGEST_SENTENCE:
        raise UsageError(f"a sentence may have {LONGEST_SENTENCE} characters, not {len(text)}")
    return text
