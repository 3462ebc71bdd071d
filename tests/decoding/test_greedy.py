"""Greedy decoding."""

from __future__ import annotations

import torch

from captioner.decoding import DecodingConfig
from captioner.decoding.greedy import greedy
from tests.decoding.fakes import START, TOKENS, Markov, markov


def test_the_most_probable_token_at_each_step() -> None:
    """Against a plain loop over one image at a time."""
    decoder = markov(images=8, vocabulary=7)
    found = greedy(decoder, decoder.begin(), 8, DecodingConfig("greedy", max_length=6), **TOKENS)
    for image, (one,) in enumerate(found):
        tokens = [START]
        while len(tokens) < 7 and tokens[-1] != 1:
            row = decoder.after(image)(tokens)
            tokens.append(row.index(max(row)))
        assert one.ids == tuple(token for token in tokens[1:] if token != 1)


def test_finished_sentences_are_not_stepped_further() -> None:
    table = torch.full((2, 4, 4, 4), 0.05)
    table[..., 1] = 0.9
    table[0, START, START] = torch.tensor([0.0, 0.0, 0.6, 0.4])  # image 0 starts with token 2
    table[1, START, START] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # image 1 ends at once
    decoder = Markov(table.log())
    found = greedy(decoder, decoder.begin(), 2, DecodingConfig("greedy"), **TOKENS)
    assert [one.ids for (one,) in found] == [(2,), ()]
    assert decoder.stepped == [2, 1]


def test_sentences_may_grow_beyond_the_first_room() -> None:
    """Would catch tokens lost where the buffer grows, or one that is made for the largest length at once."""
    table = torch.full((1, 4, 4, 4), 0.05)
    table[..., 2] = 0.9  # never ends
    for length in (31, 32, 33, 64, 100):
        decoder = Markov(table.log())
        ((one,),) = greedy(decoder, decoder.begin(), 1, DecodingConfig("greedy", max_length=length), **TOKENS)
        assert one.ids == (2,) * length
