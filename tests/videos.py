"""Tiny videos for tests, written with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "gray": (90, 90, 90),
}
MILLISECOND = Fraction(1, 1000)


def plain(color: str, width: int = 64, height: int = 48) -> np.ndarray:
    """An image (H, W, 3) uint8 of one color."""
    return np.full((height, width, 3), COLORS[color], np.uint8)


def save_video(
    path: Path, shown: Sequence[tuple[int, np.ndarray]], sound: bool = False, aspect: Fraction | None = None
) -> Path:
    """Images (H, W, 3), each from so many milliseconds on; MPEG-4 part 2, which every FFmpeg can write and read."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = shown[0][1].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if sound:
            add_sound(container, 1.0)
        for time, image in shown:
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def save_sound(path: Path) -> Path:
    """A second of silence and no image."""
    with av.open(str(path), "w") as container:
        add_sound(container, 1.0)
    return path


def add_sound(container: av.container.OutputContainer, seconds: float) -> None:
    stream = container.add_stream("aac", rate=8000, layout="mono")
    samples = np.zeros((1, int(8000 * seconds)), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def turn(path: Path) -> None:
    """Let a player turn the video clockwise by a right angle, as phones do: ISO 14496-12 section 8.3.2, tkhd."""
    contents = bytearray(path.read_bytes())
    matrix = contents.index(b"tkhd") + 44  # version 0: behind times, track, duration, layer and volume
    values = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    contents[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(contents)
