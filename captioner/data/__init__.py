"""Data sets as records. To add one, write a function ``Path -> list[Captioned]`` and add one line to ``READERS``."""

from __future__ import annotations

from pathlib import Path

from captioner.data.records import SPLITS, Captioned, distinct, read_lines
from captioner.errors import DataError
from captioner.registry import resolve

__all__ = ["READERS", "SPLITS", "Captioned", "read_dataset", "read_sentences"]

READERS: dict[str, str] = {
    "flickr8k": "captioner.data.readers.flickr:read_flickr8k",
    "flickr8k-kaggle": "captioner.data.readers.flickr:read_flickr8k_kaggle",
    "flickr30k": "captioner.data.readers.flickr:read_flickr30k",
    "karpathy": "captioner.data.readers.karpathy:read_karpathy",
    "coco": "captioner.data.readers.coco:read_coco",
    "own": "captioner.data.readers.own:read_own",
    "clips": "captioner.data.clips:read_clip_records",
}


def read_dataset(format: str, root: str | Path) -> list[Captioned]:
    """All images of the data set at ``root`` (a folder; for some formats also a file) that belong to a split.

    Ids are unique: if images share a file name, their numbers are part of ``image_id``. Raises ``DataError`` for an
    unknown format and for faulty files.
    """
    records: list[Captioned] = resolve(READERS, format, "data set format", DataError)(Path(root))
    return distinct(records, str(root))


def read_sentences(path: str | Path) -> list[str]:
    """The sentences of a text file, one per line, for text-only training; blank lines are skipped."""
    sentences = [line.strip() for line in read_lines(Path(path))]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise DataError(f"{path}: holds no sentences; put one on each line")
    return sentences
