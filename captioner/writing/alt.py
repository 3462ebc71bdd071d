"""Find images without alternative texts in HTML and Markdown pages, and fill in texts.

Only the texts are added; all other bytes of a page stay. In HTML an empty ``alt`` means that an image is decorative, so
only images without the attribute lack a text; Markdown has no such rule, so an empty text counts as missing.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

from captioner.data.images import FileKind
from captioner.errors import DataError
from captioner.files import read_text

MARKDOWN = frozenset((".md", ".markdown"))
PAGES = FileKind("pages", frozenset((".html", ".htm", ".xhtml")) | MARKDOWN)
LARGEST = 2**22
"""Largest page in bytes."""
_CANDIDATES = re.compile(r"!\[(?P<text>[ \t]*)\](?=[(\[])|<img(?P<tag>)(?=[\s/>])", re.IGNORECASE)
"""Where Markdown may have an image without a text; a parser decides whether it does."""


@dataclass(frozen=True)
class Gap:
    """A place in a page where an image's text is missing."""

    start: int
    end: int
    """Range of characters that the text replaces."""
    source: str
    """The image's address in the page."""
    line: int
    put: Callable[[str], str]
    """Formats a text for this place."""


@dataclass(frozen=True)
class Page:
    """A page's text and its gaps, in order."""

    path: Path
    text: str
    gaps: tuple[Gap, ...]

    def filled(self, texts: Mapping[str, str]) -> str:
        """The page with ``texts``, given by the images' addresses in the page."""
        parts, at = [], 0
        for gap in self.gaps:
            if gap.source in texts:
                parts += [self.text[at : gap.start], gap.put(texts[gap.source])]
                at = gap.end
        return "".join([*parts, self.text[at:]])


def read_page(path: Path) -> Page:
    """Read a page, Markdown or HTML by its suffix; raises ``DataError`` if it cannot be read."""
    if path.is_file() and path.stat().st_size > LARGEST:
        raise DataError(f"{path}: has more than {LARGEST} bytes")
    read_text(path)  # raises a clear error for another encoding
    text = path.read_bytes().decode("utf-8")  # with its byte-order mark and line ends
    return Page(path, text, tuple(_in_markdown(text) if path.suffix.lower() in MARKDOWN else _in_html(text)))


def find_image(page: Path, source: str, root: Path) -> Path | None:
    """The file of an image that ``page`` names; None for an image elsewhere on the web.

    Raises ``DataError`` for a file that does not exist or is not below ``root``, the folder of the site.
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
    except ValueError:  # a NUL, which no file name can contain
        raise DataError(f"{source}: no such file") from None
    return path


def sentence(caption: str) -> str:
    """A caption with a capital letter and a full stop, where screen readers pause."""
    text = caption[:1].upper() + caption[1:]
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


class _Images(HTMLParser):
    """Collects HTML images that lack a text: line (from 1), column (from 0) and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[int, int, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        hidden = values.get("role") in ("presentation", "none") or values.get("aria-hidden") == "true"
        if tag == "img" and "alt" not in values and not hidden and values.get("src"):
            self.found.append((*self.getpos(), values))


def _in_html(text: str) -> Iterator[Gap]:
    lines = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
    for line, column, values in _Images(text).found:
        at = lines[line - 1] + column + len("<img")
        yield Gap(at, at, values["src"] or "", line, _attribute)


def _in_markdown(text: str) -> Iterator[Gap]:
    """Replace each candidate by a unique mark; the parser, which gives no positions, tells which marks are images."""
    mark = f"captioner{secrets.token_hex(8)}"
    found = list(_CANDIDATES.finditer(text))
    parts, at = [], 0
    for number, match in enumerate(found):
        group = match.lastgroup or ""
        parts += [text[at : match.start(group)], f"{' ' * (group == 'tag')}{mark}-{number}"]
        at = match.end(group)
    sources = _marked_images("".join([*parts, text[at:]]), mark)
    for number, match in enumerate(found):
        if source := sources.get(f"{mark}-{number}"):
            group = match.lastgroup or ""
            put = _attribute if group == "tag" else _escaped
            yield Gap(*match.span(group), source, text.count("\n", 0, match.start()) + 1, put)


def _marked_images(text: str, mark: str) -> dict[str, str]:
    """The addresses of Markdown's images by their texts, and of images in its HTML by the attribute that is a mark."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.normalizeLink = str  # type: ignore[method-assign,assignment]  # file names are not percent-encoded
    found: dict[str, str] = {}
    waiting = parser.parse(text)
    while waiting:
        token = waiting.pop()
        waiting += token.children or ()
        if token.type == "image":
            found.setdefault(token.content, str(token.attrs["src"]))
        elif token.type in ("html_inline", "html_block"):
            for _, _, values in _Images(token.content).found:
                found |= {name: values["src"] or "" for name in values if name.startswith(mark)}
    return found


def _attribute(text: str) -> str:
    return f' alt="{escape(text)}"'


def _escaped(text: str) -> str:
    return re.sub(r"([\\\[\]])", r"\\\1", text)
