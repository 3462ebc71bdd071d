"""ROUGE-L against the table of its dynamic program."""

from __future__ import annotations

import pytest

from captioner.metrics.base import find_metric
from tests.metrics.corpora import corpus, values
from tests.oracles.rouge import rouge_l


@pytest.mark.parametrize("seed", range(8))
def test_rouge_is_what_the_table_gives(seed, monkeypatch):
    """Pieces of seven pairs, so that several are joined."""
    monkeypatch.setattr("captioner.metrics.rouge.BATCH_SIZE", 7)
    pairs = corpus(seed=seed)
    _, each = values(find_metric("rouge"), pairs)
    assert each["ROUGE-L"] == pytest.approx([100 * rouge_l(*pair) for pair in pairs], abs=1e-10)
