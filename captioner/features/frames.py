"""From a video to the features of its clips: the mean of a network's features over frames spread evenly over a clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from captioner.backbones import Backbone
from captioner.backbones.spec import normalize, pixels
from captioner.data.video import Frame

FRAMES = 8
"""Frames of a clip that the network looks at, where there are so many."""
SLACK = 1.0
"""Seconds by which an interval may end after its video: sound often does, and players count it."""
Interval = tuple[float, float]
"""Start and end in seconds; the end is not part of it."""


@dataclass(eq=False)
class ClipFeature:
    """What was seen of an interval."""

    start: float
    """Seconds."""
    end: float
    feature: np.ndarray
    """(D,) float32: mean over the frames that were looked at; nothing that means something where there is an error."""
    frames: int = 0
    """Frames that were looked at."""
    error: str = ""
    """Why it cannot be described."""


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
    """The features of ``intervals``, in their order, or of windows of so many seconds over the whole video.

    Of each interval the frames are taken that are seen in the middle of ``number`` equal parts of it, each frame once.
    The video is read once, and no longer than needed; its images are never all in memory. What lies outside the
    video, or ends before it starts, has an ``error`` instead.
    """
    looked = _Looked(backbone.to(device), batch_size, device)
    size = backbone.spec.dimension
    if isinstance(intervals, float | int):
        clips: list[ClipFeature] = []
        end = _look(frames, _windows(float(intervals), clips, size), number, looked)
        clips = _ended(clips, end)
    else:
        clips = [ClipFeature(start, end, np.zeros(size, np.float32)) for start, end in intervals]
        good = [clip for clip in clips if _possible(clip)]
        end = _look(frames, iter(sorted(good, key=lambda clip: clip.start)), number, looked) if good else 0.0
        for clip in good:
            if clip.end > end + SLACK or not clip.frames:
                clip.error = f"is outside the video, which ends at {end:.3f} s"
    for clip in clips:
        clip.feature /= max(1, clip.frames)
    return clips


def _windows(every: float, clips: list[ClipFeature], size: int) -> Iterator[ClipFeature]:
    """Windows of ``every`` seconds without an end; each is put into ``clips`` when it is asked for."""
    for index in count():
        clips.append(ClipFeature(index * every, (index + 1) * every, np.zeros(size, np.float32)))
        yield clips[-1]


def _ended(windows: list[ClipFeature], end: float) -> list[ClipFeature]:
    """The windows of a video that ends at ``end``; a rest of less than half a window is joined to the one before."""
    *whole, last = [clip for clip in windows if clip.start < end]
    if whole and end - last.start < (last.end - last.start) / 2:
        whole[-1].feature += last.feature
        whole[-1].frames += last.frames
        last = whole.pop()
    last.end = end
    return [*whole, last]


def _possible(clip: ClipFeature) -> bool:
    """Whether a video could have this interval; else it says why not."""
    if not clip.start < clip.end:
        clip.error = "ends before it starts, or where it starts"
    elif clip.start < 0:
        clip.error = "begins before the video, which starts at 0"
    return not clip.error


def _look(frames: Iterable[Frame], clips: Iterator[ClipFeature], number: int, looked: _Looked) -> float:
    """Look at the frames of ``clips``, which come sorted by their starts; returns the end of the last frame read."""
    coming = next(clips, None)
    now: list[ClipFeature] = []
    for frame in frames:
        while coming is not None and coming.start < frame.end:
            now.append(coming)
            coming = next(clips, None)
        chosen = [clip for clip in now if seen(frame.start, frame.end, clip.start, clip.end, number)]
        if chosen:
            looked.add(frame, chosen)
        now = [clip for clip in now if clip.end > frame.end]
        if coming is None and not now:
            break
    if hurried := [clip for clip in now if not clip.frames]:  # the video ended before the first middle
        looked.add(frame, hurried)
    looked.finish()
    return frame.end


def seen(shown: float, until: float, start: float, end: float, number: int) -> bool:
    """Whether a frame that is shown from ``shown`` to ``until`` is seen in the middle of any of ``number`` equal parts.

    The parts are those of the interval from ``start`` to ``end``; all times in seconds.
    """
    scale = number / (end - start)
    first, behind = (math.ceil((time - start) * scale - 0.5) for time in (shown, until))  # of the middles in this frame
    return max(first, 0) < min(behind, number)


class _Looked:
    """Collects frames into batches for the network, and adds its features up for each clip."""

    def __init__(self, backbone: Backbone, batch_size: int, device: str | torch.device) -> None:
        self.backbone, self.batch_size, self.device = backbone, batch_size, device
        self.images: list[np.ndarray] = []
        self.owners: list[list[ClipFeature]] = []

    def add(self, frame: Frame, clips: list[ClipFeature]) -> None:
        self.images.append(pixels(frame.image(), self.backbone.spec))
        self.owners.append(clips)
        for clip in clips:
            clip.frames += 1
        if len(self.images) == self.batch_size:
            self.finish()

    def finish(self) -> None:
        """Run what is waiting."""
        if not self.images:
            return
        batch = normalize(torch.from_numpy(np.stack(self.images)).to(self.device), self.backbone.spec)
        features = self.backbone(batch).float().cpu().numpy()
        for feature, clips in zip(features, self.owners, strict=True):
            for clip in clips:
                clip.feature += feature
        self.images, self.owners = [], []
