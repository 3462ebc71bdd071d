"""Captions by a server of OpenAI's protocol: a real one on this machine that answers as those do."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner import load
from captioner.errors import CaptionerError, ImageError, UsageError
from captioner.predictors import server as module
from captioner.predictors.server import ServerCaptioner
from tests import tiny

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Server:
    """Answers by ``answer``, which a test may replace, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answer = lambda handler, request: reply(handler, chat(describe(request)))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = {"path": self.path, **json.loads(body)}
                outer.requests.append(request)
                outer.headers.append(dict(self.headers))
                outer.answer(self, request)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1#llava"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody: what is local is not asked through a proxy
    started = Server()
    yield started
    started.close()


def reply(handler: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def chat(text: Any, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, **choice}]}


def image_of(request: dict[str, Any]) -> Image.Image:
    url = request["messages"][0]["content"][1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def describe(request: dict[str, Any]) -> str:
    red, green, blue = image_of(request).resize((1, 1)).convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    return f'"A photo of {red} {green} {blue}."'


def test_a_folder_is_captioned(server: Server, tmp_path: Path) -> None:
    """Would catch answers that change places when several requests are under way, and a bad image that ends all."""
    paths = [*tiny.save_images(tmp_path, 6), tmp_path / "missing.png"]
    together = list(load(server.address).results(paths, batch_size=3))
    alone = list(load(server.address).results(paths, batch_size=1))
    assert [one.captions for one in together] == [one.captions for one in alone]
    assert [one.error is None for one in together] == [True] * 6 + [False]
    assert len({one.captions[0].text for one in together[:6]}) > 3
    assert together[0].captions[0].text.startswith("A photo") and together[0].captions[0].log_prob is None


def test_the_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch options that get lost, a key that goes nowhere, and images of full size."""
    monkeypatch.setenv("CAPTIONER_API_KEY", "secret")
    captioner = load(server.address, prompt="What is this?")
    captioner.caption(tiny.make_image(0, (3000, 1500)), method="sample", temperature=0.5, max_length=9, seed=4)
    [request] = server.requests
    assert request["path"] == "/v1/chat/completions" and request["model"] == "llava"
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.5, 9, 4)
    assert request["messages"][0]["content"][0]["text"] == "What is this?"
    assert image_of(request).size == (1024, 512)
    assert server.headers[0]["Authorization"] == "Bearer secret"
    for name in ("beam_size", "num_samples", "length_penalty", "no_repeat_ngram_size", "num_return_sequences"):
        with pytest.raises(UsageError, match=name):
            captioner.caption(tiny.make_image(0), **{name: 1})
    with pytest.raises(UsageError, match="method beam"):
        captioner.caption(tiny.make_image(0), method="beam")


def test_log_probabilities(server: Server) -> None:
    """They are the sum over tokens; a server that refuses the question is asked without it."""
    logs = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}
    server.answer = lambda handler, _: reply(handler, chat("a b", logprobs=logs))
    [result] = load(server.address).results([tiny.make_image(0)])
    assert result.captions[0].log_prob == -1.5

    def refuse(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        refused = "logprobs" in request
        reply(
            handler,
            {"error": {"message": "logprobs is not supported"}} if refused else chat("a b"),
            400 if refused else 200,
        )

    server.answer = refuse
    captioner = load(server.address)
    assert captioner.caption([tiny.make_image(0), tiny.make_image(1)], batch_size=1) == ["a b", "a b"]
    assert ["logprobs" in request for request in server.requests[-3:]] == [True, False, False]


@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [
        (b"<html>", 200, "not valid JSON"),
        ({"choices": []}, 200, "holds no text"),
        (chat(None), 200, "holds no text"),
        (chat("  "), 200, "holds no text"),
        (b"x" * (2**20 + 1), 200, "more than 1048576 bytes"),
        ({"error": {"message": "no image\nhere"}}, 400, "400: no image here"),
        ({"error": "crash"}, 500, "500: crash"),
        (b"[" * 100_000, 200, "nested too deeply"),
    ],
)
def test_bad_answers_concern_one_image(server: Server, value: Any, status: int, reason: str) -> None:
    """Would catch a run of hours that ends, or a traceback, at the first answer that is wrong."""

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        first = len(server.requests) == 1
        reply(handler, value if first else chat("fine"), status if first else 200)

    server.answer = answer
    bad, good = load(server.address).results([tiny.make_image(0), tiny.make_image(1)], batch_size=1)
    assert isinstance(bad.error, ImageError) and reason in str(bad.error) and "\n" not in str(bad.error)
    assert good.captions[0].text == "fine"


def test_what_concerns_all_ends_the_run(server: Server) -> None:
    server.answer = lambda handler, _: reply(handler, {"error": {"message": "model 'x' not found"}}, 404)
    with pytest.raises(CaptionerError, match="answers 404: model 'x' not found; check the address"):
        load(server.address).caption(tiny.make_image(0))
    server.close()
    with pytest.raises(CaptionerError, match="cannot be reached .*; is the server running"):
        load(server.address).caption(tiny.make_image(0))


def test_a_busy_server_is_asked_again(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        busy = len(server.requests) < 3
        reply(handler, {"error": "busy"} if busy else chat("done"), 503 if busy else 200)

    server.answer = answer
    assert load(server.address).caption(tiny.make_image(0)) == "done"


def test_redirects_are_not_followed(server: Server) -> None:
    """Would catch photographs that are sent to another address than the one that was named."""

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        handler.send_response(307)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = answer
    with pytest.raises(CaptionerError, match="answers 307"):
        load(server.address).caption(tiny.make_image(0))
    assert len(server.requests) == 1


def test_a_slow_server_is_not_awaited_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an answer that comes a byte at a time, within every timeout of the socket."""
    monkeypatch.setattr(module, "TIMEOUT", 0.3)

    def drip(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(40):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)

    server.answer = drip
    began = time.monotonic()
    [result] = load(server.address).results([tiny.make_image(0)])
    assert "within" in str(result.error) and time.monotonic() - began < 1.5
    server.answer = lambda handler, _: time.sleep(1)
    [result] = load(server.address).results([tiny.make_image(0)])
    assert result.error is not None


@pytest.mark.parametrize("address", ["http://localhost:1", "http://#x", "http://me:pw@localhost/v1#x"])
def test_addresses_without_a_model(address: str) -> None:
    with pytest.raises(UsageError, match="write http://HOST:PORT/v1#MODEL"):
        ServerCaptioner(address)
    with pytest.raises(UsageError, match="leave it out"):
        load("http://localhost/v1#x", device="cuda")
