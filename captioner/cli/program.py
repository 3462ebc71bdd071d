"""Programs outside the ``captioner`` command, such as ``python -m preprocess.tacos``, with the same exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from captioner.errors import exit_status


def choice(names: Sequence[str], *flags: str, **settings: Any) -> Any:
    """A typer option whose value must be one of ``names``."""

    def check(value: str | None) -> str | None:
        if value and value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return typer.Option(*flags, callback=check, metavar="|".join(names), **settings)


def create_app(help: str | None, *commands: Callable[..., None]) -> typer.Typer:
    """An app with one command, or with several subcommands: ``human_command`` becomes human.

    The annotated parameters of a command become its options. Line breaks in ``help``, a module's docstring, are kept.
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
    """Run ``app`` on ``arguments``, by default those of the command line; returns the exit status.

    Errors for the user are one line on stderr. The command's ``typer.Context`` has the arguments as its ``obj``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return exit_status(lambda: app(given, obj=given))
    except SystemExit as ended:  # how typer ends, also after success
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
