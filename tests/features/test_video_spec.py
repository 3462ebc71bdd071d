"""Features of videos: what is recorded of them, and that a store holds what a backbone sees."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")
pytest.importorskip("cv2", reason="needs the extra flow")

from captioner.backbones.spec import BackboneSpec, normalize
from captioner.cli.app import main
from captioner.data.images import find_named
from captioner.data.video import VIDEOS, Frame, Moment
from captioner.errors import BackboneError, FeatureStoreError
from captioner.features.extract import extract
from captioner.features.spec import read_spec
from captioner.features.store import FeatureStore
from captioner.features.video_spec import VideoSpec, clip_views, video_views, view_of
from tests.data.test_flow import texture
from tests.features.fakes import tiny_backbone
from tests.videos import COLORS, plain, save_sound, save_video


def moment(before: np.ndarray, after: np.ndarray, seconds: float = 1 / 30) -> Moment:
    first, second = (Frame(start, start + seconds, None, 1.0, None) for start in (0.0, seconds))
    for frame, image in ((first, before), (second, after)):
        object.__setattr__(frame, "image", lambda image=image: image)
    return Moment(first, (first, second))


def backbone_spec(size: int = 48) -> BackboneSpec:
    return BackboneSpec(key="pixels:48", size=size, resize="squash", dimension=3 * size * size)


def walk(path: Path, steps: int = 12, speed: int = 4) -> Path:
    """A texture that moves to the right by ``speed`` pixels every 40 ms."""
    image = texture(48, 64)
    return save_video(path, [(40 * i, np.roll(image, speed * i, 1)) for i in range(steps)])


def test_a_spec_survives_its_file() -> None:
    """Would catch a digest that ignores the flow, its units, the brightness or the number of frames."""
    spec = VideoSpec.of(backbone_spec(), 8, gamma=0.45, flow="dis")
    assert read_spec(spec.to_dict()) == spec and spec.shape == (8, 3 * 48 * 48)
    assert spec.flow_quantizer == (16.0, 240.0, 30.0) and spec.backbone == backbone_spec()
    others = [
        replace(spec, gamma=1.0),
        replace(spec, flow="farneback"),
        replace(spec, frames=9),
        replace(spec, size=40),
    ]
    others.append(VideoSpec.of(backbone_spec(), 8, gamma=0.45))
    assert len({one.digest for one in (spec, *others)}) == 6
    assert (spec.stream, others[-1].stream) == ("flow", "RGB")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "0 frames of a video"),
        ({"gamma": 0.0}, "gamma 0.0 is outside"),
        ({"flow": "tvl1"}, "'tvl1' is not one of dis, farneback"),
        ({"flow": "dis", "flow_quantizer": (20.0, 240.0, 30.0)}, "flow_quantizer .* is not that of this release"),
    ],
)
def test_a_wrong_spec_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        read_spec(VideoSpec.of(backbone_spec(), 8).to_dict() | change)


def test_views_of_frames() -> None:
    """Would catch gamma after the scaling to the network's input, or on the wrong scale."""
    dark = np.full((48, 48, 3), 51, np.uint8)  # a fifth of white
    spec = VideoSpec.of(backbone_spec(), 1, gamma=0.5)
    assert view_of(spec)(moment(dark, dark)).tolist() == np.full((48, 48, 3), 114).tolist()
    image = texture(48, 48)
    assert np.array_equal(view_of(VideoSpec.of(backbone_spec(), 1), mirror=True)(moment(image, image)), image[:, ::-1])


def test_the_flow_of_a_mirrored_video_goes_the_other_way() -> None:
    """The released code mirrors flow images without changing the sign of x."""
    image = texture(48, 48)
    seen = moment(image, np.roll(image, 2, 1))
    own, mirrored = (view_of(VideoSpec.of(backbone_spec(), 1, flow="dis"), mirror)(seen) for mirror in (False, True))
    inside = slice(12, -12)
    assert np.median(own[inside, inside, 0]) > 240 and np.median(mirrored[inside, inside, 0]) < 16
    flipped = np.stack([np.clip(256 - own[:, ::-1, 0].astype(int), 0, 255), own[:, ::-1, 1], own[:, ::-1, 2]], 2)
    assert np.abs(mirrored.astype(int) - flipped).max() <= 1


