"""Options of ``captioner caption`` to write captions: sidecars, metadata, and existing captions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from captioner.cli.options import expand
from captioner.errors import ImageError, UsageError, counted, print_error, printable

if TYPE_CHECKING:
    from captioner.data.images import ImageFile
    from captioner.predictors.base import Result, Results
    from captioner.writing.base import Destination
    from captioner.writing.files import CaptionFiles

LABELS = 3
"""Number of classes in a template's {labels}, or all if there are fewer."""
CHANGES_TEXT = "--prefix, --suffix, --trigger, --replace, --template and --existing"
"""Options that change captions, or say how they are combined with existing ones."""
PAIR = "\0"
"""Separates the two values of --replace; no argument can contain it."""
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class WritingOptions:
    """The values of the options below, whose help texts describe them."""

    sidecar: str | None
    xmp: bool
    embed: bool
    output_dir: Path | None
    existing: str
    prefix: str
    suffix: str
    trigger: str
    replace: Sequence[str]
    template: str
    labels_by: str
    dry_run: bool

    def __post_init__(self) -> None:
        from captioner.writing.text import EXISTING

        if self.existing not in EXISTING:
            raise UsageError(f"--existing {self.existing}: choose one of {', '.join(EXISTING)}")
        if self.output_dir is not None and not (self.sidecar or self.xmp):
            raise UsageError("--output-dir is for --sidecar and --xmp; give one of them")

    @property
    def changes_text(self) -> bool:
        """Whether an option of ``CHANGES_TEXT`` is given."""
        parts = (self.prefix, self.suffix, self.trigger, self.replace)
        return any(parts) or self.template != "{caption}" or self.existing != "skip"

    @property
    def writes(self) -> bool:
        """Whether captions are written into files."""
        return bool(self.sidecar) or self.xmp or self.embed

    def open(self, model: str, device: str) -> CaptionFiles:
        """The destinations of captions by ``model``."""
        from captioner import __version__
        from captioner.writing.files import CaptionFiles
        from captioner.writing.text import Composer

        pairs = [(old, new) for old, _, new in (pair.partition(PAIR) for pair in self.replace)]
        composer = Composer(pairs, self.template, self.prefix, self.suffix, self.trigger)
        writer = f"captioner {__version__} ({printable(model)})"
        labels = _classes(self.labels_by, device) if composer.needs_labels else lambda path: ()
        return CaptionFiles(self._destinations(writer), composer, self.existing, self.dry_run, labels)

    def _destinations(self, writer: str) -> list[Destination]:
        if not self.writes:  # avoids imports that most calls do not need
            return []
        from captioner.writing.embed import Embedded
        from captioner.writing.sidecars import Sidecars
        from captioner.writing.xmp import XMPSidecars

        places: list[Destination] = [Sidecars(self.sidecar, self.output_dir)] if self.sidecar else []
        places += [XMPSidecars(writer, self.output_dir)] if self.xmp else []
        return places + ([Embedded(writer)] if self.embed else [])


def _options(
    *,
    sidecar: Annotated[
        str | None,
        typer.Option(metavar="SUFFIX", help="Write each caption into a text file beside its image, such as .txt."),
    ] = None,
    xmp: Annotated[
        bool, typer.Option("--xmp", help="Write each caption into an XMP sidecar; other data in an existing one stay.")
    ] = False,
    embed: Annotated[
        bool,
        typer.Option("--embed", help="Write each caption into its JPEG, PNG or WebP; pixels and other data stay."),
    ] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write --sidecar and --xmp files into this folder, with the same subfolders."),
    ] = None,
    existing: Annotated[
        str,
        typer.Option(
            metavar="skip|overwrite|append|prepend",
            help="How to treat existing captions; skip does not caption images that have all their captions.",
        ),
    ] = "skip",
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put this before each caption.")] = "",
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Put this after each caption.")] = "",
    trigger: Annotated[
        str, typer.Option(metavar="WORD", help="Start each caption with this word and a comma, unless it has the word.")
    ] = "",
    replace: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM TO", help="Replace a regular expression in each caption; repeat it for more."),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Text with {caption}, {labels} (the top classes), {name} and {folder} of the image."
        ),
    ] = "{caption}",
    labels_by: Annotated[
        str, typer.Option(metavar="MODEL", help="The captioner classify model for {labels}.")
    ] = "default",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be written instead of writing it; with an engine, list the shards.",
        ),
    ] = False,
) -> WritingOptions:
    return WritingOptions(
        sidecar, xmp, embed, output_dir, existing, prefix, suffix, trigger, replace or (), template, labels_by, dry_run
    )


def writing_options(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Replace a command's parameter ``writing`` by the options above; the command gets ``WritingOptions``."""
    hints = get_type_hints(_options, include_extras=True)
    options = [one.replace(annotation=hints[one.name]) for one in inspect.signature(_options).parameters.values()]
    return expand(command, "writing", options, _options)


class CommandWithPairs(TyperCommand):
    """A command whose option --replace takes two values; typer has options of one value that repeat, or of two."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined, rest = [], iter(args)
        for argument in rest:
            if argument == "--":
                joined += [argument, *rest]
            elif argument == "--replace":
                pair = [value for value in (next(rest, None), next(rest, None)) if value is not None]
                if len(pair) < 2:
                    raise UsageError("--replace needs two values: the expression to replace, and its replacement")
                joined += [argument, PAIR.join(pair)]
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


def write_captions(files: CaptionFiles, results: Results) -> Results:
    """Write the texts of ``files.pending`` for ``results``, and yield the results with these texts."""
    with closing(results):
        for result in results:
            image = files.next_image()
            yield result if image is None or result.error is not None else _write(files, image, result)


def _write(files: CaptionFiles, image: ImageFile, result: Result) -> Result:
    try:
        captions = tuple(replace(one, text=files.compose(one.text, image.path)) for one in result.captions)
        if files.destinations and not captions[0].text:
            raise ImageError(image.path, "the model gave an empty caption, so nothing was written")
        for done in files.write(image, captions[0].text):
            if files.dry_run:
                print(f"would write\t{printable(str(done.path))}\t{printable(done.text)}", flush=True)
    except ImageError as error:
        return replace(result, captions=(), error=error)
    return replace(result, captions=captions)


def report(files: CaptionFiles) -> None:
    """Report on stderr what was written, if captions are written into files."""
    if files.destinations:
        what = "would be written" if files.dry_run else "written"
        had = f"; {counted(files.skipped, 'image')} had captions" if files.skipped else ""
        print_error(f"{counted(files.written, 'file')} {what}{had}")


def _classes(model: str, device: str) -> Callable[[Path], Sequence[str]]:
    """A function that gives an image's most probable classes by a model of ``captioner classify``."""
    from captioner.predictors.classifier import load_classifier

    classifier = load_classifier(model, device)
    return lambda path: [one.name.partition(",")[0] for one in classifier.classify(path)[:LABELS]]
