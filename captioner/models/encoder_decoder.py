"""Encoder-decoder: an encoder reads the words of a label assignment, the decoder starts from its last state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.errors import ConfigError
from captioner.models.lrcn import LRCN
from captioner.models.stack import RecurrentStack, State

PAD, BEGIN = 0, 1
"""Ids of a missing source word, and of the one before all others: an assignment may have no words."""
NULL = "-"


class LabelEncoder(nn.Module):
    """Reads labels word by word with layers like the decoder's and passes on their last state (Sutskever et al. 2014).

    ``names`` are the names NODE=LABEL of the feature's D numbers. It reads the words of the labels whose number is
    above one half, in that order: the words of a one-hot assignment. The label ``-`` has no words.
    """

    words: Tensor

    def __init__(self, names: Sequence[str], stack: RecurrentStack, embedding: int) -> None:
        super().__init__()
        if not names:
            raise ConfigError(
                "model.architecture encoder_decoder reads labels, and the features have none; give FILE@map"
            )
        labels = [name.partition("=")[2] for name in names]
        split = [[] if label == NULL else label.split() for label in labels]
        numbers = {word: i + 2 for i, word in enumerate(sorted({word for label in split for word in label}))}
        longest = max(map(len, split), default=0) or 1
        table = [[numbers[word] for word in label] + [PAD] * (longest - len(label)) for label in split]
        self.register_buffer("words", torch.tensor(table), persistent=False)  # (D, longest): rebuilt from the names
        self.embedding = nn.Embedding(len(numbers) + 2, embedding)
        self.kind, hidden = stack.kind, stack.hidden
        sizes = [embedding, *[hidden] * (len(stack.layers) - 1)]
        self.layers = nn.ModuleList(self.kind.module(size, hidden) for size in sizes)

    def forward(self, features: Tensor) -> State:
        """From features (B, D), the state after the last word, in the form of ``RecurrentStack.start``."""
        source, lengths = self.read(features)
        sequence = pack_padded_sequence(self.embedding(source.t()), lengths.cpu(), enforce_sorted=False)
        state: list[Tensor] = []
        for layer in self.layers:
            sequence, last = layer(sequence)
            state += [part.squeeze(0) for part in (last if self.kind.states > 1 else (last,))]  # (1, B, H) -> (B, H)
        return tuple(state)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """From features (B, D), source words (B, S), ``BEGIN`` first and ``PAD`` last, and their lengths (B,)."""
        there = (features > 0.5)[:, :, None] & (self.words != PAD)  # (B, D, longest)
        flat = torch.where(there, self.words, PAD).flatten(1)  # (B, D * longest)
        lengths = (flat != PAD).sum(1)
        order = (flat == PAD).to(torch.uint8).argsort(dim=1, stable=True)  # words before padding
        front = order[:, : int(lengths.max())]
        begin = flat.new_full((len(flat), 1), BEGIN)
        return torch.cat([begin, flat.gather(1, front)], 1), lengths + 1


class EncoderDecoder(LRCN):
    """p(sentence | labels): the last state of a ``LabelEncoder`` is the state before the first word.

    (a) of Donahue et al., arXiv 1411.4389, section 6.
    """

    starts_from_feature = True

    def add_encoder(self, names: Sequence[str]) -> None:
        self.encoder = LabelEncoder(names, self.stack, self.config.embedding_dim)

    def initial_state(self, features: Tensor) -> State:
        state: State = self.encoder(features)
        return state
