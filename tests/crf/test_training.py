"""Training of CRFs on small synthetic data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.crf.clips import ClipArrays, group_folds
from captioner.crf.graph import GRAPHS
from captioner.crf.model import CRFConfig, load_crf, save_crf
from captioner.crf.predictions import evaluate
from captioner.crf.predictor import predict
from captioner.crf.training import (
    CRFTrainConfig,
    Epoch,
    conditional_log_likelihood,
    train_crf,
    train_with_folds,
)
from captioner.errors import ConfigError, DataError

LABELS = {"activity": ("cut", "wash", "peel"), "object": ("carrot", "plate")}
ALL = 10**6  # entries of a joint table: more than any here has


def make_clips(videos: int, seed: int, noise: float = 1.0) -> ClipArrays:
    """Three clips a video. Plates are washed alone; what is done to carrots is hard to see, but cut follows peel."""
    random = np.random.default_rng(seed)
    rows, names = [], []
    for video in range(videos):
        names += [f"v{seed}-{video}"] * 3
        rows += [(2, 0), (0, 0), (0, 0)] if random.random() < 0.5 else [(1, 1), (1, 1), (2, 0)]
    gold = np.array(rows)
    seen = np.concatenate([0.6 * np.eye(3)[gold[:, 0]], 2.0 * np.eye(2)[gold[:, 1]]], 1)
    features = (seen + noise * random.standard_normal(seen.shape)).astype(np.float32)
    return ClipArrays([f"{name}_{row}" for row, name in enumerate(names)], names, features, gold)


def quickly(**settings: object) -> CRFTrainConfig:
    return CRFTrainConfig(**{"epochs": 8, "batch_size": 30, "lr": 0.05, "weight_decay": 1.0, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> dict[str, ClipArrays]:
    return {"train": make_clips(40, 0), "dev": make_clips(20, 1), "test": make_clips(60, 2)}


@pytest.mark.parametrize(("graph", "chain"), [*((graph, False) for graph in GRAPHS), ("complete", True)])
@pytest.mark.parametrize("unary", ["linear", "mlp"])
def test_learning_with_every_graph(data: dict[str, ClipArrays], graph: str, chain: bool, unary: str) -> None:
    """Would catch a loss of the wrong sign, a model that is not the best epoch's, or that ignores its seed."""
    epochs: list[Epoch] = []
    config = CRFConfig(graph, chain, unary, hidden_dim=8)
    model = train_crf(config, quickly(), LABELS, data["train"], data["dev"], epochs.append)
    result = evaluate(predict(model, data["dev"], decode=False)[0], data["dev"].gold)
    assert epochs[-1].log_likelihood > epochs[0].log_likelihood
    assert result.log_prob == max(epoch.dev.log_prob for epoch in epochs if epoch.dev)
    assert result.accuracy["object"] > 0.75 and result.accuracy["activity"] > 0.5
    again = train_crf(config, quickly(), LABELS, data["train"], data["dev"])
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_pairs_and_time_tell_something(data: dict[str, ClipArrays]) -> None:
    """Would catch pairwise tables or transitions that are never learned: here they carry most of the knowledge."""
    results = {}
    for graph, chain in (("none", False), ("complete", False), ("complete", True)):
        model = train_crf(CRFConfig(graph, chain), quickly(epochs=25), LABELS, data["train"])
        results[graph, chain] = evaluate(predict(model, data["test"])[0], data["test"].gold)
    log_probs = [one.log_prob for one in results.values()]
    assert log_probs == sorted(log_probs) and log_probs[2] > log_probs[0] + 0.1
    assert results["complete", True].joint_accuracy > results["none", False].joint_accuracy


def test_the_likelihood_is_a_probability(data: dict[str, ClipArrays]) -> None:
    """Would catch a numerator and a denominator of different fields: over all labels the likelihoods sum to 1."""
    model = train_crf(CRFConfig("complete", max_joint_states=ALL), quickly(epochs=2), LABELS, data["train"])
    one = data["dev"].select(np.arange(1))
    total = 0.0
    for labels in itertools.product(range(3), range(2)):
        clips = ClipArrays(one.ids, one.videos, one.features, np.array([labels]))
        total += float(conditional_log_likelihood(model, clips).detach().exp())
    assert total == pytest.approx(1, abs=1e-5)
    half = ClipArrays(one.ids, one.videos, one.features, np.array([[1, -1]]))
    known = predict(model, one)[0].nodes["activity"].log_marginals[0, 1]
    assert float(conditional_log_likelihood(model, half).detach()) == pytest.approx(float(known), abs=1e-5)


def test_unknown_labels_are_summed_over_or_left_out(data: dict[str, ClipArrays]) -> None:
    """Would catch -1 read as the last label, and unlabeled clips that weaken the prior or the mean."""
    train = data["train"]
    gold = train.gold.copy()
    gold[::2, 0] = -1
    model = train_crf(CRFConfig("tree"), quickly(), LABELS, ClipArrays(train.ids, train.videos, train.features, gold))
    assert evaluate(predict(model, data["dev"])[0], data["dev"].gold).accuracy["activity"] > 0.5
    nothing = np.full_like(gold, -1)
    more = ClipArrays(
        [*train.ids, *(f"x{name}" for name in train.ids)],
        train.videos * 2,
        np.concatenate([train.features, train.features + 100]),
        np.concatenate([train.gold, nothing]),
    )
    with_unknown, without = (train_crf(CRFConfig("tree"), quickly(epochs=2), LABELS, one) for one in (more, train))
    assert torch.equal(with_unknown.output.weight, without.output.weight)
    with pytest.raises(DataError, match="no training clip has a label"):
        train_crf(CRFConfig(), quickly(), LABELS, ClipArrays(train.ids, train.videos, train.features, nothing))


def test_training_clips_get_out_of_fold_predictions(data: dict[str, ClipArrays], tmp_path: Path) -> None:
    """Would catch training clips predicted by a model that was trained on them, which is too confident."""
    names: set[str] = set()
    train = data["train"].select(np.arange(30))  # few clips, which are easy to overfit
    config = quickly(weight_decay=0.0, epochs=40)
    file = train_with_folds(CRFConfig(), config, LABELS, train, None, 3, lambda name, _: names.add(name))
    assert names == {"all", "fold 1/3", "fold 2/3", "fold 3/3"}
    save_crf(tmp_path / "crf.safetensors", file)
    file = load_crf(tmp_path / "crf.safetensors")
    out_of_fold, _ = predict(file, train)
    in_sample, _ = predict(file.model, train)
    rows = group_folds(train.videos, 3, 0)[1]
    own, _ = predict(file.folds[1].model, train.select(rows))
    found = out_of_fold.nodes["activity"].log_marginals[rows]
    assert np.allclose(found, own.nodes["activity"].log_marginals, atol=1e-5)
    assert evaluate(out_of_fold, train.gold).log_prob < evaluate(in_sample, train.gold).log_prob - 0.1


@pytest.mark.parametrize("settings", [{"seed": 2**64}, {"lr": float("inf")}, {"weight_decay": float("nan")}])
def test_numbers_that_train_nothing_are_refused(settings: dict[str, Any]) -> None:
    """Would catch a traceback of the generator for a seed of over 64 bits, and training to NaN."""
    with pytest.raises(ConfigError, match="is outside"):
        CRFTrainConfig(**settings)
