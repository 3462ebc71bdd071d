"""``captioner recognize``, and the same from Python: from a folder of clips to labels for a new video."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")
pytest.importorskip("cv2", reason="needs the extra flow")

from captioner import load
from captioner.cli.app import main
from captioner.errors import CheckpointError, ImageError, UsageError
from captioner.features.store import FeatureStore
from captioner.predictors.activity import ActivityRecognizer, load_recognizer
from captioner.tasks.activity import read_features
from tests.conftest import Run
from tests.data.test_flow import texture
from tests.videos import save_sound, save_video


def walk(path: Path, speed: int, seed: int, steps: int = 12) -> Path:
    """A texture that moves by ``speed`` pixels every 40 ms."""
    path.parent.mkdir(exist_ok=True, parents=True)
    image = texture(48, 64, seed)
    return save_video(path, [(40 * i, np.roll(image, speed * i, 1)) for i in range(steps)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of textures that go to the left and to the right."""
    root = tmp_path_factory.mktemp("clips")
    for seed in range(8):
        for label, speed in (("left", -2), ("right", 2)):
            walk(root / "data" / label / f"{seed}.mp4", speed, seed)
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """The three commands of docs/recognize.md: extract, train, and the model for the third."""
    with pytest.MonkeyPatch.context() as patch:
        data, store, output = folder / "data", folder / "flow.h5", folder / "run"
        for command in (
            ["extract", data, "-b", "pixels:8", "--flow", "dis", "--frames", 4, "--workers", 0, "-o", store],
            ["train", "activity", *settings(data, store, output)],
        ):
            patch.setattr(sys, "argv", ["captioner", *map(str, command)])
            with pytest.raises(SystemExit) as leaving:
                main()
            assert not leaving.value.code
    return output


def settings(data: Path, store: Path, output: Path) -> list[str]:
    values = {"data.root": data, "data.features": store, "output": output, "data.dev_share": 0.2}
    values |= {"train.epochs": 40, "train.device": "cpu", "model.hidden_dim": 32, "train.precision": "float32"}
    values |= {"train.lr": 0.01, "model.input_dropout": 0.0}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def test_a_new_video_gets_its_label(model: Path, tmp_path: Path, cli: Run) -> None:
    """Would catch features of a video that differ from those of training: RGB for flow, or other frames."""
    for label, speed in (("left", -2), ("right", 2)):
        video = walk(tmp_path / "new" / f"{label}.mp4", speed, seed=99)
        status, lines, _ = cli("recognize", video, "--model", model)
        assert status == 0 and len(lines) == 2
        assert lines[0].split("\t")[0] == label and float(lines[0].split("\t")[1]) > 0.5
    status, lines, errors = cli("recognize", tmp_path / "new", "--model", model, "--top", 1)
    assert (status, errors) == (0, [])
    assert [line.split("\t")[:2] for line in lines] == [
        [str(tmp_path / "new" / f"{label}.mp4"), label] for label in ("left", "right")
    ]


def test_a_file_and_its_stored_feature_agree(model: Path, folder: Path) -> None:
    """Recognizing a file must be what training and evaluation see of it."""
    recognizer = load(model)
    assert isinstance(recognizer, ActivityRecognizer)
    store = FeatureStore(folder / "flow.h5")
    for name in store.ids[:3]:
        expected = recognizer.runtime.model.predict(read_features([store], [name]).float())[0].numpy()
        guesses = recognizer.recognize(folder / "data" / name, top=2)
        assert {one.name: one.probability for one in guesses} == pytest.approx(
            dict(zip(recognizer.classes, expected.tolist(), strict=True)), abs=2e-3
        )
    both = recognizer.recognize([folder / "data" / name for name in store.ids[:2]], top=1)
    assert [len(one) for one in both] == [1, 1]
    with pytest.raises(ImageError, match="no such video file"):
        recognizer.recognize(folder / "none.mp4")
    with pytest.raises(UsageError, match="top \\(0\\)"):
        recognizer.recognize(folder / "none.mp4", top=0)


