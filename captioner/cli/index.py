"""``captioner index``: make and update an index of images for ``captioner search`` and ``captioner serve``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.options import AnyModel, Device, Prompt
from captioner.cli.output import accept_any_file_name
from captioner.cli.program import choice
from captioner.errors import UsageError, counted, print_error
from captioner.progress import progress_bar

IndexFolder = Annotated[
    Path | None,
    typer.Option(
        "--index", metavar="DIR", help="Folder of the index.  [default: $CAPTIONER_INDEX, or index in the cache folder]"
    ),
]
NEAREST = ("auto", "exact", "usearch")


def index(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMG", help="Folders, images, globs, or - for paths on stdin.  [default: the folders of the index]"
        ),
    ] = None,
    folder: IndexFolder = None,
    model: AnyModel = "default",
    prompt: Prompt = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images per batch, at most 1024.")] = 64,
    device: Device = "cpu",
    nearest: Annotated[
        str,
        choice(
            NEAREST,
            "--nearest",
            help="How to find similar images: exact compares all; usearch builds a graph of neighbors and prints its "
            "recall; auto uses usearch from 200,000 images on.",
        ),
    ] = "auto",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Index all images again, for example with another model.")
    ] = False,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Remove a folder and its images from the index.")
    ] = None,
) -> None:
    """Caption, classify and embed images, for captioner search and captioner serve.

    Run it again to update the index: new and changed images are computed, moved ones are recognized, and deleted ones
    are removed. You may stop it at any moment; the next run resumes. The images are never changed. Published models and
    servers only write the captions; the default model embeds and classifies.

    Prints what changed. Unreadable images are reported on stderr and skipped; the exit status is then 1.
    """
    if not 1 <= batch_size <= 1024:
        raise UsageError(f"--batch-size must be between 1 and 1024, not {batch_size}")
    accept_any_file_name()
    from captioner.predictors import load
    from captioner.search.index import default_folder
    from captioner.search.indexing import open_writer

    place = folder or default_folder()
    counts: Counter[str] = Counter()
    with open_writer(place, load(model, device, prompt=prompt), rebuild, device) as writer:
        for one in forget or []:
            print_error(f"{one}: {counted(writer.forget(one), 'image')} removed")
        arguments = images or writer.folders()
        if not arguments and not forget:
            raise UsageError("nothing to index; give folders or images")
        with (
            closing(writer.update(arguments, sys.stdin, batch_size)) as changes,
            progress_bar("indexing", keep=False) as bar,
        ):
            for change in changes:
                counts[change.kind] += 1
                if change.error is not None:
                    bar.say(f"error: {change.error}")
                bar.advance(note=os.path.basename(change.path))
        recall = writer.finish(nearest)
        total = len(writer)
    print(_summary(counts, total, place))
    if recall is not None:
        print(f"usearch finds {100 * recall:.1f}% of the 10 nearest images that exact search finds")
    if counts["failed"]:
        raise typer.Exit(1)


def _summary(counts: Counter[str], total: int, place: Path) -> str:
    kinds = ("added", "changed", "moved", "unchanged", "removed", "failed")
    done = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind])
    return f"{done or 'nothing changed'}; {counted(total, 'image')} in {place}"
