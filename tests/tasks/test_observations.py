"""Observations of training clips, and gold labels in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.data.clips import NODES, Clip, write_clips
from captioner.errors import ConfigError
from captioner.features.spec import FeatureSpec
from captioner.features.writer import FeatureWriter
from captioner.tasks.sentences.config import ClipDataConfig
from captioner.tasks.sentences.observations import Observations, open_observations

IDS = ["a", "b", "a~2", "a~3", "c"]
CLIPS = [("a#1", "cut"), ("a#2", "wash"), ("b", "wash"), ("c", None)]
LABELS = ("-", "cut", "wash")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Predictions whose rows are told apart by the probability of the activity, 0.1 to 0.5, and the clips."""
    nodes = {}
    for node in NODES:
        first = np.arange(1, 6) / 10 if node == "activity" else np.full(5, 0.9)
        table = np.stack([first, 1 - first - 0.05, np.full(5, 0.05)], 1)
        nodes[node] = NodePredictions(LABELS, np.log(table).astype(np.float32), np.zeros(5, np.int64))
    write_label_predictions(tmp_path / "p.h5", LabelPredictions(IDS, nodes))
    write_clips(
        tmp_path / "clips.jsonl",
        [Clip(name, name[0], 0, 1, ("x",), "train", labels=label and (label, *"----")) for name, label in CLIPS],
    )
    return tmp_path


def open_at(
    folder: Path, *kinds: str, share: tuple[float, ...] = (0.0, 0.0), steps: int = 10, most: int = 9
) -> Observations:
    features = tuple(f"{folder}/p.h5@{kind}" for kind in kinds)
    config = ClipDataConfig(root=str(folder / "clips.jsonl"), features=features, gold_share=share, observations=most)
    found = open_observations(config, [name for name, _ in CLIPS], steps)
    assert found is not None
    return found


def draw(observations: Observations, row: int, step: int = 0, times: int = 300) -> np.ndarray:
    """Vectors (times, D) of one row."""
    return observations(torch.full((times,), row), step, np.random.default_rng(0)).numpy()


def test_each_observation_of_the_clip_is_drawn_as_often(folder: Path) -> None:
    """Would catch the observations of a neighboring clip, a first one that is left out, and a limit that is ignored."""
    seen = draw(open_at(folder, "marginals"), 1)[:, 0]
    values, counts = np.unique(seen.round(3), return_counts=True)
    assert values == pytest.approx([0.1, 0.3, 0.4]) and counts.min() > 75
    assert set(draw(open_at(folder, "marginals"), 2)[:, 0].round(3)) == {np.float32(0.2)}
    assert set(draw(open_at(folder, "marginals", most=2), 0)[:, 0].round(3)) == {np.float32(0.1), np.float32(0.3)}


def test_a_sentence_may_have_observations_of_its_own(folder: Path) -> None:
    """Would catch predictions of one sentence that go to the others of its clip."""
    first = np.array([0.1, 0.2, 0.3, 0.4])
    table = np.log(np.stack([first, 1 - first], 1)).astype(np.float32)
    nodes = {node: NodePredictions(LABELS[:2], table, np.zeros(4, np.int64)) for node in NODES}
    write_label_predictions(folder / "p.h5", LabelPredictions(["a", "a#2", "a#2~2", "b"], nodes))
    write_clips(folder / "clips.jsonl", [Clip(f"a#{n}", "a", 0, 1, ("x",), "train") for n in (1, 2)])
    config = ClipDataConfig(root=str(folder / "clips.jsonl"), features=(f"{folder}/p.h5@marginals",))
    observations = open_observations(config, ["a#1", "a#2"], 10)
    assert observations is not None
    assert set(draw(observations, 0)[:, 0].round(3)) == {np.float32(0.1)}
    assert set(draw(observations, 1)[:, 0].round(3)) == {np.float32(0.2), np.float32(0.3)}


