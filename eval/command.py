"""Options that several modules of ``eval`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import choice
from captioner.data import READERS, SPLITS
from captioner.files import RESULTS, check_output

DataFormat = Annotated[str, choice(sorted(READERS), "--format", help="The data set's format.")]
Split = Annotated[str, choice(SPLITS, help="The part of the data set.")]
Tokenizer = Annotated[str, typer.Option(help="How captions are tokenized.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]


def _check_results(path: Path) -> Path:
    check_output("-o", path, RESULTS)
    return path


Output = Annotated[
    Path, typer.Option("--output", "-o", callback=_check_results, help="The results file to write (JSON).")
]
