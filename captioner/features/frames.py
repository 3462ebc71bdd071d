"""Features of video clips: the mean of a backbone's features over frames spread evenly over each clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from captioner.backbones.backbone import Backbone
from captioner.backbones.spec import normalize, pixels
from captioner.data.video import END_TOLERANCE, Frame

FRAMES = 8
"""Frames sampled from a clip, if it has that many."""
Interval = tuple[float, float]
"""Start and end in seconds; the end is not part of the interval."""


@dataclass(eq=False)
class ClipFeature:
    """The feature of one interval, or the reason why it has none."""

    start: float
    """Seconds."""
    end: float
    feature: np.ndarray
    """(D,) float32: mean over the sampled frames; undefined if there is an error."""
    frames: int = 0
    """Number of frames sampled."""
    error: str = ""
    """Why the interval has no feature; empty if it has one."""


@torch.inference_mode()
def clip_features(
    frames: Iterable[Frame],
    intervals: Sequence[Interval] | float,
    backbone: Backbone,
    *,
    number: int = FRAMES,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> list[ClipFeature]:
    """The features of ``intervals``, in their order; a number stands for windows of that many seconds over the video.

    Each interval is divided into ``number`` equal parts, and the frames shown at their midpoints are sampled, each
    frame once. The video is read once, only as far as needed, with one batch of images in memory at a time. An interval
    outside the video, or one that ends before it starts, has an ``error`` instead of a feature.
    """
    pooler = FramePooler(backbone.to(device), batch_size, device)
    size = backbone.spec.dimension
    if isinstance(intervals, float | int):
        clips: list[ClipFeature] = []
        end = _pool(frames, _windows(float(intervals), clips, size), number, pooler)
        clips = _cut_windows(clips, end)
    else:
        clips = [ClipFeature(start, end, np.zeros(size, np.float32)) for start, end in intervals]
        valid = [clip for clip in clips if _is_valid(clip)]
        end = _pool(frames, iter(sorted(valid, key=lambda clip: clip.start)), number, pooler) if valid else 0.0
        for clip in valid:
            if clip.end > end + END_TOLERANCE or not clip.frames:
                clip.error = f"is outside the video, which ends at {end:.3f} s"
    for clip in clips:
        clip.feature /= max(1, clip.frames)
    return clips


def _windows(every: float, clips: list[ClipFeature], size: int) -> Iterator[ClipFeature]:
    """Endless windows of ``every`` seconds; each is also appended to ``clips``."""
    for index in count():
        clips.append(ClipFeature(index * every, (index + 1) * every, np.zeros(size, np.float32)))
        yield clips[-1]


def _cut_windows(windows: list[ClipFeature], end: float) -> list[ClipFeature]:
    """The windows of a video that ends at ``end``; a last one shorter than half a window is added to the one before."""
    *whole, last = [clip for clip in windows if clip.start < end]
    if whole and end - last.start < (last.end - last.start) / 2:
        whole[-1].feature += last.feature
        whole[-1].frames += last.frames
        last = whole.pop()
    last.end = end
    return [*whole, last]


def _is_valid(clip: ClipFeature) -> bool:
    """Whether the interval is valid in any video; sets ``error`` if it is not."""
    if not clip.start < clip.end:
        clip.error = "ends before it starts, or where it starts"
    elif clip.start < 0:
        clip.error = "begins before the video, which starts at 0"
    return not clip.error


def _pool(frames: Iterable[Frame], clips: Iterator[ClipFeature], number: int, pooler: FramePooler) -> float:
    """Sum the features of each clip's frames; ``clips`` are sorted by start. Returns the end of the last frame read."""
    upcoming = next(clips, None)
    current: list[ClipFeature] = []
    for frame in frames:
        while upcoming is not None and upcoming.start < frame.end:
            current.append(upcoming)
            upcoming = next(clips, None)
        chosen = [clip for clip in current if is_sampled(frame.start, frame.end, clip.start, clip.end, number)]
        if chosen:
            pooler.add(frame, chosen)
        current = [clip for clip in current if clip.end > frame.end]
        if upcoming is None and not current:
            break
    if unsampled := [clip for clip in current if not clip.frames]:  # the video ended before their first midpoint
        pooler.add(frame, unsampled)
    pooler.flush()
    return frame.end


def is_sampled(shown: float, until: float, start: float, end: float, number: int) -> bool:
    """Whether a frame shown from ``shown`` to ``until`` is on screen at a midpoint of ``number`` equal parts.

    The parts divide the interval from ``start`` to ``end``; all times are in seconds.
    """
    scale = number / (end - start)
    first, stop = (math.ceil((time - start) * scale - 0.5) for time in (shown, until))  # midpoints within the frame
    return max(first, 0) < min(stop, number)


class FramePooler:
    """Runs the backbone over frames in batches and adds each frame's feature to its clips."""

    def __init__(self, backbone: Backbone, batch_size: int, device: str | torch.device) -> None:
        self.backbone, self.batch_size, self.device = backbone, batch_size, device
        self.images: list[np.ndarray] = []
        self.clips_of: list[list[ClipFeature]] = []

    def add(self, frame: Frame, clips: list[ClipFeature]) -> None:
        """Add ``frame`` to each of ``clips``."""
        self.images.append(pixels(frame.image(), self.backbone.spec))
        self.clips_of.append(clips)
        for clip in clips:
            clip.frames += 1
        if len(self.images) == self.batch_size:
            self.flush()

    def flush(self) -> None:
        """Run the backbone over the last, incomplete batch of frames."""
        if not self.images:
            return
        batch = normalize(torch.from_numpy(np.stack(self.images)).to(self.device), self.backbone.spec)
        features = self.backbone(batch).float().cpu().numpy()
        for feature, clips in zip(features, self.clips_of, strict=True):
            for clip in clips:
                clip.feature += feature
        self.images, self.clips_of = [], []
