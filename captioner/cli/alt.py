"""``captioner alt``: alternative texts for the images of HTML and Markdown pages."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.options import AnyModel, Device, Prompt, decoding_options
from captioner.errors import CaptionerError, DataError, ImageError, UsageError, counted, print_error, printable

if TYPE_CHECKING:
    from captioner.predictors import Captioner
    from captioner.writing.alt import Page

Named = tuple["Page", str, Path]
"""A page, the image's address in it, and the image file."""


@decoding_options
def alt(
    *,
    pages: Annotated[
        list[str], typer.Argument(metavar="PAGE", help="HTML and Markdown files, folders of them, or globs.")
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Write the texts into the pages.  [default: print a diff]")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The site's folder, which contains /image.jpg; images outside of it are refused.  "
            "[default: the given folder, or the page's]",
        ),
    ] = None,
    model: AnyModel = "default",
    prompt: Prompt = None,
    decoding: dict[str, Any],
    device: Device = "cpu",
) -> None:
    """Fill in the missing alt texts of local images in HTML and Markdown pages.

    Prints the changes as a diff for patch; --write changes the pages. Images that have an alt attribute stay as they
    are. So do those with an empty one, which marks a decorative image. Read the texts before you publish them: a model
    does not know the purpose of an image.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")
    errors: list[str] = []
    read = list(_read(pages, root, errors))
    named = [one for page, folder in read for one in _images(page, folder, errors)]
    texts: dict[Path, str] = {}
    if named:
        from captioner.predictors import load

        captioner = load(model, device, prompt=prompt)
        texts = _captions(captioner, list(dict.fromkeys(path for _, _, path in named)), decoding, errors)
    changed = 0
    for page, _ in read:
        known = {source: texts[path] for of, source, path in named if of is page and path in texts}
        if _show(page, known, write, errors):
            changed += sum(gap.source in known for gap in page.gaps)
    for line in errors:
        print_error(f"error: {line}")
    print_error(f"{counted(changed, 'text')} {'written' if write else 'missing; --write adds them'}")
    if errors:
        raise typer.Exit(1)


def _read(arguments: Sequence[str], root: Path | None, errors: list[str]) -> Iterator[tuple[Page, Path]]:
    """The pages with missing texts, each with the folder of its site."""
    from captioner.data.images import find_named
    from captioner.files import place
    from captioner.writing.alt import PAGES, read_page

    seen = set()
    for argument in arguments:
        site = root or (Path(argument) if Path(argument).is_dir() else None)
        for found in find_named([argument], kind=PAGES):
            if isinstance(found, ImageError):
                errors.append(str(found))
                continue
            if (name := place(str(found.path))) in seen:
                continue
            seen.add(name)
            try:
                page = read_page(found.path)
            except CaptionerError as error:
                errors.append(str(error))
                continue
            if page.gaps:
                yield page, site or found.path.parent


def _images(page: Page, root: Path, errors: list[str]) -> Iterator[Named]:
    """The images of a page that lack a text and are local files; problems with others are added to ``errors``."""
    from captioner.writing.alt import find_image

    lines = {gap.source: gap.line for gap in reversed(page.gaps)}
    for source in dict.fromkeys(gap.source for gap in page.gaps):
        try:
            path = find_image(page.path, source, root)
        except CaptionerError as error:
            errors.append(f"{page.path}, line {lines[source]}: {error}")
            continue
        if path is not None:
            yield page, source, path


def _captions(
    captioner: Captioner, paths: Iterable[Path], decoding: Mapping[str, Any], errors: list[str]
) -> dict[Path, str]:
    """A sentence for each image that can be opened."""
    from captioner.writing.alt import sentence
    from captioner.writing.text import Composer

    found = {}
    composer = Composer()
    with closing(captioner.results(paths, **decoding)) as results:
        for result in results:
            if result.error is not None:
                errors.append(str(result.error))
            elif text := composer.compose(result.captions[0].text, result.image):
                found[result.image] = sentence(text)
    return found


def _show(page: Page, texts: Mapping[str, str], write: bool, errors: list[str]) -> bool:
    """Print the changes to a page; with ``write`` make them. False if the page could not be written."""
    from captioner.files import atomic_path
    from captioner.writing.base import check_target

    new = page.filled(texts)
    if new == page.text:
        return True
    name = printable(str(page.path))
    for line in difflib.unified_diff(_lines(page.text), _lines(new), f"a/{name}", f"b/{name}"):
        text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        shown = text if not sys.stdout.isatty() else "\t".join(map(printable, text.rstrip("\r\n").split("\t"))) + "\n"
        sys.stdout.write(shown)
    if write:
        try:
            check_target(page.path)
            if page.path.read_bytes() != page.text.encode():  # captioning takes long
                raise DataError(f"{page.path}: was changed in the meantime; run the command again")
            with atomic_path(page.path) as temporary:
                temporary.write_bytes(new.encode())  # with the page's line ends
        except (CaptionerError, OSError) as error:
            errors.append(str(error))
            return False
    return True


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.split("\n")[:-1]] + ([last] if (last := text.rpartition("\n")[2]) else [])
