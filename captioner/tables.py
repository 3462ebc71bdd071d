"""Tables for the terminal, Markdown and LaTeX, by tabulate."""

from __future__ import annotations

from collections.abc import Sequence

from captioner.errors import printable

STYLES = {"plain": "plain", "markdown": "pipe", "latex": "latex"}
"""tabulate's name of each style."""


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: int | Sequence[bool] = 1,
    style: str = "plain",
) -> str:
    """A table in one of ``STYLES``.

    Columns of text are aligned to the left, numbers to the right. ``text_columns`` is the number of text columns, which
    come first, or says for each column whether it is text.
    """
    from tabulate import tabulate

    header, *rows = [["\n".join(map(printable, cell.split("\n"))) for cell in cells] for cells in [header, *rows]]
    if style == "markdown":
        header, *rows = [[cell.replace("|", "\\|") for cell in cells] for cells in [header, *rows]]
    if isinstance(text_columns, int):
        text_columns = [column < text_columns for column in range(len(header))]
    alignment = ["left" if is_text else "right" for is_text in text_columns]
    table: str = tabulate(rows, header, tablefmt=STYLES[style], disable_numparse=True, colalign=alignment)
    return "\n".join(line.rstrip() for line in table.splitlines())


def footnote(text: str, style: str = "plain") -> str:
    """A line to print below such a table: code in Markdown, a comment in LaTeX."""
    text = printable(text)
    return f"% {text}" if style == "latex" else f"`{text}`" if style == "markdown" else text
