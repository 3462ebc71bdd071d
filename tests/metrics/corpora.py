"""Random captions and references for the tests of metrics."""

from __future__ import annotations

import random

from captioner.metrics.corpus import Corpus

WORDS = ["a", "the", "dog", "man", "ball", "runs", "red", "on", "grass", "with"]


def corpus(images=12, seed=0, shortest=0):
    """Random (hypothesis tokens, references' tokens) with many matches; 1 to 5 references an image."""
    rng = random.Random(seed)

    def sentence():
        return [rng.choice(WORDS) for _ in range(rng.randint(shortest, 12))]

    return [(sentence(), [sentence() for _ in range(rng.randint(1, 5))]) for _ in range(images)]


def count(pairs):
    return Corpus([hypothesis for hypothesis, _ in pairs], [references for _, references in pairs])


def values(metric, pairs):
    """Scores over all images, and those of each, in percent."""
    rows = metric.statistics(count(pairs))
    return metric.aggregate(rows.sum(0)), metric.aggregate(rows)


def as_text(pairs):
    hypotheses = {i: " ".join(h) for i, (h, _) in enumerate(pairs)}
    return hypotheses, {i: [" ".join(r) for r in refs] for i, (_, refs) in enumerate(pairs)}
