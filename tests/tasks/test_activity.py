"""The task ``activity``: from stores of frame features to a recognizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.motion import FRAMES, MODELS, SIDE, score, write_problem
from captioner.config import Experiment
from captioner.errors import ConfigError, DataError
from captioner.experiment import load_experiment, parse_experiment
from captioner.features.spec import FeatureSpec
from captioner.features.store import FeatureStore
from captioner.features.video_spec import VideoSpec
from captioner.features.writer import FeatureWriter
from captioner.tasks.activity import ActivityData, activity_loss, build_classifier, load_activity
from captioner.tasks.base import Learner

PIXELS = 3 * SIDE**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_problem(tmp_path, "direction", 20, 6)
    return tmp_path


def experiment(folder: Path, model: dict[str, Any] | None = None, **data: Any) -> Experiment:
    data = {"format": "tsv", "root": str(folder), "features": [str(folder / "features.h5")], "dev_share": 0.2} | data
    model = {"hidden_dim": 4, "window": 10} | (model or {})
    values = {"task": "activity", "model": model, "data": data, "output": str(folder / "run")}
    return parse_experiment(values | {"train": {"batch_size": 8}}, "test")


def data_of(folder: Path, **data: Any) -> ActivityData:
    return load_activity(experiment(folder, **data))


@pytest.mark.parametrize("problem", ["direction", "rotation"])
def test_what_only_motion_tells(tmp_path: Path, problem: str) -> None:
    """Single frames of both classes are alike. Would catch a loss, an order of frames or labels that are wrong."""
    write_problem(tmp_path, problem, 128, 64)
    found = {name: score(tmp_path, MODELS[name], hidden=32, epochs=30) for name in ("single frame", "LRCN")}
    assert found["single frame"] < 70 and found["LRCN"] >= 95, found


def test_batches_are_a_function_of_seed_and_epoch(folder: Path) -> None:
    """Would catch a resumed run, or one on two processes, that sees other clips than one process without a break."""
    data = data_of(folder)
    whole = list(data.batches(3))
    assert len(whole) == len(data) == 2 and sum(map(len, whole)) == len(data.train_rows) == 16
    [resumed] = data.batches(3, skip=1)
    assert torch.equal(resumed.videos, whole[1].videos) and torch.equal(resumed.starts, whole[1].starts)
    shares = [next(data.batches(3, rank=rank, size=2)) for rank in (0, 1)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.starts, whole[0].starts[rank::2])
        assert torch.equal(share.videos, whole[0].videos[rank::2])
    assert not torch.equal(next(data.batches(4)).videos, whole[0].videos)
    starts = torch.cat([batch.starts for epoch in range(20) for batch in data.batches(epoch)])
    assert set(starts.tolist()) == set(range(FRAMES - 10 + 1)), "every clip of a video is trained on"


def test_the_loss_is_at_every_frame_of_the_clip(folder: Path) -> None:
    """Would catch a loss of the last frame alone, frames before the clip's start, and a mean over the batch."""
    data = data_of(folder)
    torch.manual_seed(0)
    model = build_classifier(data.config, data.inputs, data.outputs).eval()
    batch = next(data.batches(0))
    loss = activity_loss(Learner(model), batch)
    expected = torch.zeros(())
    for video, start, label in zip(batch.videos, batch.starts.tolist(), batch.labels, strict=True):
        logits = model(video[None, start : start + 10])[0]  # (10, 2)
        expected += torch.stack([functional.cross_entropy(frame, label) for frame in logits]).mean()
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 8


def test_a_video_shorter_than_a_clip(folder: Path) -> None:
    """The released code fails on videos of fewer than 16 frames."""
    longer = experiment(folder, {"window": 40})
    data = load_activity(longer)
    model = build_classifier(longer.config, data.inputs, data.outputs)
    batch = next(data.batches(0))
    assert not batch.starts.any() and activity_loss(Learner(model), batch).total.isfinite()
    assert model.predict(batch.videos).shape == (8, 2)


