"""Features of intervals of a video: which frames are sampled, and their mean."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")

from captioner.backbones import load_backbone
from captioner.data.clips import Clip, write_clips
from captioner.data.video import read_frames
from captioner.features.frames import END_TOLERANCE, ClipFeature, clip_features, is_sampled
from captioner.features.store import FeatureStore
from preprocess.clip_features import main as clip_features_main
from tests.features.fakes import SPEC
from tests.tiny import network
from tests.videos import plain, save_video

UNEVEN = [(0, "red"), (40, "green"), (500, "blue"), (1000, "white"), (1040, "gray")]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five colors, seen for very different times; it ends after 1.08 s."""
    return save_video(tmp_path / "v.mp4", [(time, plain(color)) for time, color in UNEVEN])


class Mean(torch.nn.Module):
    """A network whose feature is an image's mean color, and that counts the images in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(SPEC, dimension=3)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.spec.mean, self.spec.std))
        return (images * std + mean).mean((2, 3)) * 255


def shares(clip: ClipFeature) -> str:
    """The colors of red, green and blue in a clip's feature, in steps of a quarter."""
    return " ".join(str(round(float(value) / 255 * 4)) for value in clip.feature)


EIGHTHS = st.integers(0, 48)  # of a second: exact in floating point
DURATIONS = st.lists(st.integers(1, 12), min_size=1, max_size=8)
PARTS = st.sampled_from([1, 2, 4, 8])


@dataclass
class Shown:
    """A frame of one gray value."""

    start: float
    end: float
    value: int

    def image(self) -> Image.Image:
        return Image.new("RGB", (8, 8), (self.value,) * 3)


def gray_frames(durations: Sequence[int]) -> list[Shown]:
    """Frames of ``durations`` eighths of a second; the values tell sums of different frames apart."""
    ends = list(itertools.accumulate(durations, initial=0))
    return [Shown(ends[i] / 8, ends[i + 1] / 8, 2**i) for i in range(len(durations))]


def sampled(frames: Sequence[Shown], start: float, end: float, number: int) -> list[int]:
    """Values of the frames on screen at the midpoints, looked up one by one; the last frame if there is none."""
    midpoints = [start + (end - start) * (2 * part + 1) / (2 * number) for part in range(number)]
    return [f.value for f in frames if any(f.start <= time < f.end for time in midpoints)] or [frames[-1].value]


