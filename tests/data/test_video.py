"""Frames of videos with the times at which they are shown."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")

from captioner.data.video import Frame, read_end, read_frames, sample_frames
from captioner.errors import DataError, MissingDependency
from tests.videos import COLORS, plain, save_sound, save_video, turn

UNEVEN = [(0, "red"), (40, "green"), (500, "blue"), (1000, "white"), (1040, "gray")]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five colors, seen for very different times; it ends after 1.08 s."""
    return save_video(tmp_path / "v.mp4", [(time, plain(color)) for time, color in UNEVEN])


def color(frame: Frame) -> str:
    pixel = np.array(frame.image().resize((1, 1)).getpixel((0, 0)))
    return min(COLORS, key=lambda name: int(np.abs(pixel - COLORS[name]).sum()))


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
    with pytest.warns(UserWarning, match="v.ts: its timestamps jump from"):
        frames = list(read_frames(path))
    assert frames[-1].end == pytest.approx(4, abs=0.2)
    assert all(0.03 < frame.end - frame.start < 0.2 for frame in frames)


def test_a_clock_that_jumps_is_noted_once(tmp_path: Path) -> None:
    """Would catch a recording that is shortened by hours, of which no line of the output says anything."""
    times = [0, 40, 80, 7_200_000, 7_200_040, 20_000_000, 20_000_040]
    path = save_video(tmp_path / "v.ts", [(time, plain("red")) for time in times])
    notes: list[str] = []
    frames = list(read_frames(path, notes.append))
    assert frames[-1].end == pytest.approx(7 * 0.04, abs=0.01)
    [note] = notes
    assert note == f"{path}: its timestamps jump from 0.12 to 7200.00 s; they continue from 0.12 s, also at later jumps"


@pytest.mark.parametrize("name", ["photo.jpg", "photo.mp4"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "ICO"])
def test_an_image_is_no_video(tmp_path: Path, name: str, form: str) -> None:
    """Would catch a photo that is described as a video of one frame, which FFmpeg makes of it."""
    path = tmp_path / name
    Image.new("RGB", (32, 32), "red").save(path, form)
    with pytest.raises(DataError, match="is an image, not a video; captioner caption describes images"):
        list(read_frames(path))


def test_an_animation_is_a_video(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    first, second = (Image.new("RGB", (32, 32), name) for name in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second], duration=400)
    assert [color(frame) for frame in read_frames(path)] == ["red", "blue"]


def test_a_phones_video_is_upright(tmp_path: Path) -> None:
    """Would catch a display matrix that is not looked at, or followed the wrong way round."""
    shown = plain("red")
    shown[:, :32] = COLORS["blue"]  # left; above, once it is turned clockwise
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
        ("cut off", "no frame of this video can be decoded"),
        ("sound", "has sound, but no video stream"),
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


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {0}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_opens_no_other_file(playlist: str, video: Path, tmp_path: Path) -> None:
    """Would catch a file named .mp4 that makes FFmpeg read any other file or address."""
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format(video.name))
    with pytest.raises(DataError, match=r"list\.mp4: not a video, or damaged"):
        next(read_frames(path))


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


def test_frames_at_given_times(tmp_path: Path) -> None:
    """Would catch frames chosen by number: this video shows red for 900 ms of its first second, green for 100."""
    path = save_video(tmp_path / "a.mp4", [(0, plain("red")), (900, plain("green")), (1000, plain("blue"))])
    end = read_end(path)
    assert end == pytest.approx(list(read_frames(path))[-1].end, abs=0.002) and end > 1
    moments = list(sample_frames(path, [0.1, 0.5, 0.89, 0.95, end, end + 0.5]))
    starts = [0.0, 0.0, 0.0, 0.9, 1.0, 1.0]
    assert [moment.frame.start for moment in moments] == pytest.approx(starts, abs=0.002)
    assert moments[0] is moments[2], "equal moments are one object"
    pairs = [(moment.pair[0].start, moment.pair[1].start) for moment in moments[2:5]]
    assert np.allclose(pairs, [(0, 0.9), (0.9, 1.0), (0.9, 1.0)], atol=0.002), (
        "the last frame moves from the one before"
    )
    with pytest.raises(DataError, match="its frames end early, at 1.0. s"):
        list(sample_frames(path, [0.1, 30.0]))
    single = save_video(tmp_path / "b.mp4", [(0, plain("red"))])
    [moment] = sample_frames(single, [0.0])
    assert moment.pair == (moment.frame, moment.frame)


def test_the_end_is_known_without_decoding(tmp_path: Path) -> None:
    """Would catch an end counted in frames, and files without a moving image."""
    path = save_video(tmp_path / "a.mkv", [(0, plain("red")), (40, plain("red")), (5000, plain("green"))])
    assert read_end(path) == pytest.approx(list(read_frames(path))[-1].end, abs=0.05)
    with pytest.raises(DataError, match="no video stream"):
        read_end(save_sound(tmp_path / "sound.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(DataError, match="the file is empty"):
        read_end(tmp_path / "empty.mp4")
