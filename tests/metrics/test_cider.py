"""CIDEr-D against naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from captioner.metrics.cider import CiderD, DocumentFrequency
from tests.metrics.corpora import corpus, count, values
from tests.oracles.cider import cider_d


@pytest.mark.parametrize("seed", range(8))
def test_cider_is_what_naive_loops_give(seed):
    pairs = corpus(seed=seed)
    _, each = values(CiderD(), pairs)
    assert each["CIDEr-D"] == pytest.approx(100 * np.array(cider_d(pairs)), abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_cider_with_the_frequencies_of_another_corpus(seed):
    """Would catch n-grams mixed up between two corpora, of which each numbers its words by itself."""
    pairs, others = corpus(seed=seed), [refs for _, refs in corpus(9, seed=seed + 50)]
    others[0] = [["zebra", *sentence] for sentence in others[0]]
    pairs.append((["unknown", "words", "here"], [["unknown", "words"]]))
    rows = CiderD(DocumentFrequency(others)).statistics(count(pairs))
    assert rows[:, 0] == pytest.approx(cider_d(pairs, documents=others), abs=1e-10)
    own = CiderD(DocumentFrequency([refs for _, refs in pairs])).statistics(count(pairs))
    assert own == pytest.approx(CiderD().statistics(count(pairs)), abs=1e-12)
