"""Tables for the terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

STYLES = ("plain", "markdown", "latex")
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": "$\\pm$"})


def render(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, style: str = "plain") -> str:
    """A table in one of ``STYLES``; the first ``left`` columns are texts, the others are aligned as numbers."""
    if style == "markdown":
        rule = ["---"] * left + ["---:"] * (len(header) - left)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])
    if style == "latex":
        lines = [" & ".join(cell.translate(_SPECIAL) for cell in cells) + r" \\" for cells in [header, *rows]]
        columns = "l" * left + "r" * (len(header) - left)
        return "\n".join([rf"\begin{{tabular}}{{{columns}}}", lines[0], r"\hline", *lines[1:], r"\end{tabular}"])
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in [header, *rows]:
        aligned = [f"{c:<{w}}" if n < left else f"{c:>{w}}" for n, (c, w) in enumerate(zip(cells, widths, strict=True))]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def footnote(text: str, style: str = "plain") -> str:
    """A line below such a table."""
    return f"% {text}" if style == "latex" else f"`{text}`" if style == "markdown" else text
