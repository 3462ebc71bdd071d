"""CIDEr-D in naive loops: section 3 and 4 of Vedantam et al. 2015, with what coco-caption adds to them."""

import math


def cider_d(pairs, sigma=6.0, documents=None):
    """The score of each of the pairs (hypothesis tokens, list of reference tokens); ``documents`` are the references
    of each image among which n-grams are counted, those of the pairs by default."""
    documents = documents or [references for _, references in pairs]
    return [
        10
        / len(references)
        / 4
        * sum(_similarity(hypothesis, r, n, documents, sigma) for n in (1, 2, 3, 4) for r in references)
        for hypothesis, references in pairs
    ]


def _similarity(hypothesis, reference, n, documents, sigma):
    a, b = _ngrams(hypothesis, n), _ngrams(reference, n)
    dot = sum(
        min(_weight(g, a, n, documents), _weight(g, b, n, documents)) * _weight(g, b, n, documents) for g in set(a)
    )
    norm_a = math.sqrt(sum(_weight(g, a, n, documents) ** 2 for g in set(a)))
    norm_b = math.sqrt(sum(_weight(g, b, n, documents) ** 2 for g in set(b)))
    if norm_a == 0 or norm_b == 0:
        return 0.0
    difference = len(_ngrams(hypothesis, 2)) - len(_ngrams(reference, 2))
    return dot / (norm_a * norm_b) * math.exp(-(difference**2) / (2 * sigma**2))


def _weight(gram, grams, n, documents):
    images = sum(any(gram in _ngrams(reference, n) for reference in references) for references in documents)
    return grams.count(gram) * (math.log(len(documents)) - math.log(max(1, images)))


def _ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
