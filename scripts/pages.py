"""Generated pages: write them, or find those that are out of date."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from captioner.files import write_text


def stale(pages: Mapping[Path, str], folder: Path | None = None) -> list[Path]:
    """Pages whose file is out of date, and files in ``folder`` that are no longer pages."""
    wrong = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return [*wrong, *(path for path in sorted(folder.glob("*.md")) if path not in pages)] if folder else wrong


def write_or_check(pages: Mapping[Path, str], folder: Path | None = None, check: bool = False) -> None:
    """Write the pages and remove other files in ``folder``; with ``check`` only list those that are out of date."""
    wrong = stale(pages, folder)
    if check and wrong:
        print(f"{', '.join(path.name for path in wrong)}: out of date; run: make docs", file=sys.stderr)
        raise typer.Exit(1)
    for path in wrong:
        if path in pages:
            path.parent.mkdir(exist_ok=True)
            write_text(path, pages[path])
        else:
            path.unlink()
