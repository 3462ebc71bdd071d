"""Readers of labeled videos, and their division by groups."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from captioner.data.activity import LabeledVideo, read_videos
from captioner.errors import DataError

CLASSES = ("Archery", "BabyCrawling", "Basketball")


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def ucf101(root: Path, groups: int = 25, tested: int = 7) -> Path:
    """Empty files laid out like UCF-101: the first ``tested`` groups of each class are those of testlist01."""
    train, test = [], []
    for label in CLASSES:
        for group in range(1, groups + 1):
            name = f"{label}/v_{label}_g{group:02d}_c01.avi"
            touch(root / "UCF-101" / name)
            if group <= tested:
                test.append(name)
            else:
                train.append(f"{name} {CLASSES.index(label) + 1}")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("\r\n".join(train) + "\r\n")
    (lists / "testlist01.txt").write_text("\n".join(test) + "\n")
    return root


def table(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in ("video\tlabel\tsplit\tgroup", *rows)))
    return path


def splits(videos: list[LabeledVideo]) -> dict[str, int]:
    return dict(Counter(video.split for video in videos))


def groups(videos: list[LabeledVideo], split: str) -> set[str]:
    return {video.group for video in videos if video.split == split}


def test_ucf101_follows_the_official_lists(tmp_path: Path) -> None:
    """Would catch a class taken from the number, train and test exchanged, and a dev video of a training group."""
    root = ucf101(tmp_path)
    videos = read_videos("ucf101", root)
    assert splits(videos) == {"train": 54, "test": 21}
    assert videos[0] == LabeledVideo(
        "Archery/v_Archery_g08_c01.avi",
        root / "UCF-101/Archery/v_Archery_g08_c01.avi",
        "Archery",
        "train",
        "Archery g08",
    )
    divided = read_videos("ucf101", root, dev_share=0.2)
    assert splits(divided)["test"] == 21 and 9 <= splits(divided)["val"] <= 12
    assert not groups(divided, "val") & groups(divided, "train")
    assert {video.label for video in divided if video.split == "val"} == set(CLASSES)


def test_a_random_split_of_ucf101_is_refused(tmp_path: Path) -> None:
    """Random splits put clips of one recording into train and test, and report near 100 %."""
    root = ucf101(tmp_path)
    reason = "clips of a group were cut from one video.*65.9 %"
    with pytest.raises(DataError, match=reason):
        read_videos("folders", root / "UCF-101")
    with pytest.raises(DataError, match="official splits; other divisions of it are not comparable"):
        read_videos("ucf101", root, folds=5)
    with pytest.raises(DataError, match="no trainlist02.txt.*A random split is refused: the clips"):
        read_videos("ucf101", root, split=2)
    with pytest.raises(DataError, match="splits 1, 2 and 3; 4 is none"):
        read_videos("ucf101", root, split=4)


def test_lists_that_divide_a_group_are_refused(tmp_path: Path) -> None:
    root = ucf101(tmp_path)
    path = root / "ucfTrainTestlist/testlist01.txt"
    path.write_text(path.read_text() + "Archery/v_Archery_g08_c02.avi\n")
    with pytest.raises(DataError, match="group Archery g08 is in train and test"):
        read_videos("ucf101", root)
    path.write_text("Archery/clip.avi\n")
    with pytest.raises(DataError, match="testlist01.txt, line 1: expected CLASS/v_CLASS_g01_c01.avi"):
        read_videos("ucf101", root)


def test_hmdb51_follows_its_lists(tmp_path: Path) -> None:
    """Would catch clips with 0, which are in neither part, and 1 and 2 exchanged."""
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for label in ("wave", "brush_hair"):
        names = [f"Film_{i}_{label}_u_nm_np1_ba_goo_{i}.avi" for i in range(4)]
        marks = (1, 2, 0, 1)
        text = "".join(f"{name} {mark} \n" for name, mark in zip(names, marks, strict=True))
        (lists / f"{label}_test_split3.txt").write_text(text)
        touch(tmp_path / "hmdb51" / label / names[0])
    videos = read_videos("hmdb51", tmp_path, split=3)
    assert splits(videos) == {"train": 4, "test": 2}
    first = videos[0]
    assert (first.label, first.group) == ("brush_hair", "Film_0_brush_hair")
    assert first.path == tmp_path / "hmdb51/brush_hair/Film_0_brush_hair_u_nm_np1_ba_goo_0.avi"
    with pytest.raises(DataError, match="no CLASS_test_split1.txt"):
        read_videos("hmdb51", tmp_path)
    (lists / "wave_test_split3.txt").write_text("a.avi 3\n")
    with pytest.raises(DataError, match="line 1: expected NAME.avi and 0, 1 or 2"):
        read_videos("hmdb51", tmp_path, split=3)


def test_folders_are_classes(tmp_path: Path) -> None:
    """Would catch videos of folders within a class, other files, and videos without a group."""
    for name in ("jump/a.mp4", "jump/more/b.MOV", "run/c.avi", "run/notes.txt"):
        touch(tmp_path / name)
    videos = read_videos("folders", tmp_path)
    assert [(v.image_id, v.label, v.split, v.group) for v in videos] == [
        ("jump/a.mp4", "jump", "train", "jump/a.mp4"),
        ("jump/more/b.MOV", "jump", "train", "jump/more/b.MOV"),
        ("run/c.avi", "run", "train", "run/c.avi"),
    ]
    (tmp_path / "groups.tsv").write_text("jump/a.mp4\tx\njump/more/b.MOV\tx\nrun/c.avi\ty\n")
    assert [video.group for video in read_videos("folders", tmp_path)] == ["x", "x", "y"]
    (tmp_path / "groups.tsv").write_text("jump/a.mp4\tx\n")
    with pytest.raises(DataError, match="no group for 'jump/more/b.MOV'"):
        read_videos("folders", tmp_path)
    (tmp_path / "groups.tsv").write_text("jump/a.mp4\tx\njump/a.mp4\ty\n")
    with pytest.raises(DataError, match="groups.tsv, line 2: 'jump/a.mp4' is in two groups"):
        read_videos("folders", tmp_path)
    touch(tmp_path / "loose.mp4")
    with pytest.raises(DataError, match="'loose.mp4' is in no class"):
        read_videos("folders", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4\tjump\tsomewhere\tg", "line 2: unknown split 'somewhere'"),
        ("a.mp4\tjump", "line 2: expected video, label, split, group"),
        ("a.mp4\t\ttrain\tg", "line 2: expected video, label, split, group"),
        ("a.mp4\tjump\ttrain\tg", "all videos are of one class, jump"),
        ("a.mp4\tjump\t\t\na.mp4\trun\t\t", "the video a.mp4 is listed twice"),
        ("a.mp4\tjump\ttrain\tg\nb.mp4\trun\ttest\tg", "group g is in train and test"),
        ("", "holds no videos"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_videos("tsv", table(tmp_path / "videos.tsv", row))


def test_the_header_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "videos.tsv"
    path.write_text("video\tlabel\nx.mp4\ta\ny.mp4\tb\n")
    assert [video.split for video in read_videos("tsv", tmp_path)] == ["train", "train"]
    for header in ("label\tvideo", "video\tlabel\tlabel", "video\tlabel\tsize", ""):
        path.write_text(f"{header}\n")
        with pytest.raises(DataError, match="line 1: expected the columns"):
            read_videos("tsv", path)


def test_a_path_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "secret.mp4")
    (tmp_path / "data").mkdir()
    path = table(tmp_path / "data" / "videos.tsv", "../secret.mp4\ta\t\t", "x.mp4\tb\t\t")
    assert [video.path for video in read_videos("tsv", path)] == [None, None]


def test_folds_keep_groups_together_and_classes_even(tmp_path: Path) -> None:
    """Would catch folds drawn clip by clip, a clip tested twice or never, and a fold without a class."""
    rows = [f"{label}{i}.mp4\t{label}\t\t{label}-{i // 4}" for label in ("fight", "calm") for i in range(40)]
    path = table(tmp_path / "videos.tsv", *rows)
    tested: list[str] = []
    for fold in range(1, 6):
        videos = read_videos("tsv", path, split=fold, folds=5, dev_share=0.2)
        assert Counter(video.label for video in videos if video.split == "test") == {"fight": 8, "calm": 8}
        parts = [groups(videos, split) for split in ("train", "val", "test")]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert Counter(video.label for video in videos if video.split == "val") == {"fight": 8, "calm": 8}
        tested += [video.image_id for video in videos if video.split == "test"]
    assert len(tested) == len(set(tested)) == 80
    for split, folds in ((6, 5), (1, 1)):
        with pytest.raises(DataError, match=f"fold {split} of {folds}"):
            read_videos("tsv", path, split=split, folds=folds)
    with pytest.raises(DataError, match="20 groups cannot be divided into 30 folds"):
        read_videos("tsv", path, folds=30)


def test_a_class_keeps_a_training_group(tmp_path: Path) -> None:
    """Would catch dev videos that take a class's only group, after which nothing could learn it."""
    path = table(tmp_path / "videos.tsv", *(f"{i}.mp4\t{'ab'[i % 2]}\t\t{'only' if i % 2 else i}" for i in range(8)))
    videos = read_videos("tsv", path, dev_share=0.5)
    assert groups(videos, "train") >= {"only"} and splits(videos)["val"] == 2
    path = table(tmp_path / "videos.tsv", "a.mp4\ta\t\tx", "b.mp4\tb\t\ty")
    with pytest.raises(DataError, match="no group of training videos can be held out"):
        read_videos("tsv", path, dev_share=0.5)
