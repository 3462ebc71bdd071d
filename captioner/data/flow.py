"""Optical flow between two frames, by OpenCV, and its images of three channels as in LRCN.

Donahue et al. 2015, section 4: the flow's x and y are scaled to 0..255 around 128, and its magnitude is the third
channel; their released code multiplies pixels a frame by 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from captioner.errors import ConfigError
from captioner.optional import require

METHODS = ("dis", "farneback")
"""Dense inverse search (Kroeger et al. 2016, preset medium) and polynomial expansion (Farneback 2003)."""
SCALE = 16.0
"""Gray values per pixel of motion."""
CENTER = 128.0
"""Gray value for no motion."""
SIDE = 240
"""Motion is measured in pixels of a frame whose shorter side has this many, as in UCF-101 and the paper."""
RATE = 30.0
"""Motion is measured between frames at this many frames per second, whatever the video's own rate."""


def require_flow(method: str) -> None:
    """Raise ``ConfigError`` for an unknown method and ``MissingDependency`` without OpenCV."""
    if method not in METHODS:
        raise ConfigError(f"flow: {method!r} is not one of {', '.join(METHODS)}")
    require("cv2", "flow")


def optical_flow(before: np.ndarray, after: np.ndarray, method: str = "dis") -> np.ndarray:
    """The motion (H, W, 2) float32 in pixels, x to the right and y downward, between gray images (H, W) uint8."""
    cv2: Any = require("cv2", "flow")
    if method == "farneback":
        found = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    else:
        found = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
    flow: np.ndarray = found
    return flow


def flow_image(flow: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """Flow (H, W, 2) in pixels per frame as an image (H, W, 3) uint8: x, y and magnitude, times ``scale`` plus 128."""
    magnitude = np.hypot(flow[..., 0], flow[..., 1])[..., None]
    scaled = np.concatenate([flow, magnitude], 2) * scale + CENTER
    image: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return image


def mirror_flow(flow: np.ndarray) -> np.ndarray:
    """The flow (..., H, W, 2) of the mirrored frames: flipped left to right, with the opposite sign of x."""
    mirrored: np.ndarray = flow[..., ::-1, :] * np.array([-1, 1], flow.dtype)
    return mirrored


def frame_flow(before: np.ndarray, after: np.ndarray, seconds: float, method: str = "dis") -> np.ndarray:
    """The flow (h, w, 2) between RGB frames (H, W, 3) uint8 that are ``seconds`` apart, in the units of this module.

    It is computed at the frames' own size, or scaled to ``SIDE`` if that is smaller. Frames of different sizes, as at a
    cut between two recordings, have no motion.
    """
    if before.shape != after.shape:
        return np.zeros((*before.shape[:2], 2), np.float32)
    cv2: Any = require("cv2", "flow")
    gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    side = min(gray[0].shape)
    if side > SIDE:
        size = tuple(round(length * SIDE / side) for length in gray[0].shape[::-1])
        gray = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in gray]
    height, width = gray[0].shape
    units = SIDE / min(height, width) / (max(seconds, 1e-3) * RATE)
    before, after = (_at_least(image, 32) for image in gray)
    flow: np.ndarray = optical_flow(before, after, method)[:height, :width] * np.float32(units)
    return flow


def _at_least(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a gray image so that its sides have at least ``side`` pixels, which the pyramids of both methods need."""
    height, width = image.shape
    below, right = max(side - height, 0), max(side - width, 0)
    return np.pad(image, ((0, below), (0, right)), "edge") if below or right else image
