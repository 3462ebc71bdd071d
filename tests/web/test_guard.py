"""Limits that need a real server: many clients, slow ones, and ones that leave."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from captioner import load
from captioner.web import guard
from captioner.web.app import Settings, create_app
from captioner.web.guard import Busy, Worker
from tests import tiny
from tests.web.test_app import content


class Server:
    """The application on a port of this machine."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    captioner = load(tiny.save_tiny(tmp_path / "tiny.safetensors"))
    running = Server(create_app(captioner, Settings(tmp_path / "index", at_once=1, waiting=2, body_seconds=0.5)))
    yield running
    running.close()


def head(server: Server, length: int) -> bytes:
    host = f"127.0.0.1:{server.address[1]}"
    return (
        f"POST /api/caption HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {length}\r\n\r\n--x\r\n"
    ).encode()


def test_too_many_uploads_are_told_when_to_come_again(server: Server) -> None:
    """Would catch a queue without end, and answers other than 200 and 503."""

    async def flood() -> list[Any]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            sent = [client.post(f"{server.url}/api/caption", files={"image": content(i)}) for i in range(24)]
            return await asyncio.gather(*sent)

    answers = asyncio.run(flood())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) > 0 and "busy" in refused.json()["error"]
    assert httpx.post(f"{server.url}/api/caption", files={"image": content()}).status_code == 200, "and it goes on"


def test_slow_clients_are_sent_away_and_hold_nobody_up(server: Server) -> None:
    """Would catch a body that trickles in for ever, and one client's patience that costs the others."""
    with socket.create_connection(server.address) as slow:
        slow.sendall(head(server, 1000))
        began = time.monotonic()
        assert httpx.post(f"{server.url}/api/caption", files={"image": content()}).status_code == 200
        for _ in range(100):
            time.sleep(0.05)
            try:
                slow.sendall(b"x")
                slow.settimeout(0.001)
                answer = slow.recv(1000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408") and time.monotonic() - began < 3


def test_half_sent_bodies_leave_nothing_behind(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Would catch a place that is never free again, and a traceback for each visitor who leaves."""
    for _ in range(guard.RECEIVING + 5):
        with socket.create_connection(server.address) as half:
            half.sendall(head(server, 1000))
    time.sleep(0.2)
    assert httpx.post(f"{server.url}/api/caption", files={"image": content()}).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_bodies_on_their_way_are_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a thousand slow uploads that are all stored at once."""
    monkeypatch.setattr(guard, "RECEIVING", 2)
    waiting = [socket.create_connection(server.address) for _ in range(2)]
    for one in waiting:
        one.sendall(head(server, 1000))
    time.sleep(0.1)
    assert httpx.post(f"{server.url}/api/caption", files={"image": content()}).status_code == 503
    for one in waiting:
        one.close()


def test_a_worker_counts_what_fails_too() -> None:
    """Would catch a place that an error keeps."""

    async def run() -> None:
        worker = Worker(1, 0)

        def fail() -> None:
            raise ValueError

        for _ in range(3):
            with pytest.raises(ValueError):
                await worker.run(fail)
        running = asyncio.create_task(worker.run(time.sleep, 0.2))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            await worker.run(fail)
        await running

    asyncio.run(run())
