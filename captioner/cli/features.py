"""``captioner features``: inspect feature stores, and convert between shards of features and stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from captioner.errors import print_error, printable
from captioner.files import HDF5, check_output

app = typer.Typer(no_args_is_help=True, help="Inspect, import and export feature stores.")


@app.callback()
def features() -> None:
    """Inspect, import and export feature stores."""


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A feature store, or a folder of parts.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read all rows; exit status 1 if any is damaged.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Show the contents of FILE and how they were computed."""
    from captioner.features.store import FeatureStore

    store = FeatureStore(file, mirrored=None)
    summary = store.summary()
    problems = store.verify() if verify else []
    if as_json:
        print(json.dumps({**summary, "problems": problems} if verify else summary))
    else:
        for name, value in summary.items():
            print(f"{name:<14} {printable(str(value))}")
    for problem in problems:
        print_error(f"error: {problem}")
    if problems:
        raise typer.Exit(1)
    if verify and not as_json:
        print("verified       all ids are unique; all rows are finished and finite")


@app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder -o of captioner extract --engine.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Store to write (HDF5).")],
) -> None:
    """Convert the shards that captioner extract wrote to a store.

    Images that failed are recorded as unfinished. The same command resumes an interrupted import.
    """
    from captioner.scale.features import import_features

    check_output("-o", output, HDF5)
    done, failed = import_features(source, output)
    print_error(f"{output}: {done} features, {failed} failed")


@app.command("export")
def export_command(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A feature store of images, in float16.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of Parquet files.")],
) -> None:
    """Write a store as Parquet files: the inverse of import."""
    from captioner.scale.features import export_features

    print_error(f"{output}: {export_features(source, output)} features")
