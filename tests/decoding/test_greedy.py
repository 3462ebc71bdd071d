"""Greedy decoding."""

from __future__ import annotations

import pytest
import torch

from captioner.decoding import DecodingConfig
from captioner.decoding.greedy import greedy
from tests.decoding.fakes import KINDS, START, TOKENS, markov, of_kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_probable_token_at_each_step(kind: str) -> None:
    """Against a plain loop over one image at a time."""
    decoder = markov(images=8, vocabulary=7, kind=kind)
    found = greedy(decoder, decoder.begin(), 8, DecodingConfig("greedy", max_length=6), **TOKENS)
    for image, (one,) in enumerate(found):
        tokens = [START]
        while len(tokens) < 7 and tokens[-1] != 1:
            row = decoder.after(image)(tokens)
            tokens.append(row.index(max(row)))
        assert one.ids == tuple(token for token in tokens[1:] if token != 1)


@pytest.mark.parametrize("kind", KINDS)
def test_finished_sentences_are_not_stepped_further(kind: str) -> None:
    table = torch.full((2, 4, 4, 4), 0.05)
    table[..., 1] = 0.9
    table[0, START, START] = torch.tensor([0.0, 0.0, 0.6, 0.4])  # image 0 starts with token 2
    table[1, START, START] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # image 1 ends at once
    decoder = of_kind(kind, table.log())
    found = greedy(decoder, decoder.begin(), 2, DecodingConfig("greedy"), **TOKENS)
    assert [one.ids for (one,) in found] == [(2,), ()]
    assert decoder.stepped == [2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_may_grow_beyond_the_first_room(kind: str) -> None:
    """Would catch tokens lost where the buffer grows, or one that is made for the largest length at once."""
    table = torch.full((1, 4, 4, 4), 0.05)
    table[..., 2] = 0.9  # never ends
    for length in (31, 32, 33, 64, 100):
        decoder = of_kind(kind, table.log())
        ((one,),) = greedy(decoder, decoder.begin(), 1, DecodingConfig("greedy", max_length=length), **TOKENS)
        assert one.ids == (2,) * length
