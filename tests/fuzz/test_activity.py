"""Labeled videos: lists, tables and group files, and the videos themselves."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.data.activity import read_videos
from captioner.data.video import Frame, read_end, sample_frames
from tests.fuzz import attempt, damaged, fuzz
from tests.fuzz.worker import isolated

GROUPS = "groups.tsv"
NAMES = ["run/a.mp4", "run/b.mp4", "jump/c.mp4", "jump/d.mp4"]
UCF101 = [f"{label}/v_{label}_g0{group}_c01.avi" for label in ("Run", "Jump") for group in (1, 2)]
HMDB51 = [f"{label}/{name}_run_f_nm_np1_le_bad_0.avi" for label in ("run", "jump") for name in "abc"]
DATA_SETS: dict[str, tuple[list[str], dict[str, bytes]]] = {
    "folders": (NAMES, {GROUPS: "".join(f"{name}\t{n}\n" for n, name in enumerate(NAMES)).encode()}),
    "tsv": (
        NAMES,
        {"videos.tsv": b"video\tlabel\tsplit\tgroup\nrun/a.mp4\trun\ttrain\t0\nrun/b.mp4\trun\ttest\t1\n"
                       b"jump/c.mp4\tjump\ttrain\t2\njump/d.mp4\tjump\ttest\t3\n"},
    ),
    "ucf101": (
        [f"UCF-101/{name}" for name in UCF101],
        {"trainlist01.txt": f"{UCF101[0]} 1\n{UCF101[2]} 2\n".encode(),
         "testlist01.txt": f"{UCF101[1]}\n{UCF101[3]}\n".encode()},
    ),
    "hmdb51": (
        HMDB51,
        {f"{label}_test_split1.txt": "".join(
            f"{name.split('/')[1]} {n % 3} \n" for n, name in enumerate(HMDB51) if name.startswith(label)
        ).encode() for label in ("run", "jump")},
    ),
}  # fmt: skip
"""By reader: the videos that there are, and the valid files beside them."""


def save(folder: Path, data_format: str) -> dict[str, bytes]:
    videos, files = DATA_SETS[data_format]
    for name in videos:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


@pytest.mark.parametrize("data_format", [*DATA_SETS])
def test_the_files_that_are_damaged_are_valid(tmp_path: Path, data_format: str) -> None:
    """Would catch a suite that damages what no reader accepts."""
    save(tmp_path, data_format)
    assert len(read_videos(data_format, tmp_path)) in (4, len(HMDB51) - 2)


@pytest.mark.parametrize("data_format", [*DATA_SETS])
@given(data=st.data())
@fuzz
def test_damaged_lists(tmp_path: Path, data_format: str, data: st.DataObject) -> None:
    """Would catch a parser's own exception, a group in two splits, a video listed twice or outside the folder."""
    files = save(tmp_path, data_format)
    hurt = data.draw(st.sampled_from(sorted(files)))
    (tmp_path / hurt).write_bytes(data.draw(damaged(files[hurt])))
    folds = 0 if data_format in ("ucf101", "hmdb51") else data.draw(st.sampled_from([0, 2]))
    found = attempt(read_videos, data_format, tmp_path, folds=folds, dev_share=data.draw(st.sampled_from([0, 0.3])))
    split_of: dict[str, str] = {}
    for video in found or []:
        for text in (video.image_id, video.label, video.group):
            text.encode()
        assert video.split in ("train", "val", "test")
        assert data_format == "hmdb51" or split_of.setdefault(video.group, video.split) == video.split
        assert video.path is None or video.path.resolve().is_relative_to(tmp_path.resolve())
    assert len({video.image_id for video in found or []}) == len(found or [])


@cache
def valid_videos() -> dict[str, bytes]:
    """A video of each kind of container, by the ending of its name."""
    from tests.videos import plain, save_video

    shown = [(200 * n, plain(color)) for n, color in enumerate(("red", "green", "blue", "white"))]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            save_video(Path(folder) / f"a.{ending}", shown, sound=ending == "mp4") for ending in ("mp4", "avi", "mkv")
        ]
        return {path.suffix: path.read_bytes() for path in paths}


def look(path: Path) -> tuple[float, int]:
    """The end of a video, and how many of its moments were seen."""
    end = read_end(path)
    moments = list(sample_frames(path, [end * (n + 0.5) / 4 for n in range(4)], warn=lambda _: None))
    for moment in moments:
        for frame in (moment.frame, *moment.pair):
            assert isinstance(frame, Frame) and 0 <= frame.start <= frame.end < float("inf")
        assert moment.frame.image().mode == "RGB"
    return end, len(moments)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv"])
@given(data=st.data())
@fuzz
def test_damaged_videos(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    """Would catch a crash of FFmpeg, sizes and times as a header claims them, and errors of PyAV's own."""
    pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / f"a{ending}"
    path.write_bytes(valid_videos()[ending])
    whole = isolated(look, path)
    assert whole is not None and whole[1] == 4
    path.write_bytes(data.draw(damaged(valid_videos()[ending])))
    seen = isolated(look, path)
    assert seen is None or (0 < seen[0] < float("inf") and seen[1] == 4)
