"""UCF-101's path on generated clips, and the tables of two small data sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.data.activity import read_videos
from captioner.errors import UsageError
from captioner.features.store import FeatureStore
from captioner.features.video_spec import VideoSpec
from captioner.features.writer import FeatureWriter
from scripts import activity_tables, moving_clips
from tests.conftest import CHECKOUT


def test_generated_clips_are_laid_out_like_ucf101(tmp_path: Path) -> None:
    """Would catch lists of other clips, and groups that are in two parts of a split."""
    pytest.importorskip("av", reason="needs the extra video")
    moving_clips.moving_clips(tmp_path, 0)
    tested = []
    for split in (1, 2, 3):
        videos = read_videos("ucf101", tmp_path, split=split, dev_share=0.2)
        assert all(video.path is not None for video in videos) and len(videos) == 48
        tested += [video.image_id for video in videos if video.split == "test"]
    assert len(set(tested)) == len(tested) == 48


@pytest.mark.slow
def test_the_ucf101_script_runs_whole(tmp_path: Path) -> None:
    """From videos to the table: would catch a step that does not take what the one before writes."""
    pytest.importorskip("cv2", reason="needs the extra flow")
    folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT), "SPLITS": "1 2"}
    command = ["bash", str(CHECKOUT / "scripts/train_ucf101.sh"), "--demo", "train.epochs=20"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {cells[1].strip(): cells for line in done.stdout.splitlines() if len(cells := line.split("|")) > 6}
    assert float(rows["flow, LRCN"][3].split()[0]) > 80, "flow tells directions apart"
    assert "rgb, LRCN + flow, LRCN, 1/3 RGB, 2/3 flow" in rows and "LRCN-fc6" in done.stdout
    assert (tmp_path / "runs/ucf101-demo/report/index.html").is_file()


def test_tables_of_arid_and_fights(tmp_path: Path) -> None:
    """Would catch lists read in the wrong columns, and neighbors in two parts of a fold."""
    arid = tmp_path / "arid"
    arid.mkdir()
    (arid / "mapping_table_23.txt").write_text("0\tJump\n1\tRun\n")
    (arid / "train.txt").write_text("0\t0\tJump/Jump_11_1.mp4\n1\t1\tRun/Run_6_2.mp4\n")
    (arid / "validate.txt").write_text("0\t1\t24.mp4\n")
    assert list(activity_tables.arid_rows(arid)) == [
        "train/Jump/Jump_11_1.mp4\tJump\ttrain\ttrain Jump_11",
        "train/Run/Run_6_2.mp4\tRun\ttrain\ttrain Run_6",
        "validate/24.mp4\tRun\ttest\tvalidate 24.mp4",
    ]
    names = [f"fight/fi{number:03d}.mp4" for number in (1, 30, 31)]
    (tmp_path / "labels.tsv").write_text("file\tlabel\n" + "".join(f"{name}\tfight\n" for name in names))
    groups = [row.split("\t")[2:] for row in activity_tables.fight_rows(tmp_path)]
    assert groups == [["", "fight 0"], ["", "fight 0"], ["", "fight 1"]]
    splits = [row.split("\t")[2] for row in activity_tables.fight_rows(tmp_path, neighbors=True)]
    assert splits == ["test", "train", "test"]
    scenes = dict.fromkeys(names, 0) | {names[1]: 1}
    groups = [row.split("\t")[3] for row in activity_tables.fight_rows(tmp_path, scenes=scenes)]
    assert groups == ["scene 0", "scene 1", "scene 0"]


@pytest.mark.parametrize("wrong", [{"only": ["LSTM"]}, {"stream": ["rgb"]}])
def test_systems_and_streams_are_checked(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Would catch a misspelled system that is left out of the table without a word."""
    with pytest.raises(UsageError, match="choose one of"):
        activity_tables.activity_tables("fight", tmp_path, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_scenes_are_linked(tmp_path: Path) -> None:
    """Would catch a scene cut in two because its ends are not alike, though each is like the middle."""
    spec = VideoSpec(key="drawn", dimension=4, frames=2, size=8)
    chain = [[np.cos(angle), np.sin(angle), 0, 0] for angle in np.radians([0, 40, 80])]
    with FeatureWriter(tmp_path / "a.h5", spec) as writer:
        for number, row in enumerate([*chain, [0, 0, 1, 0], *(-np.array(chain)), [0, 0, -1, 0]]):
            writer.add(f"{number}.mp4", np.tile(row, (2, 1)).astype(np.float32))
    found = activity_tables.find_scenes(FeatureStore(tmp_path / "a.h5"))
    assert [found[f"{number}.mp4"] for number in range(8)] == [0, 0, 0, 3, 4, 4, 4, 7]


def test_thumbnails_tell_places_apart_but_not_motion(tmp_path: Path) -> None:
    """Would catch test videos among those that the regression learns from, and channels taken for frames."""
    random = np.random.default_rng(0)
    spec = VideoSpec(key="pixels", dimension=3 * 64**2, frames=4, size=64)
    lines = ["video\tlabel\tsplit"]
    with FeatureWriter(tmp_path / "a.h5", spec) as writer:
        for number in range(40):
            video = random.uniform(0, 20, (4, 3, 64, 64)) + 100
            video[:, :, :, slice(0, 32) if number % 2 else slice(32, 64)] += 50
            writer.add(f"{number}.mp4", video.reshape(4, -1).astype(np.float32))
            lines.append(f"{number}.mp4\t{'ab'[number % 2]}\t{'train' if number < 20 else 'test'}")
    (tmp_path / "videos.tsv").write_text("\n".join(lines) + "\n")
    found = activity_tables.thumbnails(tmp_path / "a.h5", tmp_path / "videos.tsv")
    assert found["the middle frame"].correct == found["the middle frame"].total == 20
    assert 3 <= found["motion"].correct <= 17
