"""``captioner features``: inspect feature stores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Inspect feature stores.")


@app.callback()
def features() -> None:
    """Inspect feature stores."""


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A feature file, or a folder of files written by parts.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read all rows; exit status 1 if any is damaged.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Show what FILE holds and what made it."""
    from captioner.features.store import FeatureStore

    store = FeatureStore(file, mirrored=None)
    facts = store.summary()
    problems = store.verify() if verify else []
    if as_json:
        print(json.dumps({**facts, "problems": problems} if verify else facts))
    else:
        for name, value in facts.items():
            print(f"{name:<14} {value}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)
    if verify and not as_json:
        print("verified       all ids are unique, all rows are finished and finite")
