"""ROUGE-L by the table of the longest common subsequence, with coco-caption's choice of beta and references."""


def rouge_l(hypothesis, references, beta=1.2):
    """In 0..1, for tokens; an empty sentence is one empty word."""
    hypothesis = hypothesis or [""]
    references = [reference or [""] for reference in references]
    common = [_common(hypothesis, reference) for reference in references]
    precision = max(length / len(hypothesis) for length in common)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _common(one, other):
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]
