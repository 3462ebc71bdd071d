"""Random changes to clips of pixels in training: shifts and mirroring, the same for all frames of a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

WHITE = 255.0
FLOW_TURN = 256.0
"""The sum of a gray value of horizontal flow and its mirrored value; 128 is no motion."""


def mirror_pixels(clips: Tensor, flow: bool = False) -> Tensor:
    """Mirror clips (B, W, 3, S, S) of gray values 0 to 255 left to right; in ``flow`` images x changes its sign."""
    mirrored = clips.flip(-1)
    if flow:
        mirrored[:, :, 0] = (FLOW_TURN - mirrored[:, :, 0]).clamp(max=WHITE)
    return mirrored


def shift_pixels(clips: Tensor, down: int, right: int) -> Tensor:
    """Shift clips (..., S, S) by whole pixels; pixels at the border are repeated."""
    most = max(abs(down), abs(right))
    if not most:
        return clips
    side = clips.shape[-1]
    padded = functional.pad(clips.flatten(0, -4), (most,) * 4, "replicate")
    moved = padded[..., most - down : most - down + side, most - right : most - right + side]
    return moved.reshape(clips.shape)


def augment(clips: Tensor, mirrored: Tensor, shifts: Tensor, flow: bool = False) -> Tensor:
    """Mirror clips (B, W, 3 * S * S) of pixels where ``mirrored`` (B,) is true, and shift them by ``shifts`` (B, 2).

    The two are independent: clips that are not mirrored are shifted as well.
    """
    side = math.isqrt(clips.shape[-1] // 3)
    changed = []
    for clip, flip, (down, right) in zip(clips, mirrored.tolist(), shifts.tolist(), strict=True):
        images = clip.view(1, -1, 3, side, side)
        images = mirror_pixels(images, flow) if flip else images
        changed.append(shift_pixels(images, down, right).flatten(2))
    return torch.cat(changed)
