"""Decode a video: all frames with the times at which they are shown, or the frames shown at given times."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from captioner.data.images import FileKind
from captioner.errors import DataError
from captioner.optional import require

DEFAULT_FRAME_RATE = 25.0
"""Frames per second of a stream that does not specify them."""
MAX_TIMESTAMP_JUMP = 3600.0
"""Largest timestamp jump, in seconds, that is accepted; a larger one is treated as a clock reset."""
MAX_TIMESTAMP_STEP_BACK = 1.0
"""Largest step back, in seconds, that is accepted; a larger one is treated as a clock reset."""

MAX_PIXELS = 2**25
"""Most pixels of a frame, 8K: a decoder keeps up to 16 frames."""
FORMATS = (
    "asf avi dv flv h264 hevc ivf matroska mjpeg mov mpeg mpegts mpegvideo mxf nut ogg rm wtv yuv4mpegpipe".split()
)
"""FFmpeg's names of the video formats that are read, whatever a file is called. Playlists and scripts, such as hls and
concat, are excluded: they make FFmpeg open other files and addresses."""
STILLS = "apng avif gif ico image2 bmp_pipe jpeg_pipe png_pipe tiff_pipe webp webp_pipe".split()
"""Image formats, which are opened to report that they are not videos, unless they are animated."""
VIDEOS = FileKind(
    "videos",
    frozenset(
        ".3gp .asf .avi .dv .flv .gif .ivf .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .nut .ogv .ts .webm "
        ".wmv".split()
    ),
)
"""Video files, as they are taken from a folder."""
END_TOLERANCE = 1.0
"""Seconds that an interval may extend past the last frame: sound is often longer, and players count it."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video, shown from ``start`` to ``end``, in seconds from the beginning of the file."""

    start: float
    end: float
    _raw: Any  # PyAV's frame
    _aspect: float  # width of a pixel over its height
    _scaler: Any  # the video's own: PyAV's shared one has threads, which a forked process lacks and would wait for

    def image(self) -> Image.Image:
        """The frame in RGB as players show it: rotated by the display matrix, with square pixels."""
        width = max(1, round(self._raw.width * self._aspect))
        image: Image.Image = self._scaler.reformat(self._raw, width, self._raw.height, "rgb24").to_image()
        return image.rotate(self._raw.rotation, expand=True) if self._raw.rotation else image


def read_frames(path: str | Path, warn: Callable[[str], object] = warnings.warn) -> Generator[Frame, None, None]:
    """The frames of a video in display order; only two are in memory at a time.

    Times are the file's own timestamps, so variable frame rates and gaps are kept: the first frame is shown from 0 on,
    each frame until the next. If the file's clock is reset, times continue without the jump, and ``warn`` is called
    once with a sentence. Damaged packets are skipped. Raises ``DataError`` for a file that is missing, empty, not a
    video or without a video stream, and ``MissingDependency`` without PyAV.
    """
    path = check_video(path)
    with _opened(path) as (container, stream), closing(_decoded(container, stream)) as decoded:
        scaler = require("av.video.reformatter", "video").VideoReformatter()
        origin = (container.start_time or 0) / 1e6  # AV_TIME_BASE: microseconds
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        step = 1 / float(stream.average_rate or DEFAULT_FRAME_RATE)
        start, shown, end, reset = 0.0, None, 0.0, False
        for raw in decoded:
            time = end if raw.time is None else raw.time - origin
            if shown is not None:
                if not start - MAX_TIMESTAMP_STEP_BACK <= time <= end + MAX_TIMESTAMP_JUMP:
                    if not reset:
                        warn(
                            f"{path}: its timestamps jump from {end:.2f} to {time:.2f} s; they continue from "
                            f"{end:.2f} s, also at later jumps"
                        )
                    origin, time, reset = origin + time - end, end, True
                time = max(time, start)
                yield Frame(start, time, shown, aspect, scaler)
                start = time
            shown, end = raw, max(time, 0.0) + (float(raw.duration * raw.time_base) if raw.duration else step)
        if shown is None:
            raise DataError(f"{path}: no frame of this video can be decoded; the file is damaged or cut off")
        yield Frame(start, end, shown, aspect, scaler)


@dataclass(frozen=True)
class Moment:
    """The frame that a video shows at a given time, and its neighbors."""

    frame: Frame
    pair: tuple[Frame, Frame]
    """Two successive frames, for the motion: this one and the next, or for the last one the previous one and this."""


