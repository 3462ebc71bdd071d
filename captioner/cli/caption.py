"""``captioner caption``: captions of images, or of stored features, on stdout."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.options import AnyModel, Device, Prompt, decoding_options
from captioner.cli.output import Output, Writer, accept_any_file_name, failures_file, write_coco_results
from captioner.cli.resume import PartialResults, check_results_output
from captioner.cli.scale import ScaleOptions, run_shards, scale_options
from captioner.cli.writing import CHANGES_TEXT, WritingOptions, report, write_captions, writing_options
from captioner.errors import DataError, ImageError, UsageError, counted, print_error, warn
from captioner.files import place
from captioner.parts import parse_part
from captioner.progress import progress_bar

if TYPE_CHECKING:
    from captioner.data.images import ImageFile
    from captioner.features.spec import Store
    from captioner.predictors import Captioner, Result
    from captioner.predictors.base import Results
    from captioner.predictors.features import FeatureCaptioner
    from captioner.writing.files import CaptionFiles

GLOB = "*?["
WATCH_SECONDS = 2.0
"""Seconds between two checks of the folders of --watch."""


@scale_options
@writing_options
@decoding_options
def caption(
    *,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMG", help="Images, folders, globs, or - for paths on stdin, one per line."),
    ] = None,
    model: AnyModel = "default",
    prompt: Prompt = None,
    decoding: dict[str, Any],
    writing: WritingOptions,
    scale: ScaleOptions,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images per batch, at most 1024.  [default: 64; published models: 8; servers: 4 requests at a time]",
        ),
    ] = None,
    device: Device = "cpu",
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Caption only every N-th image, from the I-th; run one process per GPU.")
    ] = "1/1",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object per line: image, caption, log_prob (in nats), model.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print rows: image, caption, log_prob (in nats), model.")
    ] = False,
    output: Output = None,
    failed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a list of the images that failed: path, tab, reason."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Caption the images in folders, then new ones as they arrive, until Ctrl-C."),
    ] = False,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STORE",
            help="Caption stored features (or label predictions: FILE@map, FILE@marginals) instead of images. Repeat "
            "the option for a model with several backbones.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --features: caption only this split: train, val or test.  [default: the whole store]"),
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

    For a single image, prints only the caption. For several images, folders, globs or -, prints the path, a tab and the
    caption of each; for stored features the image's id instead of the path. --num-return-sequences K prints K lines per
    image.

    Unreadable images are reported on stderr and skipped; the exit status is then 1.

    --sidecar, --xmp and --embed write captions beside or into the images. By default existing captions stay
    (--existing), so running the same command again resumes the work.

    In a COCO results file, image_id is the image's file name (or its path, if two images have the same name), or its
    number if the data set numbers its images. Until the file is written, FILE.partial holds the finished captions: the
    same command resumes from there, and with --json prints those captions again.

    For many images, use --engine, or give tars, Parquet, CSV or JSON lines. -o is then a folder with one file of
    captions per shard. Patterns may have braces ('data/{000..099}.tar'). The same command resumes; captioner status
    shows the progress.
    """
    options = decoding if batch_size is None else {**decoding, "batch_size": batch_size}
    cached = split is not None or data is not None or data_format is not None
    if scale.takes(images or []):
        _check_shards(features, writing, [cached, as_json, as_csv, watch, failed is not None, part != "1/1"])
        work = {"model": model, "device": device, "prompt": prompt, "options": options}
        run_shards("caption", work, images or [], scale, output, writing.dry_run)
        return
    scale.check_unused()
    if part != "1/1" and (features or watch):
        raise UsageError("--part divides image files; leave it out with --features and --watch")
    if as_json and as_csv:
        raise UsageError("give --json or --csv, not both")
    _check_usage(images, features, cached, output, decoding.get("num_return_sequences", 1))
    _check_writing(images or [], features, output, writing, watch, decoding.get("num_return_sequences", 1))
    if output is not None:
        check_results_output(output, [*(images or []), *(features or []), model, data])
    accept_any_file_name()
    from captioner.predictors import load

    captioner = load(model, device, prompt=prompt)
    writer = Writer(captioner.name, as_json, output, is_one_image(images or []), as_csv, hidden=writing.dry_run)
    files = writing.open(captioner.name, device)
    files.complete = output is not None
    job = Job(captioner, decoding, options, writer, files)
    with failures_file(failed, writer):
        if features:
            predictor = _feature_captioner(captioner)
            numbers = _split_ids(predictor, split, data, data_format) if cached else {}
            stores = _open_stores(features)
            job.caption_features(predictor, stores, numbers)
        elif watch:
            job.watch(images or [])
        else:
            job.caption_images(images or [], parse_part(part))
    job.end()


