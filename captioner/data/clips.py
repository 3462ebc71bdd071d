"""Clips of videos with sentences: the record that every reader returns, and the clips file.

To add a data set, write a function ``Path -> list[Clip]`` and add one line to ``CLIP_READERS``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from captioner.data.records import SPLITS, Captioned, parse_json, read_lines
from captioner.errors import DataError, shorten
from captioner.files import write_text
from captioner.registry import resolve

NODES = ("activity", "tool", "object", "source", "target")
NULL = "-"
"""Label of a node without one, such as the tool of a clip in which none is used."""
OTHER = "<other>"
"""Label that replaces all rare labels of a node."""
FORMAT, VERSION = "captioner-clips", 1

LAST = 1e12
"""Largest time of a clip, in seconds or frames."""

SENTENCE = "#"
"""``CLIP#3`` is the third sentence of CLIP as a clip of its own, with the labels of that sentence."""
OBSERVATION = "~"
"""``CLIP~2`` is the second observation of CLIP in a feature store: other noise, frames or crops of the same clip."""

CLIP_READERS: dict[str, str] = {
    "tacos": "captioner.data.readers.tacos:read_tacos",
    "tacos-json": "captioner.data.readers.tacos:read_tacos_json",
    "tacos-multilevel": "captioner.data.readers.tacos:read_tacos_multilevel",
    "clips": "captioner.data.clips:read_clip_file",
}


@dataclass(frozen=True)
class Clip:
    """An interval of a video with its reference sentences."""

    clip_id: str
    """``VIDEO_START_END``, with the frames of the corpus."""
    video: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    sentences: tuple[str, ...]
    """References, in the order of the corpus; equal ones are kept."""
    split: str
    """train, val or test."""
    level: str = "detailed"
    """Level of detail of the sentences: detailed, short or single."""
    labels: tuple[str, ...] | None = None
    """One label for each of ``NODES``, ``NULL`` if it has none; None if the labels are unknown."""


def whole_clip(clip_id: str) -> str:
    """The id without the number of a sentence or observation: ``CLIP`` of ``CLIP#3`` and ``CLIP~2``."""
    return clip_id.partition(SENTENCE)[0].partition(OBSERVATION)[0]


def read_clips(format: str, root: str | Path) -> list[Clip]:
    """All clips of the data set at ``root``, a folder or a file; raises ``DataError`` for invalid data."""
    clips: list[Clip] = resolve(CLIP_READERS, format, "clip format", DataError)(Path(root))
    return clips


def write_clips(path: str | Path, clips: Iterable[Clip]) -> None:
    """Write a clips file atomically: JSON lines, the first with format and version, then one object for each clip."""
    lines = [json.dumps({"format": FORMAT, "version": VERSION, "nodes": NODES})]
    lines += [json.dumps(asdict(clip), ensure_ascii=False) for clip in clips]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_clip_file(path: Path) -> list[Clip]:
    """The clips of a clips file, or of ``clips.jsonl`` in the folder ``path``."""
    path = path / "clips.jsonl" if path.is_dir() else path
    if not path.exists():
        raise DataError(f"{path}: no such file; python -m preprocess.tacos writes one")
    lines = read_lines(path)
    head = _line(lines[0], f"{path}, line 1") if lines else {}
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise DataError(
            f"{path}, line 1: not a {FORMAT} file of version {VERSION}; python -m preprocess.tacos writes one"
        )
    clips = [
        _clip(_line(line, where), where)
        for where, line in ((f"{path}, line {number}", line) for number, line in enumerate(lines[1:], start=2))
        if line.strip()
    ]
    return check_ids(clips, path)


def read_clip_records(path: Path) -> list[Captioned]:
    """The clips of a clips file as captioned items without images."""
    return [Captioned(clip.clip_id, None, clip.sentences, clip.split) for clip in read_clip_file(path)]


def check_ids(clips: list[Clip], path: Path) -> list[Clip]:
    """Return ``clips``; raise ``DataError`` if there are none or an id is not unique."""
    if not clips:
        raise DataError(f"{path}: holds no clips")
    seen: set[str] = set()
    for clip in clips:
        if clip.clip_id in seen:
            raise DataError(f"{path}: duplicate clip id {clip.clip_id}; merge or rename the clips")
        seen.add(clip.clip_id)
    return clips


def check_object(item: Any, where: str) -> dict[str, Any]:
    """``item`` if it is a JSON object; the ``DataError`` for anything else starts with ``where``."""
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(item).__name__}")
    return item


def _line(text: str, where: str) -> dict[str, Any]:
    return check_object(parse_json(text, where), where)


def _clip(item: dict[str, Any], where: str) -> Clip:
    """The clip of a JSON object; raises ``DataError`` for invalid fields."""
    known = {field.name for field in fields(Clip)}
    needed = known - {"level", "labels"}
    if not needed <= set(item) <= known:
        wrong = sorted(set(item) - known) or sorted(needed - set(item))
        raise DataError(
            f"{where}: {'unknown' if wrong[0] not in known else 'no'} {wrong[0]}; a clip has {', '.join(known)}"
        )
    texts = ("clip_id", "video", "split", "level")
    if not all(isinstance(item.get(name, ""), str) for name in texts) or not _texts(item["sentences"]):
        raise DataError(f"{where}: {', '.join(texts)} are texts and sentences is a list of texts")
    if item["split"] not in SPLITS:
        raise DataError(f"{where}: unknown split {shorten(item['split'])}; use {', '.join(SPLITS)}")
    labels = item.get("labels")
    if labels is not None and not (_texts(labels) and len(labels) == len(NODES)):
        raise DataError(f"{where}: labels is null or a list of {len(NODES)} texts: {', '.join(NODES)}")
    start, end = check_times(item["start"], item["end"], where)
    parts = {"start": start, "end": end, "sentences": tuple(item["sentences"]), "labels": labels and tuple(labels)}
    return Clip(**(item | parts))


def check_times(start: Any, end: Any, where: str) -> tuple[float, float]:
    """Start and end as floats (seconds or frames); raises ``DataError`` unless 0 <= start <= end."""
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (start, end)):
        raise DataError(f"{where}: start and end must be numbers, found {shorten(start)} and {shorten(end)}")
    if not 0 <= start <= end <= LAST:
        found = f"{shorten(start)} to {shorten(end)}"
        raise DataError(f"{where}: the clip runs from {found}; the end must not lie before the start")
    return float(start), float(end)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
