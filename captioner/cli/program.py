"""Programs outside the ``captioner`` command, such as ``python -m preprocess.tacos``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from captioner.errors import exit_status


def run_program(name: str, *functions: Callable[..., None], arguments: Sequence[str] | None = None) -> int:
    """Run ``functions`` as the program ``name``; returns the exit status.

    The annotated parameters of a function are its options. Several functions are subcommands; ``nearest_command`` is
    called ``nearest``. ``arguments`` are those of the command line by default. Errors for the user are one line.
    """
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    for function in functions:
        app.command(function.__name__.removesuffix("_command").replace("_", "-"))(function)
    try:
        return exit_status(lambda: app(None if arguments is None else list(arguments), prog_name=name))
    except SystemExit as ended:  # how typer ends, also after success
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