def test_clips_of_a_video(tmp_path: Path) -> None:
    """Would catch frames of the clip before, and a video of a few frames that gives fewer than asked for."""
    colors = ("red", "gray", "blue", "white")
    path = save_video(tmp_path / "a.mp4", [(500 * i, plain(color)) for i, color in enumerate(colors)])
    spec = VideoSpec.of(backbone_spec(8), 5)
    clips = [views[0] for views in clip_views(path, [0.0, 1.0, 2.0], [spec])]
    assert [clip.shape for clip in clips] == [(5, 8, 8, 3)] * 2
    pixels = np.concatenate(clips)[:, 4, 4].astype(int)  # (10, 3)
    shown = [min(colors, key=lambda name: int(np.abs(pixel - COLORS[name]).sum())) for pixel in pixels]
    assert shown == ["red"] * 2 + ["gray"] * 3 + ["blue"] * 2 + ["white"] * 3


@pytest.mark.parametrize(("flow", "mirror", "workers"), [("", False, 0), ("dis", False, 2), ("farneback", True, 0)])
def test_a_store_holds_what_the_backbone_makes_of_each_frame(
    tmp_path: Path, flow: str, mirror: bool, workers: int
) -> None:
    """Would catch frames in another order, a mean over frames, videos mixed up by workers, and workers that wait for
    threads of the process that started them, which decoded videos before."""
    for number in range(3):
        walk(tmp_path / f"{number}.mp4", speed=2 * number)
    (tmp_path / "notes.txt").touch()
    backbone, output = tiny_backbone(), tmp_path / "a.h5"
    spec = VideoSpec.of(backbone.spec, 6, flow=flow)
    sources = list(find_named([str(tmp_path)], kind=VIDEOS))
    seen = {f"{number}.mp4": video_views(tmp_path / f"{number}.mp4", spec, mirror) for number in range(3)}
    report = extract(sources, backbone, output, video=spec, mirror=mirror, workers=workers, dtype="float32")
    assert (report.done, report.failed) == (3, [])
    store = FeatureStore(output, mirrored=mirror)
    assert store.spec == spec and store.ids == ["0.mp4", "1.mp4", "2.mp4"]
    with torch.no_grad():
        for name in store.ids:
            own = backbone(normalize(torch.from_numpy(seen[name]), backbone.spec))
            np.testing.assert_allclose(store.get([name])[0], own, rtol=1e-4, atol=1e-5)
    with pytest.raises(FeatureStoreError, match="has spec digest"):
        other = replace(spec, gamma=0.5)
        extract(sources, backbone, output, video=other, mirror=mirror, workers=0, dtype="float32")


def test_extract_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken, empty, audio-only and very short videos are named or read; the rest is finished, and resumed."""
    folder = tmp_path / "videos"
    folder.mkdir()
    walk(folder / "good.mp4")
    save_video(folder / "short.mp4", [(0, plain("red"))])
    save_sound(folder / "sound.mp4")
    (folder / "empty.avi").touch()
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:500])
    output = tmp_path / "a.h5"
    command = ["captioner", "extract", str(folder), "-b", "pixels:64", "--flow", "dis", "--frames", "4"]
    command += ["--workers", "0", "-o", str(output)]
    for added, there in ((2, 0), (0, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as leaving:
                main()
            assert leaving.value.code == 1
        errors = capsys.readouterr().err
        assert f"{added} added, {there} there already, 3 failed" in errors
        for name, reason in (("sound.mp4", "no video stream"), ("empty.avi", "is empty"), ("broken.mp4", "damaged")):
            assert any(name in line and reason in line for line in errors.splitlines()), name
    store = FeatureStore(output)
    assert sorted(store.ids) == ["good.mp4", "short.mp4"] and store.spec.shape == (4, 3 * 64 * 64)
    still = store.get(["short.mp4"])[0]
    assert (still == 128).all(), "a video of one frame does not move"
    assert len(store.unfinished) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gamma", "0.5"], "--gamma is for videos"),
        (["--frames", "2", "--crops", "10"], "--crops is for images"),
        (["--frames", "2", "--flow", "none"], "'none' is not one of dis, farneback"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["captioner", "extract", str(tmp_path), "-o", str(tmp_path / "a.h5"), *options])
    assert main() in (1, 2)
    assert message in capsys.readouterr().err
