"""Write the captions of a data set as plain sentences, for text-only pre-training of the language layers.

    python -m preprocess.sentences --format flickr30k --root data/flickr30k \
        --exclude data/flickr8k/Flickr_8k.devImages.txt data/flickr8k/Flickr_8k.testImages.txt -o sentences.txt

Every Flickr8k photograph is also in Flickr30k under the number before the underscore of its name. `--exclude` takes
lists of file names and leaves out every image with the same number, so that no dev or test caption of one data set is
learned through the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from captioner.data import read_dataset
from captioner.data.records import Captioned
from captioner.errors import exit_status
from captioner.files import write_text


def photo_number(name: str) -> str:
    """``1000268201_693b08cb0e.jpg`` and ``1000268201.jpg`` are both photograph 1000268201."""
    return PurePosixPath(name).stem.partition("_")[0]


def sentences(records: Iterable[Captioned], split: str, excluded: set[str]) -> list[str]:
    """All captions of a split's images whose number is not in ``excluded``, one line each."""
    return [
        " ".join(caption.split())
        for record in records
        if record.split == split and photo_number(record.image_id) not in excluded
        for caption in record.captions
    ]


def write_sentences(options: argparse.Namespace) -> None:
    """The file of sentences that ``options`` ask for."""
    excluded = {photo_number(name) for path in options.exclude for name in path.read_text().split()}
    lines = sentences(read_dataset(options.format, options.root), options.split, excluded)
    write_text(options.output, "".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} sentences in {options.output}; {len(excluded)} photographs excluded", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", default="flickr30k", help="reader, as in a configuration's data.format")
    parser.add_argument("--root", type=Path, required=True, help="folder that the reader opens")
    parser.add_argument("--split", default="train")
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="lists of image names, one a line")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_sentences(options))


if __name__ == "__main__":
    sys.exit(main())