def test_clips_have_times(model: Path, tmp_path: Path, cli: Run) -> None:
    """Would catch the times of other clips, a last clip of a frame, and subtitles of another clip."""
    video = walk(tmp_path / "long.mp4", 2, seed=98, steps=55)  # 2.2 s
    frames = [(40 * i, np.roll(texture(48, 64, 98), 2 * i if i < 25 else 100 - 2 * i, 1)) for i in range(55)]
    save_video(video, frames)
    srt = tmp_path / "a.srt"
    arguments = ("recognize", video, "--model", model, "--per-clip", "--every", 1, "--top", 1, "--srt", srt)
    status, lines, _ = cli(*arguments)
    assert status == 0
    rows = [line.split("\t")[:3] for line in lines]
    assert [row[:2] for row in rows] == [["0.000", "1.000"], ["1.000", "2.200"]]
    assert {row[2] for row in rows} <= {"left", "right"}
    assert srt.read_text().startswith(f"1\n00:00:00,000 --> 00:00:01,000\n{rows[0][2]}\n")
    assert cli(*arguments)[0] == 0, "subtitles of before may be replaced"
    status, lines, _ = cli("recognize", video, "--model", model, "--per-clip", "--json", "--vtt", tmp_path / "a.vtt")
    [record] = map(json.loads, lines)
    assert (record["start"], record["end"], record["model"]) == (0, pytest.approx(2.2), str(model))
    assert sum(one["probability"] for one in record["activities"]) == pytest.approx(1, abs=1e-4)


def test_bad_videos_cost_only_themselves(model: Path, tmp_path: Path, cli: Run) -> None:
    """Broken, empty and audio-only videos are named; a video of one frame is recognized; the rest is finished."""
    folder = tmp_path / "videos"
    good = walk(folder / "good.mp4", 2, seed=97)
    (folder / "broken.mp4").write_bytes(good.read_bytes()[:500])
    (folder / "empty.mp4").touch()
    save_sound(folder / "sound.mp4")
    walk(folder / "short.mp4", 0, seed=1, steps=1)
    status, lines, errors = cli("recognize", folder, tmp_path / "none.mp4", "--model", model, "--top", 1)
    assert status == 1 and [Path(line.split("\t")[0]).name for line in lines] == ["good.mp4", "short.mp4"]
    for name, reason in (
        ("broken.mp4", "damaged"),
        ("empty.mp4", "the file is empty"),
        ("sound.mp4", "no video stream"),
        ("none.mp4", "no such video file"),
    ):
        assert any(line.startswith("error: ") and name in line and reason in line for line in errors), (name, errors)


def test_without_a_model_the_error_says_what_to_do(tmp_path: Path, cli: Run) -> None:
    status, lines, errors = cli("recognize", tmp_path / "a.mp4")
    assert (status, lines) == (2, [])
    [line] = errors
    assert "name one with --model, or train one on a folder of your own clips: docs/recognize.md" in line


def test_other_models_are_refused(tmp_path: Path, cli: Run) -> None:
    """Would catch a captioner that is asked for activities."""
    with pytest.raises(CheckpointError, match="trained for the task captioning, not for activity"):
        load_recognizer("default")
    status, _, errors = cli("recognize", tmp_path / "a.mp4", "--model", tmp_path / "none")
    assert status == 1 and "no such model" in errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--every", "2"], "add --per-clip"),
        (["--srt", "a.srt"], "add --per-clip"),
        (["--per-clip", "--every", "0"], "--every 0.0: choose 0.1 to 86400 seconds"),
        (["--per-clip", "--srt", "a.srt", "--model", "m"], "--srt and --vtt are for one video"),
    ],
)
def test_wrong_usage_is_one_line(options: list[str], message: str, tmp_path: Path, cli: Run) -> None:
    status, lines, errors = cli("recognize", tmp_path, *options)
    assert (status, lines, len(errors)) == (2, [], 1) and message in errors[0]


def test_the_web_page_says_the_same(model: Path, tmp_path: Path) -> None:
    """Would catch labels of other clips, and a page that captions frames although there is a recognizer."""
    pytest.importorskip("starlette", reason="needs the extra web")
    from captioner.web.app import Settings
    from tests.web.test_app import open_client

    film = walk(tmp_path / "long.mp4", 2, seed=98, steps=600)  # 24 s
    recognizer = load(model)
    wanted = list(recognizer.results([film], every=10))
    settings = Settings(tmp_path / "index", video_models=[recognizer])
    with open_client(load(), settings) as client:
        clips = client.post("/api/video", files={"video": film.read_bytes()}).json()["clips"]
        page = client.post("/caption", files={"image": film.read_bytes()}).text
    assert [(one["start"], one["end"]) for one in clips] == [one.interval for one in wanted] == [(0, 10), (10, 24)]
    labels = [[(label["name"], label["probability"]) for label in one["labels"]] for one in clips]
    assert labels == [[(guess.name, pytest.approx(guess.probability)) for guess in one.guesses] for one in wanted]
    assert "Activities" in page and "0:10–0:24" in page and "right" in page and "Captions" not in page
