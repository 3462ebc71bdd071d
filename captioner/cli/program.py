"""Programs of one function outside the ``captioner`` command, such as ``python -m preprocess.tacos``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from captioner.errors import exit_status


def run_program(function: Callable[..., None], name: str, arguments: Sequence[str] | None = None) -> int:
    """Run ``function``, whose annotated parameters are the options, as the program ``name``; returns the exit status.

    ``arguments`` are those of the command line by default. Errors meant for the user are one line on stderr.
    """
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.command()(function)
    try:
        return exit_status(lambda: app(None if arguments is None else list(arguments), prog_name=name))
    except SystemExit as ended:  # how typer ends, also after success
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
