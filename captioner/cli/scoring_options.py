"""Options that ``captioner score`` and ``captioner compare`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captioner.errors import UsageError

References = Annotated[
    list[Path],
    typer.Option(
        "--references",
        "-r",
        metavar="REF",
        help="COCO or Karpathy JSON, JSON lines, image<TAB>caption, or a data set's folder. For results with one "
        "caption per line: text files with one reference per line (repeat the option).",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="flickr8k, flickr8k-kaggle, flickr30k, karpathy, coco or own.  [default: as detected]"
    ),
]
Split = Annotated[str, typer.Option(help="Only this part of the references: train, val or test.  [default: all]")]
Missing = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="For images without a caption (or with null): error; skip leaves them out, and captions without "
        "references too; empty counts an empty caption.",
    ),
]
Tokenizer = Annotated[
    str,
    typer.Option(
        help="Tokenizer of captions and references: ptb-lite gives coco-caption's tokens, ptb-java runs its Java "
        "program, plain is that of the LRCN release."
    ),
]
DocumentFrequencies = Annotated[
    Path | None,
    typer.Option(
        "--df",
        metavar="REF",
        help="References for CIDEr-D's document frequencies, such as COCO's.  [default: those of --references]",
    ),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX.")]


def table_style(as_json: bool, latex: bool, markdown: bool) -> str:
    """The style of ``captioner.tables``; raises ``UsageError`` for two formats at once."""
    if as_json + latex + markdown > 1:
        raise UsageError("choose one of --json, --latex and --markdown")
    return "latex" if latex else "markdown" if markdown else "plain"
