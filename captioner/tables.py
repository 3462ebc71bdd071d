"""Tables for the terminal, Markdown and LaTeX, drawn by tabulate."""

from __future__ import annotations

from collections.abc import Sequence

STYLES = {"plain": "plain", "markdown": "pipe", "latex": "latex"}
"""tabulate's name of each style."""


def render(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1, style: str = "plain") -> str:
    """A table in one of ``STYLES``; the first ``text_columns`` are aligned to the left, the others to the right."""
    from tabulate import tabulate

    if style == "markdown":
        header, *rows = [[cell.replace("|", "\\|") for cell in cells] for cells in [header, *rows]]
    alignment = ["left"] * text_columns + ["right"] * (len(header) - text_columns)
    table: str = tabulate(rows, header, tablefmt=STYLES[style], disable_numparse=True, colalign=alignment)
    return "\n".join(line.rstrip() for line in table.splitlines())


def footnote(text: str, style: str = "plain") -> str:
    """A line below such a table: code in Markdown, a comment in LaTeX."""
    return f"% {text}" if style == "latex" else f"`{text}`" if style == "markdown" else text
