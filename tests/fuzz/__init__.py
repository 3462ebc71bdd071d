"""Hostile input, made by hypothesis: damaged copies of valid files and random structure, and nothing but our errors.

``CAPTIONER_FUZZ`` is the number of inputs of each test, 25 without it; ``make fuzz`` takes 5,000. An input that takes
longer than ``SECONDS`` counts as a hang. The inputs are the same on every machine; for others, name a seed:
``CAPTIONER_FUZZ_SEED=7 make fuzz``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

from captioner.errors import LONGEST, CaptionerError, printable

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])
INPUTS = int(os.environ.get("CAPTIONER_FUZZ") or 25)
SEED = os.environ.get("CAPTIONER_FUZZ_SEED", "")
SECONDS = 10

NASTY = [
    *(b"[" * 1500, b'{"a":' * 1500, b"9" * 5000, b"-" + b"1" * 400, b"1e999", b"-0", b"NaN", b"-Infinity", b"0.5"),
    *(b"null", b"true", b"{}", b"[]", b'""', b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"#", b"#0", b"_1_2:"),
    *(b"\x00", b"\x1b[2J", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b"\t", b"\t\t", b",", b" ", b"  "),
    *("\u2028".encode(), "é".encode(), "e\u0301".encode(), "\u202e".encode(), b"a" * 300, b"../", b"/", b"C:\\"),
    *(
        b": ",
        b"- ",
        b"&a [*a]",
        b"*a",
        b"<<: *a",
        b"!!python/name:os.system",
        b"!!int x",
        b"---",
        b"2024-13-45",
        b"0o9",
    ),
    *(b"train", b"test", b"image", b"caption", b".avi", b"-->", b"-", b"inf", b"1_0", b"12:30", "٣".encode()),
]
"""Bytes that parsers trip over, put into valid files."""


def fuzz(test: Test) -> Test:
    """Run ``test`` with ``INPUTS`` inputs."""
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    run = settings(max_examples=INPUTS, derandomize=not SEED, suppress_health_check=allowed)(test)
    return seed(int(SEED))(run) if SEED else run


def attempt(function: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """What ``function`` returns, or None where it raises a ``CaptionerError``; nothing else may happen."""
    with _alarm():
        try:
            return function(*args, **options)
        except CaptionerError as error:
            check_error(error)
            return None


def check_error(error: CaptionerError) -> None:
    """A message is one printable line, and not long."""
    text = str(error)
    assert 0 < len(text) <= LONGEST and text == printable(text), text


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise AssertionError(f"an input takes longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NUMBERS = [10**400, -(10**400), 2**63, 0, -1, 1e308, 5e-324, float("inf"), float("nan"), True]
NAMES = ["train", "test", "a.jpg", "b.jpg", "", " ", "\ud800", "\x00", "é.jpg", "../a.jpg", "a" * 300, "1", "0"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(NUMBERS)
    | st.sampled_from(NAMES)
)
KEYS = (
    "id image_id image caption captions annotations images file_name filename filepath split sentences raw cocoid "
    "timestamps fps duration num_frames clip_id video start end level labels format version nodes"
).split()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
"""Values of JSON, among them such as only Python writes."""


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """``valid`` after one to four edits of its bytes."""
    content = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 5, 20, 10_000])))
        piece = draw(st.sampled_from(NASTY) | st.binary(max_size=4) | st.just(content[start:end] * 2))
        content = content[:start] + piece + content[end:]
    return content


EXTREMES = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
"""Sizes, counts and offsets that no small file has."""


@st.composite
def corrupted(draw: st.DrawFn, valid: bytes) -> bytes:
    """A binary file with a few bits, bytes or numbers changed in place, or bytes cut out, repeated or put in."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["bit", "byte", "number", "number", "cut", "end", "repeat", "nasty"]))
        end = at + draw(st.sampled_from([1, 2, 4, 8, 30, 500]))
        if kind == "bit" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "number":
            width, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            value = draw(st.sampled_from(EXTREMES) | st.integers(0, 2**16)) % 2 ** (8 * width)
            content[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == "cut":
            del content[at:end]
        elif kind == "end":
            del content[at:]
        elif kind == "repeat":
            content[at:at] = content[at:end]
        else:
            content[at:at] = draw(st.sampled_from(NASTY))
    return bytes(content)


@st.composite
def flipped(draw: st.DrawFn, valid: bytes) -> bytes:
    """``valid`` with one bit changed."""
    content = bytearray(valid)
    content[draw(st.integers(0, len(valid) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


@st.composite
def reshaped(draw: st.DrawFn, valid: Any) -> Any:
    """The JSON value ``valid`` with one value within replaced, removed or repeated."""
    if isinstance(valid, dict) and valid and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(valid)))
        rest = {name: value for name, value in valid.items() if name != key}
        return rest if draw(st.integers(0, 5)) == 0 else rest | {key: draw(reshaped(valid[key]))}
    if isinstance(valid, list) and valid and draw(st.integers(0, 5)):
        index = draw(st.integers(0, len(valid) - 1))
        count = draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
        return [*valid[:index], *[draw(reshaped(valid[index])) for _ in range(count)], *valid[index + 1 :]]
    if isinstance(valid, int | float | str) and draw(st.booleans()):
        return draw(st.sampled_from(NAMES if isinstance(valid, str) else NUMBERS))
    return draw(VALUES)


def damaged_file(name: str, valid: bytes) -> st.SearchStrategy[bytes]:
    """Damaged copies of a file: of its bytes and, where it holds JSON, of its structure."""
    if name.endswith(".json"):
        return damaged(valid) | reshaped(json.loads(valid)).map(lambda value: json.dumps(value).encode())
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in valid.splitlines()]
        return damaged(valid) | reshaped(rows).map(_json_lines)
    return damaged(valid)


def _json_lines(value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(row) for row in rows).encode()
