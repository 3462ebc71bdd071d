"""A report as blocks, and the two ways to write it: one HTML page that needs nothing else, and Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")


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
    """A newline in a cell parts its number from the small print below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """How many columns hold text; the others hold numbers."""
    words: int = 0
    """How many columns at the end hold text as well."""
    strong: frozenset[int] = frozenset()
    """Rows in bold."""

    def is_text(self, column: int) -> bool:
        return column < self.left or column >= len(self.header) - self.words


@dataclass(frozen=True)
class Figure:
    name: str
    """Of its file, beside the Markdown page."""
    svg: str
    caption: str


@dataclass(frozen=True)
class Card:
    """An image with sentences."""

    image: bytes
    """JPEG; empty for none."""
    title: str
    lines: Sequence[tuple[str, str]]
    """Who says what; nobody goes on where the one before ended."""
    alt: str = ""


@dataclass(frozen=True)
class Cards:
    cards: Sequence[Card] = field(default_factory=tuple)


@dataclass(frozen=True)
class Code:
    text: str


Block = Heading | Text | Table | Figure | Cards | Code


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The whole page: style, figures and images are in it, scripts are not."""
    body = "\n".join(map(_html, blocks))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same without images; figures are links to ``NAME.svg`` beside it."""
    parts = [text for block in blocks if (text := markdown(block))]
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def markdown(block: Block) -> str:
    """One block; empty for what Markdown does not show."""
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Table():
            rule = ["---" if block.is_text(column) else "---:" for column in range(len(block.header))]
            rows = [[_cell(cell) for cell in row] for row in [block.header, rule, *block.rows]]
            return "\n".join(f"| {' | '.join(row)} |" for row in rows)
        case Figure(name, _, caption):
            return f"![{caption}]({name}.svg)"
        case Code(text):
            return f"```\n{text}\n```"
    return _markdown_cards(block.cards)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split("\n"))


def _markdown_cards(cards: Sequence[Card]) -> str:
    lines = []
    for card in cards:
        said = "; ".join(f"*{who}*: {text}" if who else text for who, text in card.lines)
        lines.append(f"* {card.alt}, {card.title}. {said}")
    return "\n".join(lines)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text, note):
            return f'<p class="{"note" if note else "text"}">{escape(text)}</p>'
        case Table():
            return _html_table(block)
        case Figure(_, svg, caption):
            return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
    return f'<div class="cards">{"".join(map(_html_card, block.cards))}</div>'


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str, strong: bool = False) -> str:
        parts = []
        for column, cell in enumerate(cells):
            top, _, small = cell.partition("\n")
            inner = escape(top) + (f"<small>{escape(small)}</small>" if small else "")
            parts.append(f'<{tag} class="{"text" if table.is_text(column) else "number"}">{inner}</{tag}>')
        return f'<tr class="{"strong" if strong else "plain"}">{"".join(parts)}</tr>'

    body = "".join(row(cells, "td", number in table.strong) for number, cells in enumerate(table.rows))
    return f'<div class="wide"><table><thead>{row(table.header, "th")}</thead><tbody>{body}</tbody></table></div>'


def _html_card(card: Card) -> str:
    data = base64.b64encode(card.image).decode()
    named = ((f"<dt>{escape(who)}</dt>" if who else "", escape(text)) for who, text in card.lines)
    lines = "".join(f"{who}<dd>{text}</dd>" for who, text in named)
    image = f'<img alt="{escape(card.alt)}" src="data:image/jpeg;base64,{data}">' if data else ""
    return f'<div class="card">{image}<div><b>{escape(card.title)}</b><dl>{lines}</dl></div></div>'