def test_observations_by_labels_are_those_of_clips_alike(folder: Path) -> None:
    """Would catch a clip's own observations kept where others say what its sentence says, clips of val, and sentences
    that no clip matches fully."""
    alike = {"a": "cut", "b": "wash", "c": "cut"}
    clips = [Clip(name, name, 0, 1, ("x",), "train", labels=(label, *"----")) for name, label in alike.items()]
    first = np.arange(1, 6) / 10
    table = np.log(np.stack([first, 0.95 - first, np.full(5, 0.05)], 1)).astype(np.float32)
    nodes = {node: NodePredictions(LABELS, table, np.zeros(5, np.int64)) for node in NODES}
    write_label_predictions(folder / "p.h5", LabelPredictions(["a", "b", "a~2", "c", "v"], nodes))
    val = Clip("v", "v", 0, 1, ("x",), "val", labels=("wash", *"----"))
    write_clips(folder / "clips.jsonl", [*clips, val])
    told = {"a#1": ("wash", *"----"), "a#2": ("cut", *"----"), "b#1": ("wash", "wash", *"---")}
    sentences = [Clip(name, name[0], 0, 1, ("x",), "train", labels=labels) for name, labels in told.items()]
    write_clips(folder / "sentences.jsonl", [*sentences, val])
    config = ClipDataConfig(
        root=str(folder / "sentences.jsonl"), features=(f"{folder}/p.h5@marginals",), observe_by="labels"
    )
    observations = open_observations(config, [*told, "v"], 10)
    assert observations is not None
    seen = [set(draw(observations, row)[:, 0].round(3).tolist()) for row in range(4)]
    expected = [{0.2}, {0.1, 0.3, 0.4}, {0.2}, {0.5}]
    assert [sorted(one) for one in seen] == [pytest.approx(sorted(one)) for one in expected]
    write_clips(folder / "clips.jsonl", [val])
    with pytest.raises(ConfigError, match="no label predictions for a training clip of .*clips.jsonl"):
        open_observations(config, [*told, "v"], 10)


def test_gold_labels_are_those_of_the_sentence(folder: Path) -> None:
    """Would catch labels of another sentence, gold labels of a clip that has none, and probabilities off 1."""
    both = open_at(folder, "map", "marginals", share=(1.0, 1.0))
    for row, label in ((0, 1), (1, 2), (2, 2)):
        expected = np.tile([1, 0, 0], 5)
        expected[:3] = np.eye(3)[label]
        assert (draw(both, row) == np.tile(expected, 2)).all()
    half = open_at(folder, "marginals", share=(0.5, 0.5))
    assert draw(half, 2)[0, :3] == pytest.approx([0.1, 0.375, 0.525])
    assert draw(half, 3)[0, :3] == pytest.approx([0.5, 0.45, 0.05])
    assert draw(half, 0).reshape(-1, 5, 3).sum(2) == pytest.approx(1)


def test_the_share_goes_from_the_first_step_to_the_last(folder: Path) -> None:
    """Would catch a schedule that starts over in each epoch, and a MAP assignment that is half one label."""
    observations = open_at(folder, "map", share=(1.0, 0.2))
    shares = [draw(observations, 0, step)[:, 1].mean() for step in (0, 5, 10, 20)]
    assert shares == pytest.approx([1, 0.6, 0.2, 0.2], abs=0.08)
    assert set(np.unique(draw(observations, 0, 5))) == {0, 1}


def test_both_kinds_are_of_one_observation(folder: Path) -> None:
    """Would catch a MAP assignment of one observation beside the probabilities of another."""
    both = draw(open_at(folder, "marginals", "marginals"), 0)
    assert (both[:, :15] == both[:, 15:]).all()


def test_what_cannot_be_mixed_is_refused(folder: Path) -> None:
    with FeatureWriter(folder / "f.h5", FeatureSpec("x", 2)) as writer:
        writer.add("a#1", np.zeros(2, np.float32))
    plain = ClipDataConfig(root=str(folder / "clips.jsonl"), features=(str(folder / "f.h5"),))
    assert open_observations(plain, ["a#1"], 1) is None
    with pytest.raises(ConfigError, match="mixed into label predictions"):
        open_observations(ClipDataConfig(features=plain.features, gold_share=(0.0, 1.0)), ["a#1"], 1)
    for share in ((0.5,), (0.0, 2.0)):
        with pytest.raises(ConfigError, match="data.gold_share"):
            ClipDataConfig(gold_share=share)
