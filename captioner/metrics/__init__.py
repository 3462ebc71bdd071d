"""Scores of captions against references. To add a metric: one class, one line in ``base.METRICS``."""

from captioner.metrics.base import METRICS, Score, score_captions

__all__ = ["METRICS", "Score", "score_captions"]
