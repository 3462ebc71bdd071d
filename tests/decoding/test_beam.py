"""Beam search against exhaustive enumeration, plain loops, and greedy decoding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding import DecodingConfig, decode
from captioner.decoding.beam import beam_search
from captioner.decoding.greedy import greedy
from captioner.models.lrcn import LRCN, LRCNConfig
from tests.decoding.fakes import KINDS, START, TOKENS, Markov, markov, same
from tests.oracles.exhaustive import exhaustive_search
from tests.oracles.naive_beam import naive_beam_search, run_again

SIZES = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (9, 1), (9, 4)]  # 9 is more than there are words


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 3),
    vocabulary=st.integers(3, 4),
    max_length=st.integers(1, 4),
    length_penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    number=st.integers(1, 8),
)
def test_a_wide_enough_beam_is_exhaustive_search(
    kind: str, seed: int, images: int, vocabulary: int, max_length: int, length_penalty: float, number: int
) -> None:
    """Would catch lost continuations, stopping too early, wrong ranking, a cut sentence scored as finished."""
    decoder = markov(images, vocabulary, seed, kind=kind)
    limits: dict[str, Any] = {
        "max_length": max_length,
        "length_penalty": length_penalty,
        "num_return_sequences": number,
    }
    config = DecodingConfig(beam_size=vocabulary**max_length + number, **limits)
    found = decode(decoder, decoder.begin(), images, config, **TOKENS)
    for image in range(images):
        same(found[image], exhaustive_search(decoder.after(image), **TOKENS, **limits))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.sampled_from(SIZES),
    max_length=st.integers(1, 7),
    length_penalty=st.sampled_from([0.0, 0.8, 2.0]),
)
def test_beam_equals_plain_loops(
    kind: str, seed: int, sizes: tuple[int, int], max_length: int, length_penalty: float
) -> None:
    """Would catch states or scores that reach another hypothesis, and images that are done too early."""
    decoder = markov(images=4, vocabulary=6, seed=seed, kind=kind)
    limits: dict[str, Any] = {
        "beam_size": sizes[0],
        "num_return_sequences": sizes[1],
        "max_length": max_length,
        "length_penalty": length_penalty,
    }
    found = beam_search(decoder, decoder.begin(), 4, DecodingConfig(**limits), **TOKENS)
    for image in range(4):
        following = decoder.after(image)
        same(found[image], naive_beam_search(lambda prefixes: [following(p) for p in prefixes], **TOKENS, **limits))  # noqa: B023


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 5),
    sizes=st.integers(1, 6).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))),
    length_penalty=st.sampled_from([0.0, 0.8, 2.0]),
    no_repeat_ngram_size=st.integers(0, 3),
)
def test_numpy_and_torch_find_the_same(
    seed: int, images: int, sizes: tuple[int, int], length_penalty: float, no_repeat_ngram_size: int
) -> None:
    """Would catch a function of the standard that the two understand differently."""
    config = DecodingConfig(
        beam_size=sizes[0],
        num_return_sequences=sizes[1],
        max_length=7,
        length_penalty=length_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
    )
    decoders = [markov(images, 20, seed, kind=kind) for kind in KINDS]
    by_numpy, by_torch = (decode(one, one.begin(), images, config, **TOKENS) for one in decoders)
    for found, expected in zip(by_numpy, by_torch, strict=True):
        same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_size_1_is_greedy(length_penalty: float, kind: str) -> None:
    """Of the search itself, and of the shortcut that ``decode`` takes."""
    decoder = markov(images=20, vocabulary=7, kind=kind)
    config = DecodingConfig(max_length=8, beam_size=1, length_penalty=length_penalty)
    beam, narrow, by_name = (
        method(decoder, decoder.begin(), 20, config, **TOKENS) for method in (beam_search, greedy, decode)
    )
    assert beam == narrow == by_name


def test_finished_hypotheses_are_not_stepped_further() -> None:
    """The end has probability 0.9 after the first word: nothing else can win then, and nothing else is computed."""
    table = torch.full((2, 4, 4, 4), 0.05)
    table[..., START] = 0.0
    table[..., 1] = 0.9
    table[:, START, START] = torch.tensor([0.0, 0.0, 0.6, 0.4])  # the first word: 2 or 3
    decoder = Markov(table.log())
    found = beam_search(decoder, decoder.begin(), 2, DecodingConfig(beam_size=2), **TOKENS)
    assert [one.ids for (one,) in found] == [(2,), (2,)]
    assert found[0][0].log_prob == pytest.approx(math.log(0.6 * 0.9), abs=1e-5)
    assert decoder.stepped == [2, 4]


def test_fewer_sentences_than_asked_for() -> None:
    """Would catch padding, or an error, where a decoder allows only two sentences."""
    table = torch.full((1, 3, 3, 3), -math.inf)
    table[:, START, START, 1:] = math.log(0.5)  # the end at once, or token 2 and then the end
    table[:, START, 2, 1] = 0.0
    decoder = Markov(table)
    [found] = decode(decoder, decoder.begin(), 1, DecodingConfig(beam_size=5, num_return_sequences=5), **TOKENS)
    assert sorted(one.ids for one in found) == [(), (2,)]


@torch.inference_mode()
def test_carried_state_equals_running_the_prefix_again() -> None:
    """With a real model: the state carried by ``step`` and ``select`` against ``forward`` on every prefix."""
    torch.manual_seed(0)
    model = LRCN(LRCNConfig(embedding_dim=12, hidden_dim=16, image_dim=8), vocabulary_size=15, feature_size=10).eval()
    for parameter in model.parameters():
        parameter.mul_(2.5)  # so that images differ in their captions
    features = torch.randn(5, 10)
    limits = {"beam_size": 3, "max_length": 8, "num_return_sequences": 2}
    found = beam_search(model, model.start(features), 5, DecodingConfig(**limits), start=1, end=2)
    for feature, hypotheses in zip(features, found, strict=True):
        same(hypotheses, naive_beam_search(run_again(model, feature), start=1, end=2, **limits))
    assert len({one.ids for one, _ in found}) > 1
