"""The encoder-decoder: the words of a label assignment become the state before the first word."""

from __future__ import annotations

import pytest
import torch

from captioner.errors import ConfigError
from captioner.models.encoder_decoder import BEGIN, PAD, EncoderDecoder
from captioner.models.lrcn import LRCNConfig

NAMES = ("activity=-", "activity=cut", "activity=take out", "object=-", "object=cutting board", "object=knife")
FEATURES = torch.eye(6)[[1, 2, 0, 2]] + torch.eye(6)[[5, 4, 3, 3]]
"""One-hot assignments (4, 6): cut knife; take out cutting board; nothing; take out."""


def build(cell: str = "lstm") -> EncoderDecoder:
    torch.manual_seed(0)
    config = LRCNConfig("encoder_decoder", "2e", cell, embedding_dim=5, hidden_dim=6, image_dim=0, normalize="none")
    return EncoderDecoder(config, 9, len(NAMES), NAMES).eval()


def test_the_encoder_reads_words_in_the_order_of_nodes() -> None:
    numbers = {word: i + 2 for i, word in enumerate(["board", "cut", "cutting", "knife", "out", "take"])}
    words, lengths = build().encoder.read(FEATURES)
    wanted = [["cut", "knife"], ["take", "out", "cutting", "board"], [], ["take", "out"]]
    for row, sentence in enumerate(wanted):
        assert int(lengths[row]) == len(sentence) + 1
        assert words[row].tolist() == [BEGIN, *(numbers[w] for w in sentence), *[PAD] * (4 - len(sentence))]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_batch_encodes_as_its_rows_do_alone(cell: str) -> None:
    """Would catch padding that enters the state."""
    model = build(cell)
    together = model.start(FEATURES).stack
    for row in range(len(FEATURES)):
        for ours, alone in zip(together, model.start(FEATURES[row : row + 1]).stack, strict=True):
            torch.testing.assert_close(ours[row], alone[0])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_training_and_decoding_are_one_model(cell: str) -> None:
    """Would catch a decoder whose first state is the encoder's in one of the two only."""
    model = build(cell)
    tokens = torch.tensor([[1, 4, 5, 6]] * len(FEATURES))
    whole = model(FEATURES, tokens).log_softmax(-1)
    state = model.start(FEATURES)
    for position in range(tokens.shape[1]):
        step, state = model.step(tokens[:, position], state)
        torch.testing.assert_close(step[:, 4:], whole[:, position, 4:])
    assert not torch.allclose(whole[0], whole[1]), "the state must depend on the labels"


def test_an_encoder_without_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="FILE@map"):
        EncoderDecoder(LRCNConfig("encoder_decoder", "2e", image_dim=0, normalize="none"), 9, 4)
    with pytest.raises(ConfigError, match=r"model\.normalize"):
        LRCNConfig("encoder_decoder")
