"""Middleware between the network and the application: limits on bodies and work, checks of origins, and headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 30.0
"""Seconds in which the body of a request must have arrived."""
RECEIVING = 64
"""Most request bodies that may arrive at the same time; further requests are refused."""
RETRY_SECONDS = 2
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # without any, browsers call the origin of the page's own form "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=()",
}
P = ParamSpec("P")
T = TypeVar("T")


class Busy(HTTPException):
    """Raised if too much work is waiting."""

    def __init__(self) -> None:
        super().__init__(503, "busy with other images; try again in a moment", {"Retry-After": str(RETRY_SECONDS)})


class Worker:
    """Runs functions in threads: ``at_once`` at a time; ``waiting`` more may wait, and others raise ``Busy``."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._limiter: CapacityLimiter | None = None
        self._at_once, self._most, self._count = at_once, at_once + waiting, 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._count >= self._most:
            raise Busy
        if self._limiter is None:  # a limiter belongs to a running event loop
            self._limiter = CapacityLimiter(self._at_once)
        self._count += 1
        try:
            return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
        finally:
            self._count -= 1


class Guard:
    """Middleware: headers on responses, no cross-site requests, and limits on bodies (bytes, time and number)."""

    def __init__(self, app: ASGIApp, most: int, seconds: float = BODY_SECONDS) -> None:
        """``most`` bytes and ``seconds`` are the limits for a request's body."""
        self.app, self.most, self.seconds = app, most, seconds
        self._receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send_with_headers)
            return
        self._receiving += 1
        scope["captioner.refusal"] = self._refusal(Headers(scope=scope))
        try:
            await self.app(scope, self._limited(receive), send_with_headers)
        finally:
            self._receiving -= 1

    def _refusal(self, headers: Headers) -> HTTPException | None:
        """The reason to refuse a request before its body is read, or None."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if site == "cross-site" or (origin and urlsplit(origin).netloc != headers.get("host")):
            return HTTPException(403, "requests of other sites are refused")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            return too_large(self.most)
        return Busy() if self._receiving > RECEIVING else None

    def _limited(self, receive: Receive) -> Receive:
        loop = asyncio.get_running_loop()
        end, total = loop.time() + self.seconds, 0
        complete = False

        async def limited() -> Message:
            nonlocal total, complete
            if complete:  # the next message is the end of the connection, which may come late
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), end - loop.time())
            except TimeoutError:
                raise HTTPException(408, f"the image did not arrive within {self.seconds:g} seconds") from None
            total += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if total > self.most:
                raise too_large(self.most)
            return message

        return limited


def too_large(most: int) -> HTTPException:
    """The response to a body of more than ``most`` bytes."""
    return HTTPException(413, f"more than the {most / 2**20:.0f} MB that are taken; send a smaller image")
