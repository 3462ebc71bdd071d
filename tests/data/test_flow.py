"""Optical flow: known motions, its units, its images and its mirror image."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from captioner.data.flow import METHODS, flow_image, frame_flow, mirror_flow, optical_flow, require_flow
from captioner.errors import ConfigError, MissingDependency

pytest.importorskip("cv2", reason="needs the extra flow")


def texture(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """A smooth random image (H, W, 3) uint8, in which motion can be seen everywhere."""
    coarse = np.random.default_rng(seed).random((height // 8 + 2, width // 8 + 2))
    rows, columns = np.linspace(0, height / 8, height), np.linspace(0, width / 8, width)
    by_row = np.array([np.interp(columns, range(coarse.shape[1]), line) for line in coarse])
    image = np.array([np.interp(rows, range(coarse.shape[0]), line) for line in by_row.T]).T
    return np.repeat((255 * image).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_known_shift_is_found(method: str) -> None:
    """Would catch x and y in the wrong order, a wrong sign, and a method that is not the one asked for."""
    image = texture()
    moved = np.roll(image, (2, -3), (0, 1))  # 2 down, 3 to the left
    flow = optical_flow(image[..., 0], moved[..., 0], method)
    assert flow.shape == (120, 160, 2)
    np.testing.assert_allclose(np.median(flow[20:-20, 20:-20], (0, 1)), [-3, 2], atol=0.15)


def test_units_do_not_depend_on_size_and_frame_rate() -> None:
    """Would catch pixels a frame: the same motion filmed smaller, or at half the rate, must be the same."""
    image = texture(120, 160)
    slow, fast = np.roll(image, 2, 1), np.roll(image, 4, 1)
    flows = [frame_flow(image, slow, 1 / 30), frame_flow(image, fast, 2 / 30)]
    for flow in flows:  # two pixels of 120 in 1/30 s are four of 240
        np.testing.assert_allclose(np.median(flow[20:-20, 20:-20], (0, 1)), [4, 0], atol=0.2)
    large = np.kron(image, np.ones((4, 4, 1), np.uint8))
    found = frame_flow(large, np.roll(large, 8, 1), 1 / 30)
    assert found.shape == (240, 320, 2), "more pixels than the paper's are not looked at"
    np.testing.assert_allclose(np.median(found[40:-40, 40:-40], (0, 1)), [4, 0], atol=0.2)


def test_flow_image_is_the_papers() -> None:
    """x * 16 + 128, y * 16 + 128, magnitude * 16 + 128, cut to 0 to 255."""
    image = flow_image(np.array([[[0, 0], [3, -4], [-100, 100]]], np.float32))
    assert image.tolist() == [[[128, 128, 128], [176, 64, 208], [0, 255, 255]]]
    assert image.dtype == np.uint8


def test_the_mirrored_flow_is_the_flow_of_mirrored_frames() -> None:
    """The released code mirrors flow images without changing the sign of x, so that left becomes right."""
    image = texture()
    moved = np.roll(image, 3, 1)
    flow = frame_flow(image, moved, 1 / 30)
    own = frame_flow(image[:, ::-1], moved[:, ::-1], 1 / 30)
    inside = (slice(20, -20), slice(20, -20))
    np.testing.assert_allclose(mirror_flow(flow)[inside], own[inside], atol=0.2)
    assert np.median(mirror_flow(flow)[..., 0]) < -5 < 5 < np.median(flow[..., 0])


def test_odd_frames() -> None:
    """Frames smaller than the pyramids need, and a change of size in mid-video, must not end in an error of OpenCV."""
    small = np.zeros((9, 5, 3), np.uint8)
    assert not frame_flow(small, small, 0.0).any() and frame_flow(small, small, 0.1).shape == (9, 5, 2)
    assert frame_flow(small, texture(), 0.1).shape == (9, 5, 2)


def test_a_missing_package_and_a_wrong_method_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tools leave empty folders where the program for the flow is missing."""
    with pytest.raises(ConfigError, match="'tvl1' is not one of dis, farneback"):
        require_flow("tvl1")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependency, match="pip install 'captioner\\[flow\\]'"):
        require_flow("dis")
