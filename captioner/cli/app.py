"""The ``captioner`` command: its subcommands, and its entry point, which turns errors into one line and an exit status.

The modules of this package import nothing heavy at the top; a command imports what it needs when it runs, so that
``captioner --help`` is fast.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from captioner import __version__
from captioner.cli import (
    alt,
    caption,
    classify,
    compare,
    crf,
    data,
    describe,
    doctor,
    export,
    extract,
    features,
    index,
    models,
    recognize,
    score,
    search,
    serve,
    status,
    train,
)
from captioner.cli.writing import CommandWithPairs
from captioner.errors import exit_status

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: fast, and the same as in docs/commands/
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command(cls=CommandWithPairs)(caption.caption)
app.command()(status.status)
app.command()(alt.alt)
app.command()(models.models)
app.command()(classify.classify)
app.command()(describe.describe)
app.command()(recognize.recognize)
app.command()(index.index)
app.command()(search.search)
app.command()(serve.serve)
app.command()(extract.extract)
app.add_typer(features.app, name="features")
app.command()(train.train)
app.command()(export.export)
app.command()(score.score)
app.command()(compare.compare)
app.add_typer(crf.app, name="crf")
app.add_typer(data.app, name="data")
app.command()(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def captioner(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Caption photos and videos, and train, evaluate and score captioning models.

    Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.
    """


def main() -> int:
    """Run the command line; returns the exit status. Errors meant for the user are one line without a traceback."""
    # OpenMP reads this when torch is imported. By default torch's threads spin between the short steps of a decoder,
    # which doubles the time of a caption on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return exit_status(lambda: app(prog_name="captioner"))
