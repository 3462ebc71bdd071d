"""Captions from a server with OpenAI's chat protocol, such as Ollama, vLLM and llama.cpp.

    captioner caption photo.jpg --model http://localhost:11434/v1#llava

The images are sent only to that address: redirects are not followed. ``CAPTIONER_API_KEY``, if it is set, is sent as
the key.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlsplit

from captioner.data.images import open_image
from captioner.data.records import parse_json
from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import with_options
from captioner.errors import CaptionerError, DataError, ImageError, UsageError
from captioner.predictors.base import Caption
from captioner.predictors.images import BatchCaptioner
from captioner.predictors.pretrained import CHAT, clean_answer
from captioner.predictors.streams import ImageSource

TIMEOUT = 300.0
"""Seconds that an answer may take; a model that is not loaded yet needs some."""
LARGEST_ANSWER = 2**20
"""Most bytes of an answer."""
LARGEST_SIDE = 1024
"""Largest side in pixels; larger images are scaled down, as models scale them down even further."""
PAUSES = (1.0, 4.0)
"""Seconds before each repetition of a request that a busy server refused."""
BUSY = (429, 502, 503, 504)
HOPELESS = (401, 403, 404, 405)
"""Status codes that all images would get: the key, the address or the model's name is wrong."""
REFUSED = ("beam_size", "num_samples", "num_return_sequences", "length_penalty", "no_repeat_ngram_size")
"""Decoding options that the protocol does not have."""


class NotFollowed(urllib.request.HTTPRedirectHandler):
    """Raises an error for a redirect, which would send the images to another server."""

    def redirect_request(self, *args: Any) -> None:
        return None


class ServerCaptioner(BatchCaptioner):
    """A model on a server; ``batch_size`` is the number of simultaneous requests."""

    batch_size = 4

    def __init__(self, address: str, prompt: str | None = None) -> None:
        parts = urlsplit(address)
        if not parts.hostname or not parts.fragment or parts.username or parts.password:
            raise UsageError(f"--model {address}: write http://HOST:PORT/v1#MODEL")
        self.name = address
        self.model = parts.fragment
        self.url = parts._replace(fragment="", path=f"{parts.path.rstrip('/')}/chat/completions").geturl()
        self.prompt = prompt or CHAT.prompt
        self.digest = hashlib.sha256(f"{address}\0{self.prompt}".encode()).hexdigest()
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(NotFollowed, *proxies)
        self._wants_log_probs = True

    def decoding_config(self, options: Mapping[str, Any]) -> DecodingConfig:
        refused = next((name for name in REFUSED if options.get(name) is not None), None)
        if refused is not None or options.get("method") == "beam":
            raise UsageError(
                f"{refused or 'method beam'}: servers do not support this; leave it out or choose another model"
            )
        own = DecodingConfig(method="greedy", num_samples=1, max_length=CHAT.max_length)
        return with_options(own, options)

    def prepare(self, image: ImageSource | ImageError) -> tuple[ImageSource, tuple[ImageSource, str] | ImageError]:
        """The image as a JPEG in a data URL, with its name for errors."""
        if isinstance(image, ImageError):
            return image.path, image
        try:
            opened = open_image(image)
        except ImageError as error:
            return image, error
        opened.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        data = io.BytesIO()
        opened.save(data, "JPEG", quality=90)
        return image, (image, f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}")

    def describe(
        self, images: Sequence[tuple[ImageSource, str]], config: DecodingConfig
    ) -> list[tuple[Caption, ...] | ImageError]:
        with ThreadPoolExecutor(len(images)) as pool:
            return list(pool.map(functools.partial(self._describe, config=config), images))

    def _describe(self, image: tuple[ImageSource, str], config: DecodingConfig) -> tuple[Caption, ...] | ImageError:
        source, url = image
        try:
            return (self._parse(self._ask(url, config)),)
        except (DataError, TimeoutError, HTTPException) as error:
            name = "image" if not isinstance(source, str | os.PathLike) else os.fspath(source)
            return ImageError(name, f"no caption from {self.url}: {error or type(error).__name__}")

    def _ask(self, image: str, config: DecodingConfig) -> str:
        """The server's answer; repeats the request if the server is busy or does not support log probabilities."""
        for pause in (*PAUSES, None):
            try:
                return self._post(self._request(image, config))
            except urllib.error.HTTPError as error:
                with error:
                    reason = _reason(error)
                if error.code == 400 and self._wants_log_probs and "logprob" in reason.lower():
                    self._wants_log_probs = False
                    continue
                if error.code not in BUSY or pause is None:
                    self._fail(error.code, reason)
                time.sleep(pause)
            except urllib.error.URLError as error:
                if isinstance(error.reason, TimeoutError):
                    raise TimeoutError(f"no answer within {TIMEOUT:.0f} s") from error
                raise CaptionerError(
                    f"{self.url} cannot be reached ({error.reason}); is the server running?"
                ) from error
        raise DataError("it is busy")

    def _request(self, image: str, config: DecodingConfig) -> bytes:
        content = [{"type": "text", "text": self.prompt}, {"type": "image_url", "image_url": {"url": image}}]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": config.max_length,
            "temperature": config.temperature if config.method == "sample" else 0,
            "seed": config.seed,
            "stream": False,
        }
        return json.dumps(body | ({"logprobs": True} if self._wants_log_probs else {})).encode()

    def _post(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get("CAPTIONER_API_KEY")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        end = time.monotonic() + TIMEOUT
        request = urllib.request.Request(self.url, body, headers)
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            data = b""
            while part := answer.read1(1 << 16):
                data += part
                if len(data) > LARGEST_ANSWER:
                    raise DataError(f"an answer of more than {LARGEST_ANSWER} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"no whole answer within {TIMEOUT:.0f} s")
        return data.decode("utf-8", "replace")

    def _parse(self, text: str) -> Caption:
        match parse_json(text, "its answer"):
            case {"choices": [{"message": {"content": str(content)}} as choice, *_]}:
                caption = clean_answer(content)
                if caption:
                    return Caption(caption, _log_prob(choice))
        raise DataError("its answer holds no text")

    def _fail(self, code: int, reason: str) -> NoReturn:
        """Raise an error that ends the run if all images would fail in the same way, else the error of one image."""
        if code in HOPELESS or 300 <= code < 400:
            raise CaptionerError(
                f"{self.url} answers {code}: {reason}; check the address, the model's name and the key"
            )
        raise DataError(f"{code}: {reason}")


def _log_prob(choice: Mapping[str, Any]) -> float | None:
    """The sum of log probabilities over the answer's tokens in nats; None if the server does not give them."""
    match choice.get("logprobs"):
        case {"content": [_, *_] as tokens}:
            logs = [one.get("logprob") if isinstance(one, dict) else None for one in tokens]
            numbers = [float(log) for log in logs if isinstance(log, int | float) and math.isfinite(log)]
            return sum(numbers) if len(numbers) == len(logs) else None
    return None


def _reason(error: urllib.error.HTTPError) -> str:
    """The message in an error's body, shortened."""
    try:
        text = error.read(4096).decode("utf-8", "replace")
    except (OSError, HTTPException):
        text = ""
    try:
        value = json.loads(text)
        value = value.get("error", value) if isinstance(value, dict) else value
        text = str(value.get("message", value) if isinstance(value, dict) else value)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:200] or str(error.reason)
