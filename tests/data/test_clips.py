"""Readers of clips with sentences, and our own file of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.data.clips import CLIP_READERS, NODES, NULL, Clip, read_clips, write_clips
from captioner.data.records import SPLITS
from captioner.errors import DataError

INFO = {"s1-d2": 29.4, "s3-d4": 25}


def corpus(folder: Path, **files: str) -> Path:
    """A folder with video_info.json and text files ``cooking_SPLIT_0.txt``."""
    folder.mkdir(exist_ok=True)
    (folder / "video_info.json").write_text(json.dumps(INFO))
    for split, text in files.items():
        (folder / f"cooking_{split}_0.txt").write_text(text)
    return folder


@pytest.fixture
def tacos(tmp_path: Path) -> Path:
    train = "s1-d2.avi_294_588:He cuts.# #He cuts.#She  stirs: twice.#\n\ns1-d2.avi_0_147:He waits.\n"
    return corpus(tmp_path / "tacos", train=train, test="s3-d4.avi_25_50:Salt.#\n")


def test_tacos(tacos: Path) -> None:
    """Catches: frames taken for seconds, blank pieces kept, equal sentences merged, a colon that cuts a sentence."""
    first, second, third = read_clips("tacos", tacos)
    assert first == Clip("s1-d2_294_588", "s1-d2", 10.0, 20.0, ("He cuts.", "He cuts.", "She stirs: twice."), "train")
    assert (second.start, second.end, second.split) == (0.0, 5.0, "train")
    assert (third.clip_id, third.start, third.end, third.split) == ("s3-d4_25_50", 1.0, 2.0, "test")


def test_tacos_joins_equal_intervals(tmp_path: Path) -> None:
    """Catches: two clips of one id, or references lost, when an interval has two lines."""
    root = corpus(tmp_path, val="s1-d2.avi_1_2:One.\ns1-d2.avi_3_4:Other.\ns1-d2.avi_1_2:Two.\n")
    assert [(clip.clip_id, clip.sentences) for clip in read_clips("tacos", root)] == [
        ("s1-d2_1_2", ("One.", "Two.")),
        ("s1-d2_3_4", ("Other.",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s1-d2.avi_1_2 He cuts.", r"train_0\.txt, line 2: expected 'video\.avi_start_end:sentence#sentence', found"),
        ("s1-d2.avi_1_x:He cuts.", r"line 2: expected"),
        ("s1-d2.avi_9_2:He cuts.", r"line 2: the clip runs from 9 to 2; the end must not lie before the start"),
        (f"s1-d2.avi_1_{'9' * 5000}:He cuts.", r"line 2: start and end are frames, whole numbers"),
        ("s9-d9.avi_1_2:He cuts.", r"line 2: video s9-d9 is not in video_info\.json"),
        ("s1-d2.avi_1_2: # #", r"line 2: s1-d2_1_2 has no sentence"),
    ],
)
def test_tacos_damage_is_explained(tmp_path: Path, line: str, message: str) -> None:
    root = corpus(tmp_path, train=f"s1-d2.avi_5_6:He cuts.\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_clips("tacos", root)


def test_tacos_files_are_explained(tmp_path: Path, tacos: Path) -> None:
    """Catches: a video in two splits, which makes the test easier than life, and silent absence of files."""
    with pytest.raises(DataError, match="no such folder"):
        read_clips("tacos", tmp_path / "nowhere")
    (tacos / "cooking_val_1.txt").write_text("s3-d4.avi_1_2:Salt.\n")
    with pytest.raises(
        DataError, match=r"val_1\.txt, line 1: s3-d4 is in val, but .*test_0\.txt, line 1 has it in test"
    ):
        read_clips("tacos", tacos)
    (tacos / "cooking_val_1.txt").write_bytes(b"s1-d2.avi_1_2:Caf\xe9.\n")
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        read_clips("tacos", tacos)
    for bad, message in (
        ("[1]", "expected a JSON object"),
        ('{"a": 0}', "number above 0, found 0"),
        ("{", "not valid JSON"),
    ):
        (tacos / "video_info.json").write_text(bad)
        with pytest.raises(DataError, match=message):
            read_clips("tacos", tacos)
    (tacos / "video_info.json").unlink()
    with pytest.raises(DataError, match=r"no video_info\.json with the frames per second"):
        read_clips("tacos", tacos)
    with pytest.raises(DataError, match="no sentence files here"):
        read_clips("tacos", corpus(tmp_path / "empty"))


def test_tacos_json(tmp_path: Path) -> None:
    """Catches: frames and seconds mixed up, references of one interval in different clips."""
    item = {"timestamps": [[25, 50], [60, 75], [25, 50]], "sentences": ["One.", "Two.", "Three."], "num_frames": 80}
    (tmp_path / "train.json").write_text(json.dumps({"s3-d4.avi": item | {"fps": 25}}))
    (tmp_path / "val_1.json").write_text(
        json.dumps({"v_x": {"timestamps": [[0.5, 2]], "sentences": ["Four."], "duration": 9.5}})
    )
    first, second, third = read_clips("tacos-json", tmp_path)
    assert first == Clip("s3-d4_25_50", "s3-d4", 1.0, 2.0, ("One.", "Three."), "train")
    assert (second.start, second.end) == (2.4, 3.0)
    assert third == Clip("v_x_0.5_2", "v_x", 0.5, 2.0, ("Four.",), "val")
    assert read_clips("tacos-json", tmp_path / "val_1.json") == [third]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([], "s: expected an object with timestamps and sentences"),
        ({"timestamps": [[1, 2]], "sentences": []}, "must be lists of one length"),
        ({"timestamps": [[1, 2]], "sentences": ["a"], "fps": 0}, "number above 0, found 0"),
        ({"timestamps": [[1]], "sentences": ["a"]}, r"sentence 0: expected \[start, end\] and a text"),
        ({"timestamps": [[True, 2]], "sentences": ["a"]}, "start and end must be numbers"),
        ({"timestamps": [[3, 2]], "sentences": ["a"]}, "runs from 3 to 2"),
        ({"timestamps": [[0, 10**400]], "sentences": ["a"]}, "runs from 0 to 1000"),
        ({"timestamps": [[0, float("inf")]], "sentences": ["a"]}, "runs from 0 to inf"),
        ({"timestamps": [[1, 2]], "sentences": ["a"], "fps": 10**400}, "number above 0, found 1000"),
        ({"timestamps": [[1, 2]], "sentences": ["a"], "fps": 5e-324}, "number above 0, found 5e-324"),
        ({"timestamps": [[1, 2]], "sentences": ["a"], "duration": -(10**400)}, "the video ends at -1000"),
        (
            {"timestamps": [[9, 12]], "sentences": ["a"], "fps": 5, "num_frames": 9},
            "starts at 9, but the video ends at 9",
        ),
    ],
)
def test_tacos_json_damage_is_explained(tmp_path: Path, item: object, message: str) -> None:
    (tmp_path / "test.json").write_text(json.dumps({"s": item}))
    with pytest.raises(DataError, match=message):
        read_clips("tacos-json", tmp_path)


def test_tacos_multilevel(tmp_path: Path) -> None:
    """Catches: the levels of one interval merged into one clip, and a column read by its place."""
    root = corpus(tmp_path)
    (root / "levels_test.tsv").write_text(
        "level\tvideo\tstart\tend\tsentence\n"
        "detailed\ts3-d4.avi\t25\t50\tHe cuts.\nshort\ts3-d4\t25\t50\tHe cooks.\ndetailed\ts3-d4\t25\t50\tHe slices.\n"
    )
    detailed, short = read_clips("tacos-multilevel", root)
    assert (detailed.level, detailed.sentences, detailed.end) == ("detailed", ("He cuts.", "He slices."), 2.0)
    assert (short.level, short.sentences, short.split) == ("short", ("He cooks.",), "test")
    assert detailed.clip_id == "s3-d4_25_50_detailed"
    table = tmp_path / "all.csv"
    table.write_text('video,start,end,level,sentence,split\ns3-d4,25,50,single,"He, too, cooks.",dev\n')
    (clip,) = read_clips("tacos-multilevel", table)
    assert (clip.clip_id, clip.sentences, clip.split) == ("s3-d4_25_50", ("He, too, cooks.",), "val")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s3-d4,25,50,long,He cuts.,test", "line 2: unknown level 'long'; use detailed, short, single"),
        ("s3-d4,25,50,short,He cuts.", "line 2: expected 6 columns, found 5"),
        ("s3-d4,2.5,50,short,He cuts.,test", r"line 2: start and end are frames, whole numbers; found '2\.5'"),
        ("s3-d4,25,50,short,He cuts.,tset", "line 2: unknown split 'tset'"),
        ('s3-d4,25,50,short,"He cuts.,test', r"line \d: unexpected end of data"),
    ],
)
def test_tacos_multilevel_damage_is_explained(tmp_path: Path, row: str, message: str) -> None:
    (corpus(tmp_path) / "all.csv").write_text(f"video,start,end,level,sentence,split\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_clips("tacos-multilevel", tmp_path)
    (tmp_path / "all.csv").write_text("video,start,end,sentence\n")
    with pytest.raises(DataError, match="line 1: no column level; the first line names video, start, end"):
        read_clips("tacos-multilevel", tmp_path)


LABELED = Clip("v_1_2", "v", 0.1, 0.2, ("A – b.", "A – b."), "test", "short", ("cut", NULL, "kiwi", NULL, "half"))


def test_clips_come_back_as_written(tmp_path: Path) -> None:
    """Catches: lists for tuples, lost levels, and NULL labels confused with labels that nobody knows."""
    clips = [LABELED, replace(LABELED, clip_id="w", labels=None, level="detailed", split="train")]
    write_clips(tmp_path / "clips.jsonl", clips)
    assert read_clips("clips", tmp_path) == clips
    assert read_clips("clips", tmp_path / "clips.jsonl") == clips
    head = json.loads((tmp_path / "clips.jsonl").read_text().splitlines()[0])
    assert head == {"format": "captioner-clips", "version": 1, "nodes": list(NODES)}


def test_a_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    labels = ("cut", "knife", "carrot", NULL, "board")
    cut = "He cuts a carrot."
    assert read_clips("clips", Path(__file__).parents[1] / "fixtures" / "clips-v1.jsonl") == [
        Clip("s1_0_9", "s1", 0.0, 9.0, (cut, cut), "train", "short", labels),
        Clip("s1_9_20#1", "s1", 9.0, 20.5, ("Il prend le café.",), "test"),
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SECONDS = st.floats(0, 1e6)
LABELS = st.none() | st.tuples(*[TEXT] * len(NODES))


@st.composite
def any_clips(draw: st.DrawFn) -> list[Clip]:
    """Clips with unique ids and any other text, line separators of Unicode included."""
    clips = []
    for clip_id in draw(st.lists(TEXT, unique=True, min_size=1, max_size=4)):
        start, end = sorted([draw(SECONDS), draw(SECONDS)])
        sentences, split = tuple(draw(st.lists(TEXT, max_size=3))), draw(st.sampled_from(SPLITS))
        clips.append(Clip(clip_id, draw(TEXT), start, end, sentences, split, draw(TEXT), draw(LABELS)))
    return clips


@settings(max_examples=80)
@given(any_clips())
def test_any_clips_survive_the_file(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> None:
    """Would catch a line that is split within a sentence, and floats that are rounded."""
    path = tmp_path_factory.mktemp("clips") / "clips.jsonl"
    write_clips(path, clips)
    assert read_clips("clips", path) == clips


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["cut", "-"]}, "labels is null or a list of 5 texts: activity, tool, object, source, target"),
        ({"labels": ["cut", "-", 3, "-", "-"]}, "labels is null or a list"),
        ({"split": "tset"}, "unknown split 'tset'"),
        ({"sentences": "He cuts."}, "sentences is a list of texts"),
        ({"end": "later"}, "start and end must be numbers"),
        ({"end": float("nan")}, "runs from 0.1 to nan"),
        ({"end": 10**400}, "runs from 0.1 to 1000"),
        ({"lables": None}, "unknown lables; a clip has"),
    ],
)
def test_clip_file_damage_is_explained(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "clips.jsonl"
    write_clips(path, [LABELED])
    head, line = path.read_text().splitlines()
    path.write_text(f"{head}\n{json.dumps(json.loads(line) | change)}\n")
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        read_clips("clips", path)


def test_clip_file_as_a_whole_is_checked(tmp_path: Path) -> None:
    """Catches: a file of another format or version read by guess, and an id that names two clips."""
    path = tmp_path / "clips.jsonl"
    for text in ("", "[]\n", '{"format": "captioner-clips", "version": 2}\n'):
        path.write_text(text)
        with pytest.raises(DataError, match="line 1: "):
            read_clips("clips", path)
    write_clips(path, [LABELED, LABELED])
    with pytest.raises(DataError, match="duplicate clip id v_1_2"):
        read_clips("clips", path)
    write_clips(path, [])
    with pytest.raises(DataError, match="holds no clips"):
        read_clips("clips", path)


@pytest.mark.parametrize("format", CLIP_READERS)
def test_every_reader_explains_an_absent_folder(format: str, tmp_path: Path) -> None:
    """Catches: a registry line that names no function, and a traceback for the commonest slip."""
    with pytest.raises(DataError, match="nowhere"):
        read_clips(format, tmp_path / "nowhere")


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip format 'taco'; did you mean tacos"):
        read_clips("taco", tmp_path)


@pytest.mark.shared_data
def test_the_corpus_is_read_whole(shared_data: Path) -> None:
    """Catches: lines or sentences lost. Counted with grep, tr and wc over the three files (75, 27 and 25 videos)."""
    clips = read_clips("tacos", shared_data / "tacos")
    assert Counter(clip.split for clip in clips) == {"train": 1604, "val": 964, "test": 722}
    videos = {split: {clip.video for clip in clips if clip.split == split} for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in videos.items()} == {"train": 75, "val": 27, "test": 25}
    assert sum(len(clip.sentences) for clip in clips) == 18818
