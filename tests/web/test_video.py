"""Videos: what models say of them with times, on the page and as JSON, and which are refused."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from captioner import load
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.web import video
from captioner.web.app import Settings
from captioner.web.video import VideoError, is_video, video_clips
from tests import tiny
from tests.conftest import CHECKOUT
from tests.web.test_app import content, open_client

av = pytest.importorskip("av", reason="needs the extra video")
from PIL import Image  # noqa: E402

from tests.videos import plain, save_sound, save_video  # noqa: E402


def example(name: str) -> np.ndarray:
    """An example photograph as a frame (240, 320, 3)."""
    with Image.open(CHECKOUT / "examples" / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB").resize((320, 240)))


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    """Six seconds of a cat, then two of a dog."""
    shown = [(500 * i, example("cat" if i < 12 else "dog")) for i in range(16)]
    return save_video(tmp_path / "film.mp4", shown).read_bytes()


def test_frames_are_captioned_with_times(film: bytes, tmp_path: Path) -> None:
    """Would catch captions of other frames, times that overlap, and a file that stays behind."""
    before = set(os.listdir(tempfile.gettempdir()))
    with open_client(load(), Settings(tmp_path / "index")) as client:
        clips = client.post("/api/video", files={"video": film}).json()["clips"]
        assert "cat" in clips[0]["caption"] and "shepherd" in clips[-1]["caption"]
        assert clips[0]["start"] == 0 and clips[-1]["start"] == pytest.approx(6, abs=1) and clips[-1]["end"] > 7
        assert [one["end"] for one in clips[:-1]] == [one["start"] for one in clips[1:]]
        assert all(one["log_prob"] < 0 and one["labels"] == [] and one["model"] == "default" for one in clips)
        assert len(clips) == len({one["caption"] for one in clips}), "neighbors with one caption are one clip"
        page = client.post("/caption", files={"image": ("<film>.mp4", film)})
        assert page.status_code == 200 and "&lt;film&gt;.mp4" in page.text and "0:00–0:0" in page.text
        assert all(one["caption"] in page.text for one in clips) and page.text.count("data:image/jpeg") == len(clips)
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("captioner-")]


def test_what_is_taken_for_a_video() -> None:
    """Would catch images that go to FFmpeg, and videos that go to Pillow; names count for nothing."""
    assert not any(is_video(content(format=format)) for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"))
    heads = (b"\0\0\0 ftypisom", b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI LIST", b"OggS")
    assert all(is_video(head) for head in heads)
    assert not is_video(b"\0\0\0 ftypheic") and not is_video(b"#EXTM3U\n") and not is_video(b"")


def test_limits(tmp_path: Path, film: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a visitor who keeps the machine busy, and an error that shows where files lie."""
    captioner: LRCNCaptioner = load(tiny.save_tiny(tmp_path / "tiny.safetensors"))
    for name, most, words in (
        ("SECONDS", 5, "seconds, more than the limit of 5"),
        ("FRAME_PIXELS", 5000, "320 x 240 pixels"),
        ("ALL_PIXELS", 90_000, "16 frames"),
    ):
        with monkeypatch.context() as patch, pytest.raises(VideoError, match=words):
            patch.setattr(video, name, most)
            video_clips(film, captioner, [])
    with open_client(captioner, Settings(tmp_path / "index", most_bytes=len(film) // 2)) as client:
        assert client.post("/api/video", files={"video": film}).status_code == 413
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        assert client.post("/api/video", files={"video": content()}).status_code == 415
        assert client.post("/api/caption", files={"image": film}).status_code == 415
        for bad in (film[: len(film) // 3], film[:40], save_sound(tmp_path / "a.mp4").read_bytes()):
            answer = client.post("/api/video", files={"video": bad})
            assert answer.status_code == 422 and answer.json()["error"].startswith("this video cannot be read: ")
            assert tempfile.gettempdir() not in answer.json()["error"]
    monkeypatch.setattr("captioner.web.app.find_spec", lambda name: None)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        assert "video" not in client.get("/").text
        assert "captioner[video]" in client.post("/api/video", files={"video": film}).json()["error"]


def test_frames_larger_than_any_video_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a header that says little and frames that take all memory."""
    from captioner.data import video as reading
    from captioner.errors import DataError

    path = save_video(tmp_path / "a.mp4", [(0, plain("red")), (40, plain("green"))])
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="no frame of this video can be decoded"):
        list(reading.read_frames(path))
