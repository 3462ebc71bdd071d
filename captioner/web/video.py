"""Descriptions of uploaded videos, with times: by recognizers, clip captioners, or captions of single frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from captioner.data.video import read_extent, sample_frames
from captioner.errors import DataError, ImageError
from captioner.predictors.base import Caption, ClassScore
from captioner.predictors.images import BatchCaptioner

SECONDS, FRAME_PIXELS, ALL_PIXELS = 600, 2**23, 4e10
"""Limits: seconds, pixels of a frame (4K), and pixels of all frames (ten minutes of full HD)."""
CLIP_SECONDS, FRAME_SECONDS = 10.0, 2.0
"""Length of the clips that video models describe, and the time between captioned frames without such a model."""
MOST_CLIPS = 60
"""Most clips of a video; a longer video is cut into longer clips."""
SIDE = 1024
"""Largest side in pixels of a frame that is captioned or shown."""
LABELS = 3
"""Labels that are shown for a clip."""
STARTS = (b"\x1a\x45\xdf\xa3", b"OggS", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\1\xba", b"\0\0\1\xb3")
"""The first bytes of files: Matroska and WebM, Ogg, Flash, ASF, MPEG."""
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx")
"""Brands of images in MP4 containers (ISO 14496-12)."""


class VideoError(DataError):
    """A video that cannot be read or exceeds the limits."""


@dataclass(frozen=True)
class Clip:
    """A model's description of a part of a video."""

    start: float
    end: float
    """Start and end are in seconds."""
    model: str
    caption: Caption | None = None
    labels: tuple[ClassScore, ...] = ()
    """The most probable activities, best first."""


class Shown(NamedTuple):
    """A clip with a frame from its middle."""

    clip: Clip
    still: Image.Image


def is_video(content: bytes) -> bool:
    """Whether a file is a video of a supported kind, by its first bytes."""
    if content[4:8] == b"ftyp":
        return content[8:12] not in STILL_BRANDS
    return content.startswith(STARTS) or (content[:4] == b"RIFF" and content[8:12] == b"AVI ")


def video_clips(content: bytes, captioner: BatchCaptioner, models: Sequence[Any]) -> list[Shown]:
    """The clips of a video by each of ``models`` (recognizers, clip captioners), or else captions of its frames.

    Raises ``VideoError`` for bytes that are no video, are damaged, or exceed the limits. The temporary file is removed.
    """
    with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
        path = Path(folder, "video")
        path.write_bytes(content)
        try:
            end = _checked_end(path)
            if not models:
                return list(_captioned_frames(path, end, captioner))
            length = max(CLIP_SECONDS, end / MOST_CLIPS)
            clips = [clip for model in models for clip in _clips(path, model, length)]
            times = sorted({(clip.start + clip.end) / 2 for clip in clips})
            stills = dict(zip(times, _stills(path, times), strict=True))
            return [Shown(clip, stills[(clip.start + clip.end) / 2]) for clip in clips]
        except VideoError:
            raise
        except (DataError, ImageError) as error:
            raise VideoError(str(error).removeprefix(f"{path}: ")) from error


def _checked_end(path: Path) -> float:
    extent = read_extent(path)
    pixels = extent.width * extent.height
    if extent.end > SECONDS:
        raise VideoError(f"it lasts {extent.end:,.0f} seconds, more than the limit of {SECONDS}; send a part of it")
    if pixels > FRAME_PIXELS or pixels * extent.frames > ALL_PIXELS:
        raise VideoError(
            f"{extent.frames:,} frames of {extent.width} x {extent.height} pixels are more than the limit; "
            "make it smaller or shorter"
        )
    return extent.end


def _clips(path: Path, model: Any, length: float) -> Iterator[Clip]:
    """A recognizer's or clip captioner's results. Their classes are not imported, since that would load torch."""
    if hasattr(model, "recognize"):
        for found in model.results([path], top=min(LABELS, len(model.classes)), every=length):
            if found.error is not None:
                raise VideoError(found.error.reason)
            start, stop = found.interval
            yield Clip(start, stop, model.name, labels=found.guesses)
        return
    for found in model.results(path, intervals=length, warn=lambda text: None):
        if found.error is None:
            start, stop = found.interval
            yield Clip(start, stop, model.name, found.captions[0])


def _captioned_frames(path: Path, end: float, captioner: BatchCaptioner) -> Iterator[Shown]:
    """Caption frames at equal intervals; neighbors with the same caption become one clip."""
    count = max(1, min(MOST_CLIPS, round(end / FRAME_SECONDS)))
    edges = [end * number / count for number in range(count + 1)]
    images = list(_stills(path, [(start + stop) / 2 for start, stop in pairwise(edges)]))
    last: Shown | None = None
    for place, result in enumerate(captioner.results(images)):
        if result.error is not None:
            raise result.error
        best = result.captions[0]
        if last and last.clip.caption and last.clip.caption.text == best.text:
            last = last._replace(clip=replace(last.clip, end=edges[place + 1]))
            continue
        if last:
            yield last
        last = Shown(Clip(edges[place], edges[place + 1], captioner.name, best), images[place])
    if last:
        yield last


def _stills(path: Path, times: Sequence[float]) -> Iterator[Image.Image]:
    """The frames at ascending ``times``, scaled down to ``SIDE`` to save memory."""
    for moment in sample_frames(path, times, warn=lambda text: None):
        image = moment.frame.image()
        image.thumbnail((SIDE, SIDE))
        yield image
