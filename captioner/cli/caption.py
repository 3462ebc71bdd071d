"""``captioner caption``: images, or cached features, to captions on stdout."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.search import (
    Beam,
    Device,
    Greedy,
    LengthPenalty,
    MaxLength,
    NoRepeat,
    NumCaptions,
    Sample,
    SearchName,
    Seed,
    Temperature,
    search_options,
)
from captioner.errors import DataError, UsageError

if TYPE_CHECKING:
    from captioner.predictors.lrcn import Captioner, Result, Results

GLOB = "*?["


def caption(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMG", help="Images, folders, globs, or - for paths on stdin, one a line."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="default, a checkpoint (.safetensors) or the folder of a training run.")
    ] = "default",
    beam: Beam = None,
    greedy: Greedy = False,
    sample: Sample = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    search: SearchName = None,
    num_captions: NumCaptions = 1,
    max_length: MaxLength = None,
    length_penalty: LengthPenalty = None,
    no_repeat: NoRepeat = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images that go through the model together.")] = 64,
    device: Device = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object a line: image, caption, log_prob (in nats), model.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write COCO results there instead of printing captions."),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE",
            help="Caption cached features (or potentials: FILE@max, FILE@prob), not images; repeat it for a model of "
            "several CNNs.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --features: only train, val or test of a data set.  [default: all in the store]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="ROOT", help="With --features: the data set.  [default: the one the model learned from]"),
    ] = None,
    data_format: Annotated[
        str | None, typer.Option("--format", help="With --data: how it is laid out, for example flickr8k or coco.")
    ] = None,
) -> None:
    """Caption images.

    A single image prints its caption alone. Several, and any folder, glob or -, print the path, a tab and the
    caption; cached features print the image's id instead of a path. With --num-captions K each gets K lines.

    An image that cannot be opened costs one line on stderr; the others are captioned and the exit status is 1.

    In a COCO results file, image_id is the image's file name (its path, where two have the same name), or its
    number if the data set numbers its images.
    """
    cached = split is not None or data is not None or data_format is not None
    _check_usage(images, features, cached, output, num_captions)
    accept_any_name()
    options = search_options(locals())
    from captioner.predictors.lrcn import load

    captioner = load(model, device)
    options["batch_size"] = batch_size
    numbers: dict[str, int | str | None] = {}
    if features:
        if cached:
            numbers = _split_ids(captioner, split, data, data_format)
        results, total = _cached_results(captioner, features, list(numbers), options)
    else:
        results, total = _image_results(captioner, images or [], options)
    alone = bool(images) and _is_one_image(images or [])
    with closing(results):
        shown = _with_progress(results, total, hidden=alone)
        captions, failed = report(shown, captioner.name, alone, as_json, quiet=output is not None and not as_json)
    if output is not None and captions:
        _write_results(output, captions, numbers)
    if failed or not captions:
        raise typer.Exit(1)


def _check_usage(
    images: Sequence[str] | None, features: Sequence[str] | None, cached: bool, output: Path | None, number: int
) -> None:
    """Raise ``UsageError`` for options that contradict each other or miss each other."""
    if features and images:
        raise UsageError("give images or --features, not both; several stores are several --features")
    if not features and cached:
        raise UsageError("--split, --data and --format choose among cached features; name their store with --features")
    if not features and not images:
        raise UsageError("nothing to caption; give images, folders, globs, - for paths on stdin, or --features")
    if output is not None and number > 1:
        raise UsageError("COCO results (-o) hold one caption an image; use --json for --num-captions above 1")
    if output is not None:
        check_output("-o", output)


def check_output(option: str, path: Path) -> None:
    """Raise ``UsageError`` unless the file can be written: better now than after hours."""
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: no permission to write into that folder")


def accept_any_name() -> None:
    """File names are bytes and may be no text at all; they come in and go out as they are, or escaped."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _is_one_image(images: Sequence[str]) -> bool:
    """Whether the arguments name a single file: not a folder, a glob or stdin, which may hold any number."""
    if len(images) != 1 or images[0] == "-" or Path(images[0]).is_dir():
        return False
    return Path(images[0]).exists() or not any(sign in images[0] for sign in GLOB)


