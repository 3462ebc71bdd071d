"""Sampling from the model, and selection of the most probable samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import device

from captioner.arrays import Array, first_reaching, namespace, softmax
from captioner.decoding.config import DecodingConfig
from captioner.decoding.greedy import rollout
from captioner.decoding.protocol import Decoder, Hypothesis

AT_ONCE = 4096
"""Most sentences that are sampled at a time, to limit memory."""


def best_of_samples(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` most probable distinct sentences among ``num_samples`` samples of each image.

    Each image is sampled separately, starting from ``seed``. Sentences are ranked by their log probability under the
    model, without temperature.
    """
    found = []
    for image in range(count):
        alone = decoder.select(state, np.array([image], np.int64))
        generator = np.random.default_rng(config.seed)
        best: list[Hypothesis] = []
        for first in range(0, config.num_samples, AT_ONCE):
            some = replace(config, num_samples=min(AT_ONCE, config.num_samples - first), num_return_sequences=1)
            (samples,) = sample(decoder, alone, 1, some, start=start, end=end, generator=generator)
            best = _most_probable([*best, *samples], config.num_return_sequences)
        found.append(best)
    return found


def sample(
    decoder: Decoder,
    state: Any,
    count: int,
    config: DecodingConfig,
    *,
    start: int,
    end: int,
    generator: np.random.Generator | None = None,
) -> list[list[Hypothesis]]:
    """``config.num_samples`` sampled sentences for each of the ``count`` sequences of ``state``, unranked.

    Log probabilities are divided by ``temperature`` before sampling: a value below 1 favors probable words. The paper
    (arXiv 1411.4389v4, Table 6) *multiplies* by its T: its T = 1.5 is temperature 0.667 here. Hypotheses report the log
    probability without temperature. The result depends only on the model, the state and ``seed``, or ``generator``,
    which continues from earlier calls; the random numbers do not depend on the kind of arrays or their device.
    """
    numbers = generator or np.random.default_rng(config.seed)

    def choose(log_probs: Array) -> Array:
        probs = softmax(log_probs / config.temperature)  # renormalizes over the tokens that are not blocked
        return _sample_columns(probs, numbers)

    number = config.num_samples
    state = decoder.select(state, np.arange(count, dtype=np.int64).repeat(number))
    samples = rollout(decoder, state, count * number, choose, config, start=start, end=end)
    return [samples[first : first + number] for first in range(0, len(samples), number)]


def _sample_columns(probs: Array, generator: np.random.Generator) -> Array:
    """Sample a column for each row of ``probs`` (N, V), in proportion to them; zero probability is never sampled.

    Inverts the cumulative sum at one random number per row. ``torch.multinomial`` draws N x V of them, which takes
    longer than a small model needs to compute the probabilities.
    """
    xp = namespace(probs)
    sums = xp.cumulative_sum(probs, axis=-1)
    parts = 1 - generator.random((len(probs), 1), np.float32)  # above 0
    return first_reaching(sums, sums[:, -1:] * xp.asarray(parts, dtype=sums.dtype, device=device(sums)))


def _most_probable(samples: list[Hypothesis], number: int) -> list[Hypothesis]:
    """The ``number`` most probable distinct sentences; ties in the order of their tokens."""
    different = {hypothesis.ids: hypothesis for hypothesis in samples}.values()
    return sorted(different, key=lambda hypothesis: (-hypothesis.log_prob, hypothesis.ids))[:number]
