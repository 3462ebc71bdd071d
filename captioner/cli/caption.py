"""``captioner caption``: images, or stored features, to captions on stdout."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.options import AnyModel, Device, Prompt, decoding_options
from captioner.cli.output import Output, Writer, accept_any_file_name, write_coco_results
from captioner.cli.resume import PartialResults, check_results_output, place
from captioner.errors import DataError, UsageError, counted, print_error, warn
from captioner.parts import parse_part
from captioner.progress import progress_bar

if TYPE_CHECKING:
    from captioner.features.spec import Store
    from captioner.predictors import Captioner, Result
    from captioner.predictors.base import Results
    from captioner.predictors.features import FeatureCaptioner

GLOB = "*?["


@decoding_options
def caption(
    *,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMG", help="Images, folders, globs, or - for paths on stdin, one a line."),
    ] = None,
    model: AnyModel = "default",
    prompt: Prompt = None,
    decoding: dict[str, Any],
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images that go together, 1024 at most.  [default: 64; 8 of published models; 4 requests to a server]",
        ),
    ] = None,
    device: Device = "cpu",
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Every n-th image from the i-th: one process for each GPU.")
    ] = "1/1",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object a line: image, caption, log_prob (in nats), model.")
    ] = False,
    output: Output = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE",
            help="Caption stored features (or label predictions: FILE@map, FILE@marginals) instead of images; repeat "
            "it for a model of several backbones.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --features: only train, val or test of a data set.  [default: all in the store]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="ROOT", help="With --features: the data set.  [default: the model's training data]"),
    ] = None,
    data_format: Annotated[
        str | None, typer.Option("--format", help="With --data: the data set's format, for example flickr8k or coco.")
    ] = None,
) -> None:
    """Caption images.

    A single image prints its caption alone. Several, and any folder, glob or -, print the path, a tab and the
    caption; stored features print the image's id instead of a path. --num-return-sequences K prints K lines for each.

    Unreadable images are reported on stderr and skipped; the exit status is then 1.

    In a COCO results file, image_id is the image's file name (its path, where two have the same name), or its
    number if the data set numbers its images. Until that file is written, FILE.partial holds what is finished: the
    same command goes on from there, and with --json prints those captions again.
    """
    cached = split is not None or data is not None or data_format is not None
    _check_usage(images, features, cached, output, decoding.get("num_return_sequences", 1))
    if output is not None:
        check_results_output(output, [*(images or []), *(features or []), model, data])
    accept_any_file_name()
    from captioner.predictors import load

    captioner = load(model, device, prompt=prompt)
    numbers: dict[str, int | str | None] = {}
    options = decoding if batch_size is None else {**decoding, "batch_size": batch_size}
    if features:
        predictor = _feature_captioner(captioner)
        if cached:
            numbers = _split_ids(predictor, split, data, data_format)
        stores = _open_stores(features)
        partial = PartialResults(output, captioner, decoding, stores)
        results, total = _feature_results(predictor, stores, list(numbers), options, partial)
    else:
        partial = PartialResults(output, captioner, decoding)
        results, total = _image_results(captioner, images or [], options, partial, parse_part(part))
    alone = is_one_image(images or [])
    writer = Writer(captioner.name, as_json, output, alone)
    captions: dict[str, tuple[str, str]] = {}  # by file: one that is given twice has one result
    with partial, closing(results):
        for result in writer.write(_with_progress(results, total, hidden=alone)):
            if output is not None:
                name = str(result.image)
                captions.setdefault(name if features else place(name), (name, result.captions[0].text))
        if output is not None and captions:
            write_coco_results(output, _with_ids(list(captions.values()), numbers), "caption")
            partial.remove()
    if not writer.written and not writer.failed:
        print_error("error: no images were given")
    if captions and writer.written > len(captions):
        warn(f"given before: {counted(writer.written - len(captions), 'image')}; each has one result")
    if writer.failed or not writer.written:
        raise typer.Exit(1)


def _check_usage(
    images: Sequence[str] | None, features: Sequence[str] | None, cached: bool, output: Path | None, number: int
) -> None:
    """Raise ``UsageError`` for options that contradict or require each other."""
    if features and images:
        raise UsageError("give images or --features, not both; several stores are several --features")
    if not features and cached:
        raise UsageError("--split, --data and --format choose among stored features; name their store with --features")
    if not features and not images:
        raise UsageError("nothing to caption; give images, folders, globs, - for paths on stdin, or --features")
    if output is not None and number > 1:
        raise UsageError("COCO results (-o) hold one caption an image; use --json for --num-return-sequences above 1")


def is_one_image(images: Sequence[str]) -> bool:
    """Whether the arguments name a single file: not a folder, a glob or stdin, which may hold any number."""
    if len(images) != 1 or images[0] == "-" or os.path.isdir(images[0]):
        return False
    return os.path.exists(images[0]) or not any(sign in images[0] for sign in GLOB)


def _image_results(
    captioner: Captioner,
    images: Sequence[str],
    options: dict[str, Any],
    partial: PartialResults,
    part: tuple[int, int],
) -> tuple[Results, int | None]:
    """The stream of results for this part of the arguments, and their number where a progress bar can use it."""
    from captioner.data.images import find_images

    run = functools.partial(captioner.results, **options)
    found = itertools.islice(find_images(images, sys.stdin), part[0] - 1, None, part[1])
    if "-" in images or not sys.stderr.isatty():  # paths on stdin may come slowly, or never end
        return partial.resume(found, run), None
    listed = list(found)
    return partial.resume(listed, run), len(listed)


def _feature_captioner(captioner: Captioner) -> FeatureCaptioner:
    """The captioner as one of stored features; ``UsageError`` where it takes images only."""
    from captioner.predictors.features import FeatureCaptioner

    if not isinstance(captioner, FeatureCaptioner):
        raise UsageError(f"{captioner.name} captions images only; give images instead of --features")
    return captioner


def _open_stores(paths: Sequence[str]) -> list[Store]:
    from captioner.features.label_predictions import open_store

    return [open_store(path) for path in paths]


def _feature_results(
    captioner: FeatureCaptioner,
    stores: Sequence[Store],
    ids: Sequence[str],
    options: dict[str, Any],
    partial: PartialResults,
) -> tuple[Results, int | None]:
    """The stream of results for ``ids``, or for all in the first store, and their number."""
    wanted = ids or stores[0].ids
    run = functools.partial(captioner.caption_features, stores, resumed=partial.count > 0, **options)
    return partial.resume(wanted, run), len(wanted)


def _split_ids(
    captioner: FeatureCaptioner, split: str | None, data: Path | None, data_format: str | None
) -> dict[str, int | str | None]:
    """The images of a data set's split (by default all), with their numbers where the data set has them."""
    from captioner.data import SPLITS, read_dataset

    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    known = captioner.checkpoint.data
    if data is None and not known:
        raise UsageError(
            f"{captioner.name} does not record its training data; name a data set with --data and --format"
        )
    data_format = data_format or (known["format"] if known else "flickr8k")
    root = data or Path(known["root"] if known else "")
    chosen = {r.image_id: r.number for r in read_dataset(data_format, root) if split in (None, r.split)}
    if not chosen:
        raise DataError(f"{root}: the data set has no images in its {split} split")
    return chosen


def _with_ids(
    captions: Sequence[tuple[str, str]], numbers: Mapping[str, int | str | None]
) -> Iterator[tuple[int | str, str]]:
    """(Image, caption) pairs with the data set's number of the image where it has one, or else its file name.

    Images whose file names are equal keep their paths.
    """
    names = Counter(Path(image).name for image, _ in captions)
    for image, text in captions:
        name, number = Path(image).name, numbers.get(image)
        yield number if number is not None else name if names[name] == 1 else image, text


def _with_progress(results: Iterator[Result], total: int | None, hidden: bool) -> Iterator[Result]:
    """``results``, counted by a progress bar."""
    with progress_bar("captioning", total, keep=False, hidden=hidden) as bar:
        for result in results:
            yield result
            bar.advance()
