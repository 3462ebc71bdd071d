"""BLEU against counting, sacreBLEU and coco-caption's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu

from captioner.metrics.base import find_metric
from tests.metrics.corpora import corpus, values
from tests.oracles.bleu import corpus_bleu


@pytest.mark.parametrize("seed", range(8))
def test_bleu_is_what_counting_gives(seed):
    """Empty captions and references among them; would catch clipping over the wrong image or the wrong length."""
    pairs = corpus(seed=seed)
    whole, each = values(find_metric("bleu"), pairs)
    for order in range(1, 5):
        assert whole[f"BLEU-{order}"] == pytest.approx(100 * corpus_bleu(pairs, order), abs=1e-9)
        alone = [100 * corpus_bleu([pair], order) if pair[0] else 0 for pair in pairs]
        assert each[f"BLEU-{order}"] == pytest.approx(alone, abs=1e-9)


def test_bleu_is_sacrebleu_s():
    pairs = [(h, (refs * 5)[:5]) for h, refs in corpus(30, shortest=1)]  # its streams: equally many references
    streams = [[" ".join(refs[k]) for _, refs in pairs] for k in range(5)]
    theirs = sacrebleu.corpus_bleu([" ".join(h) for h, _ in pairs], streams, tokenize="none", smooth_method="none")
    ours, _ = values(find_metric("bleu"), pairs)
    assert ours["BLEU-4"] == pytest.approx(theirs.score, abs=1e-9)
    assert ours["brevity_penalty"] == pytest.approx(theirs.bp, abs=1e-12)
    assert (ours["length"], ours["reference_length"]) == (theirs.sys_len, theirs.ref_len)


def test_bleu_from_the_counts_that_coco_caption_printed():
    """Golden: the counts and scores that coco-caption's example shows for 1,000 images of COCO val2014."""
    counts = [9893, 9855, 5732, 2510, 1043, 423, 9893, 8893, 7893, 6893]
    found = find_metric("bleu").aggregate(np.array(counts, float))
    assert [round(float(found[f"BLEU-{n}"]) / 100, 3) for n in range(1, 5)] == [0.579, 0.404, 0.279, 0.191]
