"""What every decoding method keeps to, over decoders that are tables of probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from captioner.arrays import Array
from captioner.decoding import METHODS, DecodingConfig, Hypothesis, decode
from tests.decoding.fakes import END, KINDS, START, TOKENS, markov, of_kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_images_do_not_influence_each_other(method: str, kind: str) -> None:
    """Would catch states, random numbers or scores that reach another image of the batch."""
    decoder = markov(images=9, vocabulary=6, kind=kind)
    config = DecodingConfig(method, max_length=8, beam_size=4, num_samples=5)
    together = decode(decoder, decoder.begin(), 9, config, **TOKENS)
    assert together == [decode(decoder, decoder.begin([image]), 1, config, **TOKENS)[0] for image in range(9)]
    assert decode(decoder, decoder.begin([]), 0, config, **TOKENS) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_log_probabilities_are_the_decoders(method: str, kind: str) -> None:
    """Would catch a score that leaves out a token, or that the temperature or a penalty has changed."""
    decoder = markov(images=9, vocabulary=6, kind=kind)
    config = DecodingConfig(method, max_length=5, num_samples=5, temperature=0.6, length_penalty=0.5)
    for image, (one,) in enumerate(decode(decoder, decoder.begin(), 9, config, **TOKENS)):
        tokens = (START, *one.ids, END)[: 1 + config.max_length]
        assert START not in one.ids and END not in one.ids and len(one.ids) <= config.max_length
        following = decoder.after(image)
        steps = [following(tokens[:place])[tokens[place]] for place in range(1, len(tokens))]
        assert one.log_prob == pytest.approx(sum(steps), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_cut_sentence_has_no_end_token(method: str, kind: str) -> None:
    """Would catch log probabilities that include an end token after max_length tokens."""
    table = torch.zeros(1, 3, 3, 3)
    table[..., 2] = 1.0
    decoder = of_kind(kind, table.log())
    config = DecodingConfig(method, max_length=3)
    assert decode(decoder, decoder.begin(), 1, config, **TOKENS) == [[Hypothesis((2, 2, 2), 0.0)]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_repeated_ngrams_are_blocked(method: str, kind: str) -> None:
    """Would catch a method that ignores no_repeat_ngram_size."""

    class Loop:
        """Token 2 follows 3 and 3 follows 2, nearly always; next most probable is token 4, and then the end."""

        def step(self, tokens: Array, state: None) -> tuple[Array, None]:
            tokens = torch.as_tensor(tokens)
            weights = torch.full((len(tokens), 5), 1e-12)
            weights[:, 4] = 1e-4
            weights[tokens == 2, 3] = 1.0
            weights[tokens == 3, 2] = 1.0
            weights[tokens == 4, END] = 2.0
            weights[tokens == START, 2] = 1.0
            log_probs = (weights / weights.sum(-1, keepdim=True)).log()
            return log_probs.numpy() if kind == "numpy" else log_probs, state

        def select(self, state: None, rows: Array) -> None:
            return state

    def ids(size: int) -> tuple[int, ...]:
        config = DecodingConfig(method, max_length=9, beam_size=1, num_samples=1, no_repeat_ngram_size=size)
        return decode(Loop(), None, 1, config, **TOKENS)[0][0].ids

    assert len(ids(0)) == 9
    assert ids(2) == (2, 3, 2, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_finds_nothing_possible_returns_an_empty_sentence(kind: str) -> None:
    nothing = of_kind(kind, torch.full((1, 3, 3, 3), -math.inf))
    config = DecodingConfig(beam_size=2)
    assert decode(nothing, nothing.begin(), 1, config, **TOKENS) == [[Hypothesis((), -math.inf)]]
