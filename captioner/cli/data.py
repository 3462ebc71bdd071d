"""``captioner data``: list, verify and download public files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.errors import print_error, printable
from captioner.progress import progress_bar

if TYPE_CHECKING:
    from captioner.manifest import Entry

app = typer.Typer(no_args_is_help=True, help="List, verify and download public data sets and weights.")

Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the files.  [default: the cache ($CAPTIONER_CACHE); for weights, torch's]"),
]


@app.command("list")
def list_entries(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Show all fields of these entries.")] = None,
) -> None:
    """List the data sets and weight files in data_manifest.yaml."""
    from captioner.manifest import find, read_manifest

    manifest = read_manifest()
    if names:
        print("\n\n".join(_record(find(manifest, name)) for name in names))
        return
    width = max(map(len, manifest))
    for entry in manifest.values():
        print(f"{entry.name:<{width}}  {entry.kind:<7}  {_size(entry.bytes):>8}  {_way(entry):<7}  {entry.about}")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Entries to check.  [default: all on disk]")
    ] = None,
    folder: Folder = None,
) -> None:
    """Check the size and digest of files on disk.

    The exit status is 1 if a file is damaged or a named one is missing.
    """
    from captioner.errors import DataError
    from captioner.manifest import find, problem, read_manifest

    manifest = read_manifest()
    chosen = [find(manifest, name) for name in names or manifest]
    places = [(entry, _place(entry, folder)) for entry in chosen if entry.file]
    if not names:
        places = [(entry, path) for entry, path in places if path.exists()]
    if not places:
        raise DataError(f"{', '.join(names) if names else 'no entry of the manifest'}: no file to verify")
    bad = 0
    for entry, path in places:
        wrong = problem(entry, path)
        bad += wrong is not None
        found = wrong or ("ok" if entry.has_digest else "ok, as far as is known")
        print(f"{entry.name}\t{found}\t{printable(str(path))}")
    if bad:
        raise typer.Exit(1)


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from captioner data list.")],
    folder: Folder = None,
) -> None:
    """Download a file, verify it and print its path.

    The same command resumes an interrupted download.
    """
    from captioner.manifest import download, find, read_manifest

    entry = find(read_manifest(), name)
    if not entry.manual:
        print_error(f"{entry.name}: {_size(entry.bytes)}; license: {entry.license}")
    with progress_bar(entry.name, count_bytes=True) as bar:
        path = download(entry, _place(entry, folder), bar.update)
    print(path)


def _place(entry: Entry, folder: Path | None) -> Path:
    return folder / entry.file if folder else entry.path


def _way(entry: Entry) -> str:
    return "by hand" if entry.manual else "hub" if entry.hub else "get"


def _size(count: int | None) -> str:
    """A number of bytes in decimal units, as on download pages."""
    if count is None:
        return "size ?"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _record(entry: Entry) -> str:
    fields = {key: value for key, value in vars(entry).items() if value and key != "name"}
    return "\n".join([entry.name, *(f"  {key + ':':<14} {value}" for key, value in fields.items())])
