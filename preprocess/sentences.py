"""Write the captions of a data set as plain sentences, for text-only pre-training of the language layers.

    python -m preprocess.sentences --format flickr30k --root data/flickr30k \
        --exclude data/flickr8k/Flickr_8k.devImages.txt --exclude data/flickr8k/Flickr_8k.testImages.txt \
        -o sentences.txt

Every Flickr8k photo is also in Flickr30k, under the number before the underscore of its name. ``--exclude`` leaves out
every image whose number is in a list of file names, so that nothing is learned from one data set's captions of the
other's dev and test images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from captioner.cli.program import create_app, run
from captioner.data import read_dataset
from captioner.data.records import Captioned
from captioner.errors import print_error
from captioner.files import Kind, check_output, read_text, write_text

SENTENCES = Kind("a list of sentences", rb"[^\t\x00\n\[{][^\t\x00\n]* [^\t\x00\n]*\n")


def photo_number(name: str) -> str:
    """``1000268201_693b08cb0e.jpg`` and ``1000268201.jpg`` are both photo 1000268201."""
    return PurePosixPath(name).stem.partition("_")[0]


def sentences(records: Iterable[Captioned], split: str, excluded: set[str]) -> list[str]:
    """All captions of a split's images whose number is not in ``excluded``, one line each."""
    return [
        " ".join(caption.split())
        for record in records
        if record.split == split and photo_number(record.image_id) not in excluded
        for caption in record.captions
    ]


def write_sentences(
    root: Annotated[Path, typer.Option(help="Folder that the reader opens.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, one sentence per line.")],
    format: Annotated[str, typer.Option(help="Reader, as in a configuration's data.format.")] = "flickr30k",
    split: Annotated[str, typer.Option(help="Split whose captions are written.")] = "train",
    exclude: Annotated[
        list[Path] | None, typer.Option(help="List of image names to leave out, one per line; may be repeated.")
    ] = None,
) -> None:
    """Write the captions of a data set as plain sentences."""
    check_output("-o", output, SENTENCES, [root, *(exclude or [])])
    excluded = {photo_number(name) for path in exclude or () for name in read_text(path).split()}
    lines = sentences(read_dataset(format, root), split, excluded)
    write_text(output, "".join(f"{line}\n" for line in lines))
    print_error(f"{len(lines)} sentences in {output}; {len(excluded)} photos excluded")


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, write_sentences), arguments)


if __name__ == "__main__":
    sys.exit(main())
