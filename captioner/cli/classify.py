"""``captioner classify``: classes of images with probabilities, on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.cli.caption import is_one_image
from captioner.cli.options import Device
from captioner.cli.output import accept_any_file_name
from captioner.errors import UsageError, print_error, printable
from captioner.files import Kind, atomic_path, check_output

if TYPE_CHECKING:
    from captioner.predictors.classifier import Classified, ImageClassifier

EXPLANATION = Kind("an explanation of this program", rb"\x89PNG\r\n\x1a\n.{29}tEXtSoftware\0captioner")


def classify(
    images: Annotated[
        list[str], typer.Argument(metavar="IMG", help="Images, folders, globs, or - for paths on stdin, one per line.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="default (ImageNet classes), the folder or checkpoint of a training run, torchvision:NAME, "
            "transformers:NAME, or efficientnet-lite:0, 1 or 2."
        ),
    ] = "default",
    top: Annotated[int | None, typer.Option(metavar="K", help="Classes per image.  [default: 5, or all]")] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images per batch, at most 1024.")] = 64,
    device: Device = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object per line: image, classes (name, probability), model.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For one image: also draw it with its probabilities, the first kernels and their feature maps (PNG).",
        ),
    ] = None,
) -> None:
    """Print the most probable classes of images.

    Each class is a line: probability, tab, name; best first. For several images, folders, globs or -, the path and a
    tab come first.

    Unreadable images are reported on stderr and skipped; the exit status is then 1.
    """
    alone = is_one_image(images)
    if explain is not None:
        if not alone:
            raise UsageError("--explain draws one image; give a single file")
        check_output("--explain", explain, EXPLANATION, [images[0], model])
    accept_any_file_name()
    from captioner.data.images import find_images
    from captioner.predictors.classifier import load_classifier

    classifier = load_classifier(model, device)
    results = classifier.results(find_images(images, sys.stdin), top=top, batch_size=batch_size)
    failed = written = 0
    with closing(results):
        for result in results:
            if result.error is not None:
                print_error(f"error: {result.error}")
                failed += 1
                continue
            written += 1
            print(*_lines(result, classifier.name, as_json, alone), sep="\n", flush=True)
            if explain is not None:
                _draw(explain, classifier, result)
    if not failed and not written:
        print_error("error: no images were given")
    if failed or not written:
        raise typer.Exit(1)


def _lines(result: Classified, model: str, as_json: bool, alone: bool) -> Iterator[str]:
    if as_json:
        classes = [{"name": one.name, "probability": one.probability} for one in result.classes]
        yield json.dumps({"image": str(result.image), "classes": classes, "model": model})
        return
    for one in result.classes:
        line = f"{100 * one.probability:.1f}%\t{printable(one.name)}"
        yield line if alone else f"{printable(str(result.image))}\t{line}"


def _draw(path: Path, classifier: ImageClassifier, result: Classified) -> None:
    from PIL.PngImagePlugin import PngInfo

    from captioner.data.images import open_image
    from captioner.explain import explanation

    kernels, maps = classifier.first_layer(result.image)
    drawn = explanation(open_image(result.image), result.classes, kernels, maps)
    made = PngInfo()
    made.add_text("Software", "captioner")
    with atomic_path(path) as temporary:
        drawn.save(temporary, "PNG", pnginfo=made)
    print_error(f"explanation written to {path}")
