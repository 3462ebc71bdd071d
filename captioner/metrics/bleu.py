"""Corpus BLEU-1 to BLEU-4 as coco-caption defines it, counted by sacreBLEU (Post 2018) over our tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from captioner.metrics.base import Score, Tokens, signature

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

ORDER = 4


@dataclass(frozen=True)
class BleuStatistics:
    """Of one picture: n-grams that match and n-grams there are, for n = 1 to 4; tokens; closest reference length."""

    correct: tuple[int, ...]
    total: tuple[int, ...]
    length: int
    reference_length: int
    references: int


class Bleu:
    """Papineni et al. 2002: clipped precisions, closest reference length (the shorter of two), no smoothing.

    Where an order has no match at all sacreBLEU gives 0 and coco-caption about 1e-5: everywhere else they are equal.
    """

    def __init__(self, tokenizer: str = "plain") -> None:
        self._tokenizer = tokenizer

    def statistics(self, hypothesis: Tokens, references: Sequence[Tokens]) -> BleuStatistics:
        score = self._counter.sentence_score(" ".join(hypothesis), [" ".join(reference) for reference in references])
        return BleuStatistics(
            tuple(score.counts), tuple(score.totals), int(score.sys_len), int(score.ref_len), len(references)
        )

    def aggregate(self, stats: Sequence[BleuStatistics]) -> Score:
        """The score named BLEU-4, with BLEU-1 to BLEU-4, the brevity penalty and both lengths as its parts."""
        correct = [sum(s.correct[n] for s in stats) for n in range(ORDER)]
        total = [sum(s.total[n] for s in stats) for n in range(ORDER)]
        length, reference_length = sum(s.length for s in stats), sum(s.reference_length for s in stats)
        parts = {}
        penalty = 0.0
        for order in range(1, ORDER + 1):
            result = self._counter.compute_bleu(
                correct[:order], total[:order], length, reference_length, smooth_method="none", max_ngram_order=order
            )
            parts[f"BLEU-{order}"] = float(result.score)
            penalty = float(result.bp)
        parts |= {"brevity_penalty": penalty, "length": length, "reference_length": reference_length}
        sign = signature(
            self._tokenizer,
            [s.references for s in stats],
            smooth="none",
            reflen="closest",
            version=f"sacrebleu-{version('sacrebleu')}",
        )
        return Score("BLEU-4", parts["BLEU-4"], sign, parts)

    @cached_property
    def _counter(self) -> BLEU:
        from sacrebleu.metrics.bleu import BLEU

        # effective_order only silences a warning about single sentences: the counts do not depend on it.
        return BLEU(tokenize="none", smooth_method="none", max_ngram_order=ORDER, effective_order=True, force=True)
