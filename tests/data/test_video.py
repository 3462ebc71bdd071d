"""Videos: frames with their times, and the features of intervals."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")

from captioner.backbones import load_backbone
from captioner.data.clips import Clip, write_clips
from captioner.data.video import Frame, read_frames
from captioner.errors import DataError, MissingDependency
from captioner.features.frames import ClipFeature, clip_features, is_sampled
from captioner.features.store import FeatureStore
from preprocess.clip_features import main as clip_features_main
from tests.tiny import network
from tests.videos import COLOURS, plain, save_sound, save_video, turn

UNEVEN = [(0, "red"), (40, "green"), (500, "blue"), (1000, "white"), (1040, "gray")]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five colors, seen for very different times; it ends after 1.08 s."""
    return save_video(tmp_path / "v.mp4", [(time, plain(color)) for time, color in UNEVEN])


def color(frame: Frame) -> str:
    pixel = np.array(frame.image().resize((1, 1)).getpixel((0, 0)))
    return min(COLOURS, key=lambda name: int(np.abs(pixel - COLOURS[name]).sum()))


class Mean(torch.nn.Module):
    """A network whose feature is the mean color of a shown, and that counts the images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = load_backbone("compact", state=network(0)).spec.with_dimension(3)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.spec.mean, self.spec.std))
        return (images * std + mean).mean((2, 3)) * 255


def shares(clip: ClipFeature) -> str:
    """The colors of red, green and blue in a clip's feature, in steps of a quarter."""
    return " ".join(str(round(float(value) / 255 * 4)) for value in clip.feature)


def test_frames_are_seen_at_the_files_own_times(video: Path) -> None:
    """Would catch times worked out from frame numbers and a mean rate."""
    frames = list(read_frames(video))
    assert [color(frame) for frame in frames] == [name for _, name in UNEVEN]
    np.testing.assert_allclose([frame.start for frame in frames], [0, 0.04, 0.5, 1, 1.04], atol=1e-3)
    np.testing.assert_allclose([frame.end for frame in frames], [0.04, 0.5, 1, 1.04, 1.08], atol=1e-3)


def test_times_count_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    """Would catch transport streams, whose clocks start anywhere (FFmpeg writes 1.4 s)."""
    path = save_video(tmp_path / "v.ts", [(time, plain("red")) for time in (0, 400, 800)])
    assert [round(frame.start, 2) for frame in read_frames(path)] == [0, 0.4, 0.8]


def test_a_clock_that_is_set_back_goes_on(tmp_path: Path) -> None:
    """Would catch two recordings in one transport stream, the second of which is seen in no time at all."""
    path = save_video(tmp_path / "v.ts", [(40 * index, plain("red")) for index in range(50)])
    path.write_bytes(path.read_bytes() * 2)
    frames = list(read_frames(path))
    assert frames[-1].end == pytest.approx(4, abs=0.2)
    assert all(0.03 < frame.end - frame.start < 0.2 for frame in frames)


def test_a_phones_video_is_upright(tmp_path: Path) -> None:
    """Would catch a display matrix that is not looked at, or followed the wrong way round."""
    shown = plain("red")
    shown[:, :32] = COLOURS["blue"]  # left; above, once it is turned clockwise
    path = save_video(tmp_path / "v.mp4", [(0, shown)])
    turn(path)
    image = next(read_frames(path)).image()
    assert image.size == (48, 64)
    assert image.getpixel((24, 5))[2] > 200 > 60 > image.getpixel((24, 60))[2]


def test_pixels_become_square(tmp_path: Path) -> None:
    path = save_video(tmp_path / "v.mp4", [(0, plain("red"))], aspect=Fraction(3, 2))
    assert next(read_frames(path)).image().size == (96, 48)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such video file"),
        ("folder", "is a folder"),
        ("empty", "the file is empty"),
        ("text", "not a video"),
        ("headless", "not a video, or damaged from its beginning"),
        ("cut off", "no image of this video can be decoded"),
        ("sound", "has sound, but no moving image"),
    ],
)
def test_what_is_no_video_is_said(kind: str, message: str, video: Path, tmp_path: Path) -> None:
    """Would catch a traceback of FFmpeg's, or an empty result, for what people give by mistake."""
    path = tmp_path / "x.mp4"
    if kind == "folder":
        path = tmp_path
    elif kind == "sound":
        path = save_sound(path)
    elif kind != "missing":
        whole = video.read_bytes()
        contents = {"empty": b"", "text": b"knives\n" * 99, "cut off": whole[:-500]}
        contents["headless"] = whole[: whole.index(b"moov") - 4]
        path.write_bytes(contents[kind])
    with pytest.raises(DataError, match=message):
        list(read_frames(path))


def test_without_pyav_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match=r"captioner\[video\]"):
        list(read_frames(video))


def test_a_damaged_middle_costs_only_itself(tmp_path: Path) -> None:
    """Would catch decoding that stops, or raises, at the first damaged packet."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    path = save_video(tmp_path / "v.ts", [(40 * index, np.roll(noise, index, 1)) for index in range(50)])
    contents = bytearray(path.read_bytes())
    middle = len(contents) // 2
    contents[middle : middle + 4000] = bytes(4000)
    path.write_bytes(contents)
    frames = list(read_frames(path))
    assert 25 < len(frames) <= 50
    assert frames[-1].end > 1.9


def test_the_frames_in_the_middle_of_equal_parts_are_seen() -> None:
    """Against the middles one by one; would catch one that falls between two frames or into both."""
    random = np.random.default_rng(0)
    for _ in range(200):
        start, length, number = random.uniform(0, 5), random.uniform(0.1, 5), int(random.integers(1, 9))
        middles = [start + length * (index + 0.5) / number for index in range(number)]
        edges = [0, *np.sort(random.uniform(0, 10, 12)), 10]
        for shown, until in itertools.pairwise(edges):
            plainly = any(shown <= middle < until for middle in middles)
            assert is_sampled(shown, until, start, start + length, number) == plainly


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
    arguments = f"{tmp_path}/clips.jsonl {video.parent} -o {tmp_path}/f.h5 --weights {tmp_path}/cnn.safetensors"
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