@dataclass
class Job:
    """One call of the command, and its results so far."""

    captioner: Captioner
    decoding: dict[str, Any]
    options: dict[str, Any]
    """The decoding options and ``batch_size``."""
    writer: Writer
    files: CaptionFiles
    captions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name and caption by file, for results in a file: an image that is given twice has one result."""

    def caption_images(self, arguments: Sequence[str], part: tuple[int, int]) -> None:
        """Caption the images that the arguments name."""
        from captioner.data.images import find_named

        checked = self.files.checked(find_named(arguments, sys.stdin))
        found: Iterable[ImageFile | ImageError] = itertools.islice(checked, part[0] - 1, None, part[1])
        total = None
        if "-" not in arguments and sys.stderr.isatty():  # paths may arrive slowly on stdin, or never end
            found = list(found)
            total = len(found)
        partial = PartialResults(self.writer.output, self.captioner, self.decoding)
        self._finish(partial, self._image_results(found, partial), total, place)

    def watch(self, folders: Sequence[str]) -> None:
        """Caption images as they arrive, until Ctrl-C."""
        from captioner.writing.watch import arrivals

        print_error("watching the folders; press Ctrl-C to stop")
        with suppress(KeyboardInterrupt):
            for found in arrivals(folders, WATCH_SECONDS):
                partial = PartialResults(None, self.captioner, self.decoding)
                self._finish(partial, self._image_results(self.files.checked(found), partial), None, place)

    def caption_features(
        self, captioner: FeatureCaptioner, stores: Sequence[Store], numbers: Mapping[str, int | str | None]
    ) -> None:
        """Caption all that the stores hold, or only the images of ``numbers``."""
        partial = PartialResults(self.writer.output, self.captioner, self.decoding, stores)
        wanted = list(numbers) or stores[0].ids
        run = functools.partial(captioner.caption_features, stores, resumed=partial.count > 0, **self.options)
        self._finish(partial, partial.resume(wanted, run), len(wanted), str, numbers)

    def end(self) -> None:
        """Print final messages; raises ``typer.Exit`` if something failed."""
        report(self.files)
        nothing = not (self.writer.written or self.writer.failed or self.files.skipped)
        if nothing:
            print_error("error: no images were given")
        if self.captions and self.writer.written > len(self.captions):
            again = counted(self.writer.written - len(self.captions), "image")
            warn(f"given more than once: {again}; the file has one result for each")
        if self.writer.failed or nothing:
            raise typer.Exit(1)

    def _image_results(self, found: Iterable[ImageFile | ImageError], partial: PartialResults) -> Results:
        run = functools.partial(self.captioner.results, **self.options)
        return write_captions(self.files, partial.resume(self.files.pending(found), run))

    def _finish(
        self,
        partial: PartialResults,
        results: Results,
        total: int | None,
        key: Callable[[str], str],
        numbers: Mapping[str, int | str | None] = MappingProxyType({}),
    ) -> None:
        """Print the results and, with an output file, write them."""
        output = self.writer.output
        with partial, closing(results):
            for result in self.writer.write(_with_progress(results, total, hidden=self.writer.alone)):
                if output is not None:
                    name = str(result.image)
                    self.captions.setdefault(key(name), (name, result.captions[0].text))
            if output is not None and self.captions:
                write_coco_results(output, _with_ids(list(self.captions.values()), numbers), "caption")
                partial.remove()


def _check_usage(
    images: Sequence[str] | None, features: Sequence[str] | None, cached: bool, output: Path | None, number: int
) -> None:
    """Raise ``UsageError`` for options that contradict or require each other."""
    if features and images:
        raise UsageError("give images or --features, not both; repeat --features for several stores")
    if not features and cached:
        raise UsageError("--split, --data and --format select stored features; name their store with --features")
    if not features and not images:
        raise UsageError("nothing to caption; give images, folders, globs, - (paths on stdin), or --features")
    if output is not None and number > 1:
        raise UsageError("COCO results (-o) hold one caption per image; use --json with --num-return-sequences above 1")


def _check_writing(
    images: Sequence[str],
    features: Sequence[str] | None,
    output: Path | None,
    writing: WritingOptions,
    watch: bool,
    number: int,
) -> None:
    """Raise ``UsageError`` for writing options that contradict others."""
    if features and (writing.writes or watch):
        raise UsageError("--sidecar, --xmp, --embed and --watch are for image files, not for --features")
    if features and writing.changes_text:
        raise UsageError(f"{CHANGES_TEXT} are for image files, not for --features")
    if writing.writes and number > 1:
        raise UsageError("files hold one caption per image; use --json with --num-return-sequences above 1")
    if output is not None and (watch or writing.dry_run):
        raise UsageError("-o is written at the end of a run, so it cannot be used with --watch or --dry-run")
    if writing.dry_run and not writing.writes:
        raise UsageError("--dry-run needs an option that writes: --sidecar, --xmp, --embed or --engine")
    if watch and (missing := next((path for path in images if not os.path.isdir(path)), None)):
        raise UsageError(f"--watch {missing}: no such folder; give folders")


def _check_shards(features: Sequence[str] | None, writing: WritingOptions, others: Sequence[bool]) -> None:
    """Raise ``UsageError`` for options that cannot be used with shards."""
    if features or writing.writes or writing.changes_text or any(others):
        raise UsageError(
            "captions of shards are written only into the folder -o, as they are; leave out --features, --sidecar, "
            f"--xmp, --embed, {CHANGES_TEXT}, --watch, --json, --csv, --failed, --part, --split, --data and --format"
        )


def is_one_image(images: Sequence[str]) -> bool:
    """Whether the arguments name a single file, not a folder, a glob or stdin, which may hold any number."""
    if len(images) != 1 or images[0] == "-" or os.path.isdir(images[0]):
        return False
    return os.path.exists(images[0]) or not any(sign in images[0] for sign in GLOB)


def _feature_captioner(captioner: Captioner) -> FeatureCaptioner:
    """The captioner as one of stored features; raises ``UsageError`` if it captions only images."""
    from captioner.predictors.features import FeatureCaptioner

    if not isinstance(captioner, FeatureCaptioner):
        raise UsageError(f"{captioner.name} captions images only; give images instead of --features")
    return captioner


def _open_stores(paths: Sequence[str]) -> list[Store]:
    from captioner.features.label_predictions import open_store

    return [open_store(path) for path in paths]


def _split_ids(
    captioner: FeatureCaptioner, split: str | None, data: Path | None, data_format: str | None
) -> dict[str, int | str | None]:
    """The images of a data set's split (by default all), with their numbers if the data set has them."""
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
    """(Image, caption) pairs with the image's number in the data set if it has one, else its file name.

    Images with equal file names keep their paths.
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
