"""Diversity of captions."""

from __future__ import annotations

from captioner.metrics.diversity import diversity


def test_diversity():
    hypotheses = [["a", "dog"], ["a", "dog"], ["a", "red", "zebra"], []]
    references = [[["a", "dog", "runs"], ["dog"]], [["a", "cat"]], [["red"]], [["on"]]]
    found = diversity(hypotheses, references, [["a", "dog"], ["a", "cat"]])
    assert found == {"distinct": 75.0, "novel": 50.0, "vocabulary": 50.0, "words": 4, "length": 1.75}
    assert "novel" not in diversity(hypotheses, references)
