"""Images of HTML and Markdown pages that lack an alternative text, and pages in which they have one.

Only the texts are put in; every other byte of a page stays. In HTML an empty ``alt`` says that an image is decoration,
so only images without the attribute lack one; Markdown has no such rule, and there an empty text is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path
from urllib.parse import unquote, urlsplit

from captioner.data.images import FileKind
from captioner.errors import DataError
from captioner.files import read_text

MARKDOWN = frozenset((".md", ".markdown"))
PAGES = FileKind("pages", frozenset((".html", ".htm", ".xhtml")) | MARKDOWN)
LARGEST = 2**22
"""Bytes of a page that is read."""
_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|<!--.*?-->",
    re.DOTALL | re.MULTILINE,
)
_INLINE = re.compile(r"!\[(?P<text>[ \t]*)\]\([ \t]*(?:<(?P<angle>[^<>\n]*)>|(?P<plain>[^\s()<>]+))[^()\n]*\)")
_REFERENCE = re.compile(r"!\[(?P<text>[ \t]*)\]\[(?P<name>[^\[\]\n]+)\]")
_DEFINITION = re.compile(
    r"^ {0,3}\[(?P<name>[^\[\]\n]+)\]:[ \t]*(?:<(?P<angle>[^<>\n]*)>|(?P<plain>\S+))", re.MULTILINE
)


@dataclass(frozen=True)
class Gap:
    """A place in a page where an image's text is missing."""

    start: int
    end: int
    """Characters that the text replaces."""
    source: str
    """The image as the page names it."""
    line: int
    put: Callable[[str], str]
    """A text as it is written there."""


@dataclass(frozen=True)
class Page:
    """A page's text and its gaps, in order."""

    path: Path
    text: str
    gaps: tuple[Gap, ...]

    def filled(self, texts: Mapping[str, str]) -> str:
        """The page with the texts of the images that have one, by the name that the page gives them."""
        parts, at = [], 0
        for gap in self.gaps:
            if gap.source in texts:
                parts += [self.text[at : gap.start], gap.put(texts[gap.source])]
                at = gap.end
        return "".join([*parts, self.text[at:]])


def read_page(path: Path) -> Page:
    """The page in a file, by its suffix Markdown or HTML; ``DataError`` for one that cannot be read."""
    if path.is_file() and path.stat().st_size > LARGEST:
        raise DataError(f"{path}: has more than {LARGEST} bytes")
    read_text(path)  # explains what is wrong with the encoding
    text = path.read_bytes().decode("utf-8")  # with its mark and its line ends
    masked = _CODE.sub(_blank, text) if path.suffix.lower() in MARKDOWN else text
    gaps = [*_in_html(masked), *(_in_markdown(masked) if path.suffix.lower() in MARKDOWN else ())]
    return Page(path, text, tuple(sorted(gaps, key=lambda gap: gap.start)))


def find_image(page: Path, source: str, root: Path) -> Path | None:
    """The file of an image that ``page`` names; None for one elsewhere on the web.

    Raises ``DataError`` for a file that is not there, or not below ``root``, the folder of the site.
    """
    try:
        address = urlsplit(source.strip())
    except ValueError:
        raise DataError(f"{source}: not an address") from None
    if address.scheme or address.netloc or not address.path:
        return None
    name = unquote(address.path)
    path = root / name.lstrip("/") if name.startswith("/") else page.parent / name
    try:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(root)):
            raise DataError(f"{source} is outside of {root}; name the site's folder with --root")
        if not real.is_file():
            raise DataError(f"{source}: no such file")
    except ValueError:  # a NUL, which no file's name holds
        raise DataError(f"{source}: no such file") from None
    return path


def sentence(caption: str) -> str:
    """A caption with a capital letter and a full stop, as screen readers pause there."""
    text = caption[:1].upper() + caption[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\r\n]", " ", match[0])


class _Images(HTMLParser):
    """Collects the gaps of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.lines = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
        self.gaps: list[Gap] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        hidden = values.get("role") in ("presentation", "none") or values.get("aria-hidden") == "true"
        if tag != "img" or "alt" in values or hidden or not values.get("src"):
            return
        line, column = self.getpos()
        at = self.lines[line - 1] + column + len("<img")
        self.gaps.append(Gap(at, at, values["src"] or "", line, lambda text: f' alt="{escape(text)}"'))


def _in_html(text: str) -> list[Gap]:
    return _Images(text).gaps


def _in_markdown(text: str) -> Iterator[Gap]:
    places = {_name(match["name"]): match["angle"] or match["plain"] or "" for match in _DEFINITION.finditer(text)}
    found = [(match, match["angle"] or match["plain"]) for match in _INLINE.finditer(text)]
    found += [(match, places.get(_name(match["name"]))) for match in _REFERENCE.finditer(text)]
    for match, source in found:
        if source:
            start, end = match.span("text")
            line = text.count("\n", 0, start) + 1
            yield Gap(start, end, source, line, lambda text: re.sub(r"([\\\[\]])", r"\\\1", text))


def _name(text: str) -> str:
    return " ".join(text.casefold().split())