def test_mirrored_stores_are_used_for_half_of_the_clips(folder: Path) -> None:
    """Would catch mirrored features of other videos, and the same choice in every epoch."""
    features = FeatureStore(folder / "features.h5")
    with FeatureWriter(folder / "mirrored.h5", features.spec, mirrored=True) as writer:
        for name in features.ids:
            writer.add(name, -features.get([name])[0])
    data = data_of(folder, features_mirrored=[str(folder / "mirrored.h5")])
    known = {tuple(video[:, 5].tolist()) for video in data.features[data.train_rows].float()}
    seen = [tuple(video[:, 5].tolist()) for epoch in range(10) for b in data.batches(epoch) for video in b.videos]
    turned = [one not in known for one in seen]
    assert all(one in known or tuple(-value for value in one) in known for one in seen)
    assert 0.3 < np.mean(turned) < 0.7
    with pytest.raises(ConfigError, match="data.features_mirrored are not of the same features"):
        write_store(folder / "other.h5", VideoSpec(key="x", dimension=3, frames=FRAMES, size=8), mirrored=True)
        data_of(folder, features_mirrored=[str(folder / "other.h5")])


def write_store(path: Path, spec: FeatureSpec, **options: Any) -> Path:
    with FeatureWriter(path, spec, **options) as writer:
        for number in range(26):
            writer.add(f"{number}.mp4", np.full(spec.shape, number, np.float32))
    return path


def test_two_stores_are_side_by_side(folder: Path) -> None:
    """RGB and flow in one model: would catch frames of one beside other frames of the other."""
    spec = VideoSpec(key="x", dimension=5, frames=FRAMES, size=8, flow="dis")
    other = write_store(folder / "flow.h5", spec)
    data = data_of(folder, features=[str(folder / "features.h5"), str(other)])
    assert data.features.shape == (20, FRAMES, PIXELS + 5) and [one.stream for one in data.inputs] == ["RGB", "flow"]
    assert (data.features[3, :, PIXELS:] == 3).all()
    short = write_store(folder / "short.h5", VideoSpec(key="x", dimension=5, frames=7, size=8))
    with pytest.raises(ConfigError, match="16 frames of a video, .*short.h5 7; extract both"):
        data_of(folder, features=[str(folder / "features.h5"), str(short)])
    images = write_store(folder / "images.h5", FeatureSpec("x", 5))
    with pytest.raises(ConfigError, match="features of images, not of videos"):
        data_of(folder, features=[str(images)])


def test_unread_videos_are_left_out_and_named(folder: Path) -> None:
    features = FeatureStore(folder / "features.h5")
    with FeatureWriter(folder / "some.h5", features.spec) as writer:
        writer.plan(features.ids)
        for name in features.ids[2:]:
            writer.add(name, features.get([name])[0])
    data = data_of(folder, features=[str(folder / "some.h5")])
    assert len(data.features) == 18 and data.notes == ["2 videos could not be read and are left out"]


def test_pixels_are_changed_at_random(folder: Path) -> None:
    """Would catch changes of dev videos, and changes that a resumed run would draw anew."""
    spec = VideoSpec(key="pixels:64", dimension=3 * 64 * 64, frames=2, size=64)
    store = write_store(folder / "pixels.h5", spec)
    model = {"front": "pixels", "pooling": "last", "input_dropout": 0}
    one = experiment(folder, model, features=[str(store)], mirror=True, shift=4)
    data = load_activity(one)
    data.features[...] = torch.arange(3 * 64 * 64) % 251
    batches = [next(data.batches(0)).videos for _ in range(2)]
    assert torch.equal(*batches) and not torch.equal(batches[0][0], batches[0][1])
    assert build_classifier(one.config, data.inputs, data.outputs).predict(batches[0]).shape == (8, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.init_from=x"], "train.init_from: recognizers start from their features alone"),
        (["data.dev_share=0"], "set train.evaluate_every=40 like train.epochs"),
        (["data.shift=2"], "data.mirror and data.shift are for model.front pixels"),
        (["data.split=0"], "data.split: 0 is outside"),
        (["model.hiden_dim=3"], "did you mean hidden_dim"),
    ],
)
def test_settings_that_exclude_each_other(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment("activity", settings)


def test_data_that_is_missing(folder: Path) -> None:
    with pytest.raises(ConfigError, match="data.features is empty"):
        data_of(folder, features=[])
    text = (folder / "videos.tsv").read_text()
    (folder / "videos.tsv").write_text(text.replace("\ttrain", "\ttest"))
    with pytest.raises(DataError, match="no group of training videos can be held out"):
        data_of(folder)
