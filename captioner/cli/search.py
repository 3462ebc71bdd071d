"""``captioner search``: find images of an index by another image or by a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.index import IndexFolder
from captioner.cli.options import Device
from captioner.cli.output import accept_any_file_name
from captioner.errors import ImageError, UsageError, counted, print_error, printable
from captioner.files import check_output, sha256, write_text

if TYPE_CHECKING:
    from captioner.predictors.lrcn import LRCNCaptioner
    from captioner.search.index import Entry, Index
    from captioner.search.query import Match


def search(
    query: Annotated[
        str | None, typer.Argument(metavar="IMG|SENTENCE", help="An image file, or a sentence in quotes.")
    ] = None,
    folder: IndexFolder = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Instead of a query: print groups of equal or nearly equal images.")
    ] = False,
    top: Annotated[int, typer.Option(metavar="K", help="Number of results, at most 10,000.")] = 10,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Lowest score of a result. For images: cosine of the features, -1 to 1, by default 0.95 for "
            "--duplicates. For sentences: mean probability of the words.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The captioner that made the index, if its file was moved.  [default: the index's]"),
    ] = None,
    device: Device = "cpu",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one object per line: image, score, why, caption, log_prob (in nats), classes, and with "
            "--duplicates group.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write a contact sheet: an HTML page of the images."),
    ] = None,
) -> None:
    """Search an index for images by another image or by a sentence.

    Each result is a line: score, path, caption and why it was found, separated by tabs; best first. --duplicates
    prints an empty line between groups. captioner index makes the index.

    The exit status is 1 if nothing was found.
    """
    if (query is None) != duplicates:
        raise UsageError("give an image, a sentence, or --duplicates")
    accept_any_file_name()
    from captioner.search.contact_sheet import SHEET, contact_sheet
    from captioner.search.index import Index, default_folder

    if output is not None:
        check_output("-o", output, SHEET, [query])
    with Index(folder or default_folder()) as index:
        groups = _groups(index, query, top, min_score, model, device)
    _print(groups, as_json, duplicates)
    if output is not None:
        write_text(output, contact_sheet(f"captioner search: {query or 'duplicates'}", groups))
        print_error(f"{counted(sum(map(len, groups)), 'image')} written to {output}")
    if not any(groups):
        print_error("nothing found")
        raise typer.Exit(1)


def _groups(
    index: Index, query: str | None, top: int, min_score: float | None, model: str | None, device: str
) -> list[list[Match]]:
    from captioner.search import query as find

    find.check_top(top)
    if query is None:
        return find.duplicates(index, find.NEAR if min_score is None else min_score)[:top]
    if not _is_image(query):
        captioner = _embedder(index, model, device)
        return [find.by_sentence(index, captioner, query, top, 0.0 if min_score is None else min_score)]
    vector, itself = _vector(index, query, model, device)
    least = -1.0 if min_score is None else min_score
    return [find.similar(index, vector, top, least, without=itself, digest=sha256(query))]


def _is_image(query: str) -> bool:
    """Whether a query is an image and not a sentence; raises ``ImageError`` for an image name without a file."""
    from captioner.data.images import SUFFIXES

    if os.path.isfile(query):
        return True
    if os.path.splitext(query)[1].lower() in SUFFIXES:
        raise ImageError(query, "no such file")
    return False


def _vector(index: Index, path: str, model: str | None, device: str) -> tuple[Any, Entry | None]:
    """The unit vector (D,) of an image, and its entry if the index holds it unchanged."""
    from captioner.files import place
    from captioner.search.indexing import status
    from captioner.search.query import unit

    entry = index.at(place(path))
    if entry is not None and (entry.size, entry.mtime_ns) == status(path):
        return index.vectors([entry])[0], entry
    captioner = _embedder(index, model, device)
    _, inputs = captioner.prepare(path)
    if isinstance(inputs, ImageError):
        raise inputs
    return unit(captioner.encode([inputs])[0]), None


def _embedder(index: Index, model: str | None, device: str) -> LRCNCaptioner:
    """The model that computed the features of the index; raises ``SearchIndexError`` for another one."""
    from captioner.predictors import load
    from captioner.search.models import check_embedder, models_of

    name = index.model.embedder if model in (None, index.model.name) else str(model)
    found = models_of(load(name, device)).embedder
    check_embedder(index.folder, index.model, found)
    return found


def _print(groups: Sequence[Sequence[Match]], as_json: bool, several: bool) -> None:
    for number, group in enumerate(groups):
        if number and not as_json:
            print()
        for match in group:
            if as_json:
                print(json.dumps(to_json(match) | ({"group": number + 1} if several else {})))
            else:
                parts = (f"{match.score:.4f}", match.entry.path, match.entry.caption, match.why)
                print("\t".join(map(printable, parts)))


def to_json(match: Match) -> dict[str, Any]:
    """A match in the form of ``--json``."""
    entry = match.entry
    return {
        "image": entry.path,
        "score": match.score,
        "why": match.why,
        "caption": entry.caption,
        "log_prob": entry.log_prob,
        "classes": [{"name": name, "probability": share} for name, share in entry.classes],
    }
