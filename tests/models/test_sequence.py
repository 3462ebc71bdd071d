"""Classifiers of sequences: clips of a video, poolings, cells, and controls."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional

from captioner.errors import ConfigError
from captioner.models.sequence import CELLS, INPUTS, POOLINGS, SequenceClassifier, SequenceConfig

CLASSES, SIZE = 3, 5


def model(**settings: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    return SequenceClassifier(SequenceConfig(hidden_dim=4, **settings), SIZE, CLASSES).eval()


def videos(count: int = 2, frames: int = 7) -> torch.Tensor:
    return torch.randn(count, frames, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, [0]), (15, [0]), (16, [0]), (17, [0, 1]), (24, [0, 8]), (25, [0, 8, 9]), (31, [0, 8, 15]), (32, [0, 8, 16])],
)
def test_every_tail_clip_counts_once_and_short_videos_are_one_clip(frames: int, starts: list[int]) -> None:
    """The released code adds the last clip again for each stride that passes the end, and fails below 16 frames."""
    found = model().starts(frames)
    assert found == starts and len(set(found)) == len(found)
    covered = {start + i for start in found for i in range(min(16, frames))}
    assert covered == set(range(frames)), "every frame is in a clip, and no clip leaves the video"


@pytest.mark.parametrize("frames", [3, 4, 9, 11])
def test_a_video_is_the_mean_over_frames_and_clips(frames: int) -> None:
    """Would catch logits averaged instead of probabilities, and a state kept between clips."""
    classifier = model(window=4, stride=3)
    batch = videos(2, frames)
    starts = [start for start in range(0, frames, 3) if start + 4 < frames] + [max(frames - 4, 0)]
    with torch.no_grad():
        for number, video in enumerate(batch):
            clips = []
            for start in starts:
                logits = classifier(video[None, start : start + 4])[0]
                clips.append(sum(functional.softmax(frame, 0) for frame in logits) / len(logits))
            expected = sum(clips) / len(clips)
            torch.testing.assert_close(classifier.predict(batch)[number], expected)
            torch.testing.assert_close(classifier.predict(video[None])[0], expected)


@pytest.mark.parametrize(("cell", "pooling", "both"), [*product(CELLS, POOLINGS, (False, True))])
def test_every_cell_and_pooling(cell: str, pooling: str, both: bool) -> None:
    """Would catch a pooling that mixes videos, and directions that are read at the wrong end."""
    if cell == "none" and pooling == "last":
        with pytest.raises(ConfigError, match="last is the last output of a recurrent layer"):
            model(cell=cell, pooling=pooling)
        return
    classifier = model(cell=cell, pooling=pooling, bidirectional=both)
    batch = videos()
    with torch.no_grad():
        logits = classifier(batch)
        assert logits.shape == (2, 7 if pooling == "frames" else 1, CLASSES)
        torch.testing.assert_close(classifier(batch[1:]), logits[1:])
        if cell == "none":
            return
        outputs, state = classifier.recurrent(batch)  # type: ignore[misc]
        last = state[0] if cell == "lstm" else state  # (directions, B, H)
        pooled = {"last": torch.cat(list(last), 1), "mean": outputs.mean(1), "frames": outputs[:, 2]}[pooling]
        torch.testing.assert_close(classifier.head(pooled), logits[:, 2 if pooling == "frames" else 0])


def test_inputs() -> None:
    """Would catch a mean over the batch, and differences that wrap around."""
    batch = videos()
    centered, normalized, difference = (model(input=name).change(batch) for name in INPUTS[1:])
    torch.testing.assert_close(centered, batch - batch.mean(1, keepdim=True))
    torch.testing.assert_close(normalized, centered / centered.square().mean((1, 2), keepdim=True).sqrt())
    assert not model(input="normalized").change(torch.ones(1, 3, SIZE)).any(), "a still video stays finite"
    assert not difference[:, 0].any()
    torch.testing.assert_close(difference[:, 3], batch[:, 3] - batch[:, 2])
    assert model(input="raw").change(batch) is batch


def test_without_recurrence_order_does_not_matter() -> None:
    """The controls: neither single frames nor their mean may see the order; an LSTM must."""
    batch = videos()
    for settings, sees_order in (({"cell": "none"}, False), ({"cell": "none", "pooling": "mean"}, False), ({}, True)):
        classifier = model(**settings)
        same = torch.allclose(classifier.predict(batch), classifier.predict(batch.flip(1)), atol=1e-6)
        assert same != sees_order, settings


def test_shuffled_frames_are_the_same_frames() -> None:
    """Would catch a shuffle across videos, one order for all videos, and a control that is off after training."""
    classifier = model(shuffle=True)
    batch = videos(3, 9)
    order = classifier._shuffled(batch)
    for before, after in zip(batch, order, strict=True):
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    places = [
        [before.tolist().index(frame) for frame in after.tolist()] for before, after in zip(batch, order, strict=True)
    ]
    assert places[0] != places[1] and torch.equal(classifier._shuffled(batch), order)
    assert not torch.equal(classifier.train()._shuffled(batch), order)


def test_statistics_are_those_of_the_changed_features() -> None:
    """Would catch statistics of the raw features, and parts that do not add up."""
    batch = videos(6)
    classifier = model(input="difference")
    classifier.set_statistics(batch.split(4))
    changed = classifier.change(batch).flatten(0, 1)
    torch.testing.assert_close(classifier.feature_mean, changed.mean(0))
    torch.testing.assert_close(classifier.feature_std, changed.std(0, correction=0))


def test_pixels_have_one_mean_for_each_channel() -> None:
    """The released code subtracts two different means of red, 128.68 and 123.68, in training and in testing."""
    pixels = torch.rand(2, 3, 3, 64 * 64) * 255
    pixels[:, :, 1] /= 2
    config = SequenceConfig(front="pixels", hidden_dim=4, pooling="last")
    classifier = SequenceClassifier(config, 3 * 64 * 64, CLASSES).eval()
    classifier.set_statistics([pixels.flatten(2)])
    torch.testing.assert_close(classifier.feature_mean, pixels.mean((0, 1, 3)))
    assert classifier.feature_mean.shape == (3,)
    seen: list[torch.Tensor] = []
    classifier.front.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for mode in (True, False):
        classifier.train(mode)(pixels.flatten(2))
    mean, deviation = classifier.feature_mean[:, None, None], classifier.feature_std[:, None, None]
    expected = (pixels.view(6, 3, 64, 64) - mean) / deviation
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(seen[0], seen[1])


def test_the_small_network_is_that_of_the_paper() -> None:
    """Convolutions of 16, 32, 64 and 64 maps, pooled by 4, 4, 2 and 2: 64 numbers of a frame for the LSTM."""
    config = SequenceConfig(front="pixels", hidden_dim=32, pooling="last", input_dropout=0, dropout=0)
    classifier = SequenceClassifier(config, 3 * 64 * 64, 6)
    sizes = {name: tuple(value.shape) for name, value in classifier.named_parameters() if "weight" in name}
    assert sizes == {
        "front.0.weight": (16, 3, 3, 3),
        "front.4.weight": (32, 16, 3, 3),
        "front.8.weight": (64, 32, 3, 3),
        "front.12.weight": (64, 64, 3, 3),
        "recurrent.weight_ih_l0": (128, 64),
        "recurrent.weight_hh_l0": (128, 32),
        "head.weight": (6, 32),
    }
    with pytest.raises(ConfigError, match="reads features of pixels:64"):
        SequenceClassifier(config, 1280, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "rnn"}, "model.cell: 'rnn' is not one of lstm, gru, none"),
        ({"input": "flow"}, "model.input: 'flow' is not one of"),
        ({"front": "pixels", "input": "centered"}, "centered is for features"),
        ({"input_dropout": 1.0}, "model.input_dropout: 1.0 is outside"),
        ({"window": 0}, "model.window: 0 is outside"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SequenceConfig(**settings)
