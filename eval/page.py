"""A report as blocks, rendered as one self-contained HTML page or as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captioner.optional import require
from captioner.tables import render


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str
    note: bool = False
    """Small print."""


@dataclass(frozen=True)
class Table:
    """A table; a newline in a cell separates its number from the small print below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Number of columns on the left that hold text; the others hold numbers."""
    words: int = 0
    """Number of columns on the right that hold text."""
    strong: frozenset[int] = frozenset()
    """Numbers of the rows in bold."""

    def is_text(self, column: int) -> bool:
        return column < self.left or column >= len(self.header) - self.words


@dataclass(frozen=True)
class Figure:
    name: str
    """Stem of the figure's file, beside the Markdown page."""
    svg: str
    caption: str


@dataclass(frozen=True)
class Card:
    """An image with lines of text."""

    image: bytes
    """JPEG; empty for none."""
    title: str
    lines: Sequence[tuple[str, str]]
    """(Speaker, text); an empty speaker means the previous one."""
    alt: str = ""


@dataclass(frozen=True)
class Cards:
    cards: Sequence[Card] = field(default_factory=tuple)


@dataclass(frozen=True)
class Code:
    text: str


Block = Heading | Text | Table | Figure | Cards | Code


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The complete page by the template ``page.html``, with style, figures and images, without scripts."""
    jinja2 = require("jinja2", extra="plots")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    template = environment.get_template("page.html")
    return str(template.render(title=title, blocks=[(type(block).__name__, block) for block in blocks]))


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The report without images; figures are links to ``NAME.svg`` beside it."""
    parts = [text for block in blocks if (text := markdown(block))]
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def markdown(block: Block) -> str:
    """One block in Markdown; empty for blocks that only HTML shows."""
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Table():
            header, *rows = [[" ".join(cell.split("\n")) for cell in row] for row in [block.header, *block.rows]]
            return render(header, rows, [block.is_text(column) for column in range(len(header))], "markdown")
        case Figure(name, _, caption):
            return f"![{caption}]({name}.svg)"
        case Code(text):
            return f"```\n{text}\n```"
    return _markdown_cards(block.cards)


def _markdown_cards(cards: Sequence[Card]) -> str:
    lines = []
    for card in cards:
        said = "; ".join(f"*{who}*: {text}" if who else text for who, text in card.lines)
        lines.append(f"* {card.alt}, {card.title}. {said}")
    return "\n".join(lines)
