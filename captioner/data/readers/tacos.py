"""TACoS (Regneri et al. 2013), its JSON form, and TACoS Multi-Level (Rohrbach et al. 2014) as clips.

Times in the files are frames; the frame rate of each video converts them to seconds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.data.clips import Clip, check_ids, check_object, check_times
from captioner.data.records import SPLITS, find_file, read_json, read_lines, split_name
from captioner.errors import DataError, shorten

_LINE = re.compile(r"(?P<video>[^:\s]+?)(?:\.avi)?_(?P<start>\d+)_(?P<end>\d+):(?P<sentences>.*)")
_SPLIT = re.compile(r"(?:^|[^a-z])(train|training|val|valid|validation|dev|test)(?:[^a-z]|$)", re.IGNORECASE)
_FRAME = re.compile("[0-9]{1,12}")
_COLUMNS = ("video", "start", "end", "level", "sentence")
MIN_RATE, MAX_RATE = 1e-3, 1e6
"""Most frames per second of a video."""
LEVELS = ("detailed", "short", "single")


@dataclass(frozen=True)
class _Segment:
    """Sentences of one interval in frames, or in seconds if ``fps`` is 1; ``where`` is file and line."""

    where: str
    video: str
    start: float
    end: float
    sentences: tuple[str, ...]
    split: str
    fps: float
    level: str = LEVELS[0]


def read_tacos(root: Path) -> list[Clip]:
    """Clips of text files with lines ``<video>.avi_<start frame>_<end frame>:sentence#sentence#...``.

    ``root`` holds ``video_info.json`` (frames per second by video) and one or more files for each split, with the split
    in the file name: ``tacos_train_0_74.txt`` is train.
    """
    rates = _rates(find_file(root, ("video_info.json",), "video_info.json with the frames per second of each video"))
    files = [(path, found[1]) for path in sorted(root.glob("*.txt")) if (found := _SPLIT.search(path.stem))]
    if not files:
        raise DataError(f"{root}: no sentence files here; they end in .txt and their names say train, val or test")
    segments = [
        segment for path, split in files for segment in _text_segments(path, split_name(split, str(path)), rates)
    ]
    return check_ids(_join(segments), root)


def read_tacos_json(root: Path) -> list[Clip]:
    """Clips of ``train.json``, ``val.json`` and ``test.json`` in ``root``, or of one such file.

    Each is an object ``{video: {"timestamps": [[start, end], ...], "sentences": [...], "fps": 29, "num_frames": 9}}``.
    With ``fps`` the timestamps are frames, as in TACoS; without, they are seconds, as in ActivityNet Captions.
    """
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    files = [root] if root.is_file() else [path for path in sorted(root.glob("*.json")) if _SPLIT.search(path.stem)]
    if not files:
        raise DataError(f"{root}: no train.json, val.json or test.json here")
    segments: list[_Segment] = []
    for path in files:
        found = _SPLIT.search(path.stem)
        if found is None:
            raise DataError(f"{path}: the file's name must say train, val or test")
        for video, item in check_object(read_json(path), str(path)).items():
            segments += _json_segments(path, video, item, split_name(found[1], str(path)))
    return check_ids(_join(segments), root)


def read_tacos_multilevel(root: Path) -> list[Clip]:
    """Clips of a table with the columns ``video start end level sentence`` and, optionally, ``split``.

    ``root`` is a ``.tsv`` or ``.csv`` file, or a folder with such files and ``video_info.json``. Start and end are
    frames; ``level`` is detailed, short or single, the corpus' three levels of detail. Without a column ``split`` the
    split is in the file name. The layout of the files in the authors' archive could not be confirmed; this table is our
    own and has the columns that the paper describes (docs/tacos-labels.md).
    """
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    folder = root if root.is_dir() else root.parent
    rates = _rates(find_file(folder, ("video_info.json",), "video_info.json with the frames per second of each video"))
    files = [root] if root.is_file() else sorted([*root.glob("*.tsv"), *root.glob("*.csv")])
    if not files:
        raise DataError(f"{root}: no .tsv or .csv table here")
    segments = [segment for path in files for segment in _table_segments(path, rates)]
    return check_ids(_join(segments), root)


def _rates(path: Path) -> dict[str, float]:
    """Frames per second by video; the names may end in ``.avi``."""
    return {
        video.removesuffix(".avi"): _rate(value, f"{path}: {video}")
        for video, value in check_object(read_json(path), str(path)).items()
    }


def _rate(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_RATE <= value <= MAX_RATE:
        raise DataError(f"{where}: the frames per second must be a finite number above 0, found {shorten(value)}")
    return float(value)


def _text_segments(path: Path, split: str, rates: dict[str, float]) -> Iterator[_Segment]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{where}: expected 'video.avi_start_end:sentence#sentence', found {line[:60]!r}")
        yield _segment(where, match["video"], match["start"], match["end"], match["sentences"].split("#"), split, rates)


def _table_segments(path: Path, rates: dict[str, float]) -> Iterator[_Segment]:
    rows = csv.reader(read_lines(path), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if header is None:
                header = [name.strip().lower() for name in row]
                missing = [name for name in _COLUMNS if name not in header]
                if missing:
                    raise DataError(f"{where}: no column {missing[0]}; the first line names {', '.join(_COLUMNS)}")
            elif any(cell.strip() for cell in row):
                if len(row) != len(header):
                    raise DataError(f"{where}: expected {len(header)} columns, found {len(row)}")
                yield _table_segment(where, path, dict(zip(header, row, strict=True)), rates)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error


def _table_segment(where: str, path: Path, cells: dict[str, str], rates: dict[str, float]) -> _Segment:
    named = cells.get("split", "").strip() or ((found := _SPLIT.search(path.stem)) and found[1]) or ""
    level = cells["level"].strip().lower()
    if level not in LEVELS:
        raise DataError(f"{where}: unknown level {shorten(level)}; use {', '.join(LEVELS)}")
    video, start, end = (cells[name].strip() for name in ("video", "start", "end"))
    return _segment(where, video, start, end, [cells["sentence"]], split_name(named, where), rates, level)


def _segment(
    where: str, video: str, start: str, end: str, sentences: Iterable[str], split: str, rates: dict[str, float],
    level: str = LEVELS[0],
) -> _Segment:  # fmt: skip
    """The segment of one line; raises ``DataError`` for invalid frames or an unknown video."""
    video = video.removesuffix(".avi")
    if not all(_FRAME.fullmatch(frame) for frame in (start, end)):
        raise DataError(f"{where}: start and end are frames, whole numbers; found {shorten(start)} and {shorten(end)}")
    if video not in rates:
        raise DataError(f"{where}: video {video} is not in video_info.json; add its frames per second there")
    first, last = check_times(int(start), int(end), where)
    return _Segment(where, video, first, last, tuple(sentences), split, rates[video], level)


def _json_segments(path: Path, video: str, item: Any, split: str) -> Iterator[_Segment]:
    where = f"{path}: {video}"
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with timestamps and sentences")
    times, sentences = item.get("timestamps"), item.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list) or len(times) != len(sentences):
        raise DataError(f"{where}: timestamps and sentences must be lists of one length")
    fps = _rate(item["fps"], where) if "fps" in item else 1.0
    last = item.get("num_frames") if "fps" in item else item.get("duration")
    for index, (pair, sentence) in enumerate(zip(times, sentences, strict=True)):
        place = f"{where}, sentence {index}"
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(sentence, str):
            raise DataError(f"{place}: expected [start, end] and a text, found {shorten(pair)} and {shorten(sentence)}")
        start, end = check_times(pair[0], pair[1], place)
        if isinstance(last, int | float) and start >= last:
            raise DataError(f"{place}: starts at {start:g}, but the video ends at {shorten(last)}")
        yield _Segment(place, video.removesuffix(".avi"), start, end, (sentence,), split, fps)


def _join(segments: list[_Segment]) -> list[Clip]:
    """One clip for each interval and level, with its sentences in order; blank ones are dropped, equal ones kept."""
    split_of: dict[str, _Segment] = {}
    clips: dict[tuple[str, str], tuple[_Segment, list[str]]] = {}
    levels = {segment.level for segment in segments}
    for segment in segments:
        other = split_of.setdefault(segment.video, segment)
        if other.split != segment.split:
            raise DataError(
                f"{segment.where}: {segment.video} is in {segment.split}, but {other.where} has it in {other.split}"
            )
        name = f"{segment.video}_{segment.start:.12g}_{segment.end:.12g}"
        key = (name if len(levels) == 1 else f"{name}_{segment.level}", segment.level)
        held = clips.setdefault(key, (segment, []))[1]
        held += [text for text in (" ".join(sentence.split()) for sentence in segment.sentences) if text]
    found = []
    for (name, level), (segment, sentences) in clips.items():
        if not sentences:
            raise DataError(f"{segment.where}: {name} has no sentence; write one or remove the line")
        start, end = segment.start / segment.fps, segment.end / segment.fps
        found.append(Clip(name, segment.video, start, end, tuple(sentences), segment.split, level))
    return sorted(found, key=lambda clip: SPLITS.index(clip.split))
