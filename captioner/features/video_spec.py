"""The specification of a video's feature: a backbone's specification, and the processing of frames before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from captioner.backbones.spec import BackboneSpec, pixels
from captioner.data.flow import METHODS, RATE, SCALE, SIDE, flow_image, frame_flow, mirror_flow
from captioner.data.video import Moment, read_end, sample_frames
from captioner.errors import BackboneError, shorten
from captioner.features.spec import digest

MOST_FRAMES = 4096
"""Most frames that are sampled from one video."""
View = Callable[[Moment], np.ndarray]
"""Makes the backbone's input of a moment, (S, S, 3) uint8."""


@dataclass(frozen=True, kw_only=True)
class VideoSpec(BackboneSpec):
    """Features (T, D) of T frames spread evenly over a video, or of images of the optical flow at these frames."""

    kind: ClassVar[str] = "video"

    gamma: float = 1.0
    """Exponent applied to the brightness, 0 to 1, of every frame; below 1 brightens dark videos."""
    flow: str = ""
    """Method of optical flow, one of ``captioner.data.flow.METHODS``; empty for the frames themselves."""
    flow_quantizer: tuple[float, ...] = ()
    """Gray values per pixel of motion, and the unit of motion: shorter side of the frame, and frames per second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", float(self.gamma))
        known = (SCALE, float(SIDE), RATE) if self.flow else ()
        if tuple(self.flow_quantizer) not in ((), known):
            raise BackboneError(
                f"{self.key}: flow_quantizer {shorten(self.flow_quantizer)} is not that of this release"
            )
        object.__setattr__(self, "flow_quantizer", known)
        if not 1 <= self.frames <= MOST_FRAMES:
            raise BackboneError(f"{self.key}: {self.frames} frames of a video; choose 1 to {MOST_FRAMES}")
        if not 0.1 <= self.gamma <= 10:
            raise BackboneError(f"{self.key}: gamma {self.gamma} is outside 0.1 to 10")
        if self.flow not in ("", *METHODS):
            raise BackboneError(f"{self.key}: flow: {shorten(self.flow)} is not one of {', '.join(METHODS)}")

    @classmethod
    def of(cls, backbone: BackboneSpec, frames: int, *, gamma: float = 1.0, flow: str = "") -> VideoSpec:
        """The spec of ``backbone``'s features of ``frames`` frames of a video."""
        return cls(**asdict(backbone) | {"frames": frames, "gamma": gamma, "flow": flow})

    @property
    def backbone(self) -> BackboneSpec:
        """The spec of the network alone."""
        names = {item.name for item in fields(BackboneSpec)}
        return BackboneSpec(**{name: value for name, value in asdict(self).items() if name in names} | {"frames": 0})

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on all processing of the video."""
        return digest([super().digest, self.frames, self.gamma, self.flow, self.flow_quantizer])

    @property
    def stream(self) -> str:
        """``flow`` or ``RGB``, as the paper calls the two inputs."""
        return "flow" if self.flow else "RGB"


def view_of(spec: VideoSpec, mirror: bool = False) -> View:
    """The function that makes the backbone's input of a moment, with ``mirror`` of the mirrored video.

    It caches the last moment, which is requested again if a video has fewer frames than are sampled.
    """
    brightness = np.rint(255 * (np.arange(256) / 255) ** spec.gamma).astype(np.uint8)
    seen: list[Any] = [None, None]

    def view(moment: Moment) -> np.ndarray:
        if seen[0] is not moment:
            image = (
                _flow_view(spec, moment, brightness, mirror) if spec.flow else _frame_view(moment, brightness, mirror)
            )
            seen[:] = moment, pixels(Image.fromarray(image), spec)
        found: np.ndarray = seen[1]
        return found

    return view


def _frame_view(moment: Moment, brightness: np.ndarray, mirror: bool) -> np.ndarray:
    image: np.ndarray = brightness[np.asarray(moment.frame.image())]
    return image[:, ::-1] if mirror else image


def _flow_view(spec: VideoSpec, moment: Moment, brightness: np.ndarray, mirror: bool) -> np.ndarray:
    first, second = moment.pair
    before, after = (brightness[np.asarray(frame.image())] for frame in moment.pair)
    flow = frame_flow(before, after, second.start - first.start, spec.flow)
    return flow_image(mirror_flow(flow) if mirror else flow)


def video_views(path: str | Path, spec: VideoSpec, mirror: bool = False) -> np.ndarray:
    """The backbone's inputs of a whole video, (T, S, S, 3) uint8; raises ``DataError`` if it cannot be read."""
    return next(clip_views(path, (0.0, read_end(path)), [spec], mirror))[0]


def clip_views(
    path: str | Path, edges: Sequence[float], specs: Sequence[VideoSpec], mirror: bool = False
) -> Iterator[list[np.ndarray]]:
    """Each spec's inputs of the clips between ``edges`` (seconds, ascending), (T, S, S, 3) uint8.

    All specs have the same T. The frames are those shown in the middles of T equal parts of the clip by time, so frame
    rates do not matter. The video is decoded once, and one clip is in memory at a time.
    """
    frames = specs[0].frames
    views = [view_of(spec, mirror) for spec in specs]
    middles = (start + (end - start) * (i + 0.5) / frames for start, end in pairwise(edges) for i in range(frames))
    seen: list[list[np.ndarray]] = []
    for moment in sample_frames(path, middles):
        seen.append([view(moment) for view in views])
        if len(seen) == frames:
            yield [np.stack(some) for some in zip(*seen, strict=True)]
            seen = []