@given(DURATIONS, st.lists(st.tuples(EIGHTHS, EIGHTHS), max_size=5), PARTS, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_the_frames_at_the_midpoints_are_averaged(
    durations: list[int], times: list[tuple[int, int]], number: int, batch_size: int
) -> None:
    """Would catch a midpoint between two frames or in both, overlapping or unsorted intervals, and lost batches."""
    frames = gray_frames(durations)
    intervals = [(start / 8, end / 8) for start, end in times]
    clips = clip_features(frames, intervals, Mean(), number=number, batch_size=batch_size)
    for clip, (start, end) in zip(clips, intervals, strict=True):
        last = frames[-1].end
        assert bool(clip.error) == (not start < end or start >= last or end > last + END_TOLERANCE)
        if not clip.error:
            values = sampled(frames, start, end, number)
            assert clip.frames == len(values)
            np.testing.assert_allclose(clip.feature, np.full(3, np.mean(values)), rtol=1e-4)


@given(DURATIONS, st.integers(1, 40), PARTS)
@settings(max_examples=50, deadline=None)
def test_windows_tile_the_video(durations: list[int], every: int, number: int) -> None:
    """Would catch a gap or an overlap, a last window that is too short, and frames of one window in the next."""
    frames = gray_frames(durations)
    clips = clip_features(frames, every / 8, Mean(), number=number)
    assert (clips[0].start, clips[-1].end) == (0, frames[-1].end)
    assert all(first.end == second.start for first, second in itertools.pairwise(clips))
    assert all(clip.end - clip.start == every / 8 for clip in clips[:-1])
    assert every / 16 <= clips[-1].end - clips[-1].start < every / 8 * 1.5 or len(clips) == 1
    for clip in clips[:-1]:
        wanted = np.mean(sampled(frames, clip.start, clip.end, number))
        np.testing.assert_allclose(clip.feature, np.full(3, wanted), rtol=1e-4)


@given(st.lists(st.integers(0, 80), min_size=2, unique=True).map(sorted), EIGHTHS, st.integers(1, 40), PARTS)
@settings(max_examples=50, deadline=None)
def test_each_midpoint_is_in_one_frame(edges: list[int], start: int, length: int, number: int) -> None:
    """Against the midpoints one by one; would catch one that falls between two frames or into both."""
    midpoints = [start + length * (2 * part + 1) / (2 * number) for part in range(number)]
    for shown, until in itertools.pairwise(edges):
        expected = any(shown <= midpoint < until for midpoint in midpoints)
        assert is_sampled(shown, until, start, start + length, number) == expected


def features(path: Path, intervals: Sequence[tuple[float, float]] | float, number: int = 4) -> list[ClipFeature]:
    return clip_features(read_frames(path), intervals, Mean(), number=number, batch_size=3)


def test_a_clips_feature_is_the_mean_over_its_frames(video: Path) -> None:
    """Would catch sums, frames weighed by how long they are seen, intervals exchanged by sorting, or overlap lost."""
    clips = features(video, [(0.5, 1.0), (0, 1.0), (0, 0.04)])
    assert [clip.frames for clip in clips] == [1, 2, 1]  # middles of the second: 0.125, 0.375, 0.625, 0.875
    assert [shares(clip) for clip in clips] == ["0 0 4", "0 2 2", "4 0 0"]
    assert not any(clip.error for clip in clips)


def test_one_frame_has_the_feature_that_extraction_gives(video: Path) -> None:
    """Would catch another preparation of images than the one that stores are made with."""
    backbone = load_backbone("compact", state=network(0))
    clip = clip_features(read_frames(video), [(0, 0.04)], backbone)[0]
    with torch.inference_mode():
        wanted = backbone(backbone.preprocess(next(read_frames(video)).image())[None])[0]
    np.testing.assert_allclose(clip.feature, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_intervals_that_are_not_in_the_video(video: Path) -> None:
    """Would catch one bad interval that takes the good ones with it, or is described all the same."""
    clips = features(video, [(0, 0.5), (5, 6), (0.5, 0.2), (-1, 0.3), (0.2, 3), (0.7, 0.7), (1, 1.5)])
    outside = "is outside the video, which ends at 1.080 s"
    reversed_ = "ends before it starts, or where it starts"
    before = "begins before the video, which starts at 0"
    assert [clip.error for clip in clips] == ["", outside, reversed_, before, outside, reversed_, ""]
    assert clips[6].frames == 1, "an end a little behind the video's is forgiven"


def test_windows_end_with_the_video(video: Path, tmp_path: Path) -> None:
    """Would catch a window too many, a rest of 0.08 s for itself, or a video shorter than a window left out."""
    clips = features(video, 0.5)
    assert [(round(clip.start, 2), round(clip.end, 2)) for clip in clips] == [(0, 0.5), (0.5, 1.08)]
    assert [clip.frames for clip in clips] == [1, 2]
    assert [round(clip.end, 2) for clip in features(video, 0.6)] == [0.6, 1.08]
    short = save_video(tmp_path / "short.mp4", [(0, plain("green"))])
    (only,) = features(short, 100.0)
    assert (only.start, round(only.end, 2), only.frames, shares(only)) == (0, 0.04, 1, "0 4 0")


def test_only_what_is_needed_is_decoded_and_kept(video: Path) -> None:
    """Would catch a video read to its end for one early clip, and all its images in one batch."""
    read = []

    def counted() -> object:
        for frame in read_frames(video):
            read.append(frame.start)
            yield frame

    backbone = Mean()
    clip_features(counted(), [(0, 0.3)], backbone, number=4)
    assert len(read) == 2
    clip_features(read_frames(video), 0.01, backbone, number=1, batch_size=2)
    assert max(backbone.batches) == 2


def test_a_data_sets_clips_become_a_store(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch features under another clip's id, a store that a CRF cannot be packed with, work done twice."""
    save_file(network(0), tmp_path / "cnn.safetensors")
    times = {"v_0_1": ("v", 0, 0.04), "v_1_2": ("v", 0.5, 1.0), "v_9_9": ("v", 9, 10), "w_0_1": ("w", 0, 1)}
    clips = [Clip(name, one, start, end, ("He cuts.",), "train") for name, (one, start, end) in times.items()]
    write_clips(tmp_path / "clips.jsonl", clips)
    arguments = f"{tmp_path}/clips.jsonl {video.parent} -o {tmp_path}/f.h5 --backbone compact"
    arguments += f" --weights {tmp_path}/cnn.safetensors"
    monkeypatch.setattr("sys.argv", ["clip_features", *arguments.split()])
    assert clip_features_main() == 1
    err = capsys.readouterr().err
    assert "error: v_9_9: 9-10 is outside the video, which ends at 1.080 s" in err
    assert "no files named w.*" in err
    backbone = load_backbone("compact", state=network(0))
    store = FeatureStore(tmp_path / "f.h5")
    wanted = clip_features(read_frames(video), [(0.5, 1.0), (0, 0.04)], backbone)
    np.testing.assert_allclose(store.get(["v_1_2", "v_0_1"]), [clip.feature for clip in wanted], rtol=1e-5, atol=1e-6)
    assert store.weights_digest == backbone.weights_digest
    shutil.copy(video, video.with_name("w.mp4"))
    clip_features_main()
    assert "w_0_1" in FeatureStore(tmp_path / "f.h5")
    assert capsys.readouterr().err.count("videos") == 2, "v again for its missing clip, and w"
