"""Scores of captions against references. To add a metric: one class, one line in ``base.METRICS``."""

from captioner.metrics.base import METRICS, References, Score, Scored, score_captions

__all__ = ["METRICS", "References", "Score", "Scored", "score_captions"]
