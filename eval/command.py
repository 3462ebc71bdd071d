"""The command line of the modules of ``eval``: typer options, errors as one line, an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from captioner.data import READERS, SPLITS
from captioner.errors import exit_status


def choice(names: Sequence[str], *flags: str, **settings: Any) -> Any:
    """An option whose value must be one of ``names``."""

    def check(value: str | None) -> str | None:
        if value and value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return typer.Option(*flags, callback=check, metavar="|".join(names), **settings)


DataFormat = Annotated[str, choice(sorted(READERS), "--format", help="The data set's format.")]
Split = Annotated[str, choice(SPLITS, help="The part of the data set.")]
Tokenizer = Annotated[str, typer.Option(help="How captions are tokenized.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]


def create_app(help: str | None, *commands: Callable[..., None]) -> typer.Typer:
    """An app of one command, or of several subcommands: ``human_command`` is called human.

    The line breaks of ``help``, a module's docstring, are kept.
    """
    text = "\n\n".join(f"\b\n{paragraph}" for paragraph in (help or "").strip().split("\n\n"))
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=text,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    for command in commands:
        name = command.__name__.removesuffix("_command").replace("_", "-")
        app.command(name, help=text if len(commands) == 1 else None)(command)
    return app


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run ``app`` on ``arguments``, those of the process by default; returns the exit status.

    The arguments are the ``obj`` of the command's ``typer.Context``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return exit_status(lambda: app(given, obj=given))
    except SystemExit as leave:  # typer ends so, and after a usage error with 2
        return int(leave.code or 0)