def sample_frames(
    path: str | Path, times: Iterable[float], warn: Callable[[str], object] = warnings.warn
) -> Iterator[Moment]:
    """The moment at each of ``times`` (seconds, ascending); the video is decoded once, and only as far as needed.

    A time may be up to ``END_TOLERANCE`` after the end, where the last frame stays. Equal moments are one object.
    Raises ``DataError`` as ``read_frames`` does, and for a video whose images end before a time.
    """
    wanted = iter(times)
    time = next(wanted, None)
    before: Frame | None = None
    with closing(read_frames(path, warn)) as frames:
        frame: Frame | None = next(frames)
        while frame is not None and time is not None:
            following = next(frames, None)
            moment = Moment(frame, (frame, following) if following else (before or frame, frame))
            last = END_TOLERANCE if following is None else 0.0
            while time is not None and time < frame.end + last:
                yield moment
                time = next(wanted, None)
            before, frame = frame, following
    if time is not None and before is not None:
        raise DataError(
            f"{path}: its frames end early, at {before.end:.2f} s; the file is damaged, or its timestamps jump"
        )


class Extent(NamedTuple):
    """The length and size of a video, from its headers and packets."""

    end: float
    """End of the last image, in seconds from the beginning."""
    frames: int
    width: int
    height: int


def read_end(path: str | Path) -> float:
    """End of the last image of a video, in seconds from its beginning; errors as of ``read_extent``."""
    return read_extent(path).end


def read_extent(path: str | Path) -> Extent:
    """The extent of a video; nothing is decoded. Raises ``DataError`` as ``read_frames`` does."""
    path = check_video(path)
    end, count = 0.0, 0
    with _opened(path) as (container, stream):
        origin = (container.start_time or 0) / 1e6  # AV_TIME_BASE: microseconds
        step = 1 / float(stream.average_rate or DEFAULT_FRAME_RATE)
        for count, packet in enumerate((packet for packet in _packets(container, stream) if packet.size), 1):
            shown = float(packet.duration * packet.time_base) if packet.duration else step
            start = (count - 1) * step if packet.pts is None else float(packet.pts * packet.time_base) - origin
            end = max(end, start + shown)
        # a stream in an unknown codec has no size
        width, height = getattr(stream, "width", 0), getattr(stream, "height", 0)
    if not end or not width or not height:
        raise DataError(f"{path}: no frame of this video can be decoded; the file is damaged or cut off")
    return Extent(end, count, width, height)


def check_video(path: str | Path) -> Path:
    """The path of an existing, non-empty file; raises ``DataError`` for any other."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, not a video' if path.is_dir() else 'no such video file'}")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open file and its first video stream, not counting cover art."""
    av = require("av", "video")
    try:
        container = av.open(
            str(path), options={"format_whitelist": ",".join(FORMATS + STILLS), "protocol_whitelist": "file"}
        )
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: not a video, or damaged from its beginning ({reason})") from error
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [one for one in container.streams.video if not one.disposition & cover]
        if not streams:
            raise DataError(f"{path}: has {_kinds(container)}, but no video stream")
        if _is_still(container, streams[0]):
            raise DataError(f"{path}: is an image, not a video; captioner caption describes images")
        # With frame threads, leaving the loop early hangs after torchvision was imported (pytorch/vision#9010).
        streams[0].thread_type = "SLICE"
        if streams[0].codec_context is not None:  # FFmpeg does not know every codec
            streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, streams[0]


def _is_still(container: Any, stream: Any) -> bool:
    """Whether this is an image, whatever its name, that FFmpeg reads as a video of one frame."""
    name = container.format.name
    single = container.duration is None and stream.frames == 1  # AVIF, HEIC, a GIF that does not move
    return name in ("image2", "ico") or name.endswith("_pipe") or single


def _kinds(container: Any) -> str:
    kinds = sorted({str(stream.type) for stream in container.streams})
    names = {"audio": "sound", "video": "a cover image"}
    return " and ".join(names.get(kind, kind) for kind in kinds) or "nothing in it"


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets that can be read, and an empty one last; a truncated file ends early."""
    av = require("av", "video")
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        yield packet


def _decoded(container: Any, stream: Any) -> Generator[Any, None, None]:
    """All frames that can be decoded; damaged packets are skipped."""
    av = require("av", "video")
    fed = False
    for packet in _packets(container, stream):
        fed = fed or packet.size > 0
        if not fed:  # the empty packet that ends a file without others; PyAV before 18.1 crashes when it decodes that
            continue
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):  # PyAV 19 raises ValueError for a codec that refused to start
            continue
        yield from (frame for frame in frames if frame is not None)
