"""Captioning clips: label predictions as features, and the encoder that reads their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.config import ModelConfig
from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.errors import ConfigError
from captioner.features.label_predictions import open_store
from captioner.models.encoder_decoder import BEGIN, PAD
from captioner.models.lrcn import ImageCaptioner

LABELS = {"activity": ("-", "cut", "take out"), "object": ("-", "cutting board", "knife")}
NAMES = tuple(f"{node}={label}" for node, labels in LABELS.items() for label in labels)
ASSIGNMENTS = [(1, 2), (2, 1), (0, 0), (2, 0)]  # cut knife; take out cutting board; nothing; take out


def predictions(probability: float = 0.7) -> LabelPredictions:
    nodes = {}
    for column, (node, labels) in enumerate(LABELS.items()):
        best = np.array([assignment[column] for assignment in ASSIGNMENTS])
        rest = (1 - probability) / (len(labels) - 1)
        table = np.where(np.eye(len(labels))[best] > 0, probability, rest)
        nodes[node] = NodePredictions(labels, np.log(table).astype(np.float32), best)
    return LabelPredictions(list("abcd"), nodes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_label_predictions(tmp_path / "p.h5", predictions())
    return tmp_path / "p.h5"


def encoder_decoder(cell: str = "lstm", seed: int = 0) -> ImageCaptioner:
    torch.manual_seed(seed)
    config = ModelConfig(wiring="2e", encoder=True, cell=cell, embedding=5, hidden=6, image=0, normalize="none")
    return ImageCaptioner(config, 9, len(NAMES), NAMES).eval()


def test_the_encoder_reads_words_in_the_order_of_nodes(file: Path):
    encoder = encoder_decoder().encoder
    assert encoder is not None
    numbers = {word: i + 2 for i, word in enumerate(["board", "cut", "cutting", "knife", "out", "take"])}
    words, lengths = encoder.read(torch.from_numpy(open_store(f"{file}@map").get(list("abcd"))))
    wanted = [["cut", "knife"], ["take", "out", "cutting", "board"], [], ["take", "out"]]
    for row, sentence in enumerate(wanted):
        assert int(lengths[row]) == len(sentence) + 1
        assert words[row].tolist() == [BEGIN, *(numbers[w] for w in sentence), *[PAD] * (4 - len(sentence))]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_batch_encodes_as_its_rows_do_alone(cell: str):
    """Would catch padding that enters the state."""
    model = encoder_decoder(cell)
    features = torch.from_numpy(predictions().vector("map"))
    together = model.start(features).stack
    for row in range(len(features)):
        for ours, alone in zip(together, model.start(features[row : row + 1]).stack, strict=True):
            torch.testing.assert_close(ours[row], alone[0])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_training_and_decoding_are_one_model(cell: str):
    """Would catch a decoder whose first state is the encoder's in one of the two only."""
    model = encoder_decoder(cell)
    features = torch.from_numpy(predictions().vector("map"))
    tokens = torch.tensor([[1, 4, 5, 6]] * len(features))
    whole = model(features, tokens).log_softmax(-1)
    state = model.start(features)
    for position in range(tokens.shape[1]):
        step, state = model.step(tokens[:, position], state)
        torch.testing.assert_close(step[:, 4:], whole[:, position, 4:])
    assert not torch.allclose(whole[0], whole[1]), "what the encoder read must matter"


def test_an_encoder_without_labels_is_refused():
    with pytest.raises(ConfigError, match="FILE@map"):
        ImageCaptioner(ModelConfig(wiring="2e", encoder=True, image=0, normalize="none"), 9, 4)
    with pytest.raises(ConfigError, match=r"model\.normalize"):
        ModelConfig(encoder=True)
