"""Corpus BLEU by counting with the fingers: the definition of Papineni et al. 2002, no library."""

import math


def corpus_bleu(pairs, order):
    """In 0..1, for pairs of (hypothesis tokens, list of reference tokens); closest length, the shorter of two."""
    log_sum = 0.0
    for n in range(1, order + 1):
        correct = total = 0
        for hypothesis, references in pairs:
            grams = _ngrams(hypothesis, n)
            total += len(grams)
            for gram in set(grams):
                correct += min(grams.count(gram), max(_ngrams(reference, n).count(gram) for reference in references))
        if correct == 0:
            return 0.0
        log_sum += math.log(correct / total)
    length = sum(len(hypothesis) for hypothesis, _ in pairs)
    closest = 0
    for hypothesis, references in pairs:
        closest += sorted((abs(len(r) - len(hypothesis)), len(r)) for r in references)[0][1]
    penalty = 1.0 if length >= closest else math.exp(1 - closest / length)
    return penalty * math.exp(log_sum / order)


def _ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