def _image_results(captioner: Captioner, images: Sequence[str], options: dict[str, Any]) -> tuple[Results, int | None]:
    """The stream of results for the arguments, and how many there will be if that is worth knowing."""
    from captioner.data.images import find_images

    found: Iterable[Any] = find_images(images, sys.stdin)
    if "-" in images or not sys.stderr.isatty():  # paths on stdin may come slowly, or never end
        return captioner.results(found, **options), None
    found = list(found)
    return captioner.results(found, **options), len(found)


def _cached_results(
    captioner: Captioner, stores: Sequence[str], ids: Sequence[str], options: dict[str, Any]
) -> tuple[Results, int | None]:
    """The stream of results for ``ids``, or for all in the first store, and their number."""
    from captioner.features.label_predictions import open_store

    opened = [open_store(path) for path in stores]
    wanted = ids or opened[0].ids
    return captioner.caption_features(opened, wanted, **options), len(wanted)


def _split_ids(
    captioner: Captioner, split: str | None, data: Path | None, data_format: str | None
) -> dict[str, int | str | None]:
    """The images of a data set's split, all of them by default, with their numbers where it numbers them."""
    from captioner.data import SPLITS, read_dataset

    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    known = captioner.data_set
    if data is None and known is None:
        raise UsageError(f"{captioner.name} does not say what data it learned from; name it with --data and --format")
    data_format = data_format or (known.format if known else "flickr8k")
    root = data or Path(known.root if known else "")
    chosen = {r.image_id: r.number for r in read_dataset(data_format, root) if split in (None, r.split)}
    if not chosen:
        raise DataError(f"{root}: the data set has no images in its {split} split")
    return chosen


def _with_progress(results: Iterator[Result], total: int | None, hidden: bool) -> Iterator[Result]:
    """``results`` with a bar on stderr, if somebody is watching it."""
    if hidden or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("captioning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # rich sends stdout through the bar's console, which must not happen when stdout is a file and stderr is watched.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        task = progress.add_task("", total=total)
        for result in results:
            yield result
            progress.advance(task)


def report(
    results: Iterable[Result], model: str, alone: bool, as_json: bool, quiet: bool, what: str = "image"
) -> tuple[list[tuple[str, str]], bool]:
    """Print each result as it comes; returns (image, best caption) of the good ones and whether there were bad ones.

    ``what`` they are of is the name of a field in JSON.
    """
    captions: list[tuple[str, str]] = []
    failed = False
    for result in results:
        if result.error is not None:
            print(f"error: {line_of(str(result.error))}", file=sys.stderr)
            failed = True
            continue
        image = str(result.image)
        captions.append((image, result.captions[0].text))
        for caption in () if quiet else result.captions:
            if as_json:
                line = {what: image, "caption": caption.text, "log_prob": caption.log_prob, "model": model}
                print(json.dumps(line), flush=True)
            else:
                print(caption.text if alone else f"{line_of(image)}\t{caption.text}", flush=True)
    if not captions and not failed:
        print("error: no images were given", file=sys.stderr)
    return captions, failed


def line_of(text: str) -> str:
    """``text`` without the characters that would break a line or a column in two."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _write_results(path: Path, captions: Sequence[tuple[str, str]], numbers: dict[str, int | str | None]) -> None:
    """Write COCO results: a number of the data set, a file name, or a path where two files have the same name."""
    from captioner.files import write_text

    names = Counter(Path(image).name for image, _ in captions)
    results = []
    for image, text in captions:
        name = Path(image).name
        number = numbers.get(image)
        image_id: int | str = number if number is not None else name if names[name] == 1 else image
        results.append({"image_id": image_id, "caption": text})
    write_text(path, json.dumps(results, indent=0) + "\n")
    print(f"{len(results)} captions written to {path}", file=sys.stderr)
