"""Sampling: frequencies against probabilities, ranking against enumeration, and seeds."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from captioner.decoding import DecodingConfig, decode, sampling
from captioner.decoding.sampling import sample
from tests.decoding.fakes import END, KINDS, TOKENS, markov, of_kind, same
from tests.oracles.exhaustive import exhaustive_search


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_are_the_probabilities(temperature: float, kind: str) -> None:
    """4,000 samples, within four standard deviations. Log probabilities stay those of temperature 1."""
    probs = torch.tensor([0.0, 0.2, 0.5, 0.3])
    decoder, number = of_kind(kind, probs.expand(1, 4, 4, 4).log()), 4000
    config = DecodingConfig("sample", max_length=2, num_samples=number, temperature=temperature, seed=3)
    [found] = sample(decoder, decoder.begin(), 1, config, **TOKENS)
    seen = Counter(one.ids for one in found)
    powered = probs ** (1 / temperature)
    tempered = (powered / powered.sum()).tolist()
    for ids, prob in [((), tempered[1]), ((2, 3), tempered[2] * tempered[3]), ((3,), tempered[3] * tempered[1])]:
        assert seen[ids] / number == pytest.approx(prob, abs=4 * math.sqrt(prob * (1 - prob) / number))
    for one in found:
        tokens = (*one.ids, END)[:2]
        assert one.log_prob == pytest.approx(sum(math.log(probs[t]) for t in tokens), abs=1e-5)


def test_the_best_of_many_samples_is_the_best_sentence() -> None:
    """Would catch ranking by the tempered score, repeated sentences among the best, images mixed up."""
    decoder = markov(images=3, vocabulary=4, spread=2.0)
    limits = {"max_length": 4, "num_return_sequences": 3}
    config = DecodingConfig("sample", num_samples=3000, temperature=2.0, **limits)
    found = decode(decoder, decoder.begin(), 3, config, **TOKENS)
    for image in range(3):
        same(found[image], exhaustive_search(decoder.after(image), **TOKENS, **limits))


def test_samples_are_drawn_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch memory that grows with ``num_samples``, and parts that repeat the same samples."""
    monkeypatch.setattr(sampling, "AT_ONCE", 7)
    decoder = markov(images=1, vocabulary=4, spread=2.0)
    limits = {"max_length": 4, "num_return_sequences": 3}
    config = DecodingConfig("sample", num_samples=500, temperature=2.0, **limits)
    [found] = decode(decoder, decoder.begin(), 1, config, **TOKENS)
    same(found, exhaustive_search(decoder.after(0), **TOKENS, **limits))
    assert max(decoder.stepped) == 7


def test_equal_seeds_give_equal_samples() -> None:
    decoder = markov(images=3, vocabulary=9)
    configs = [DecodingConfig("sample", max_length=9, num_samples=20, seed=seed) for seed in (5, 5, 6)]
    first, second, other = (sample(decoder, decoder.begin(), 3, config, **TOKENS) for config in configs)
    assert first == second != other
    assert [len(samples) for samples in first] == [20] * 3


def test_numpy_and_torch_sample_the_same() -> None:
    """Would catch random numbers that depend on the kind of arrays."""
    for seed in range(20):
        config = DecodingConfig("sample", max_length=9, num_samples=20, temperature=1.5, seed=seed)
        both = [markov(images=3, vocabulary=9, seed=seed, kind=kind) for kind in KINDS]
        by_numpy, by_torch = (sample(one, one.begin(), 3, config, **TOKENS) for one in both)
        for found, expected in zip(by_numpy, by_torch, strict=True):
            same(found, expected)
