"""Our tokenizer, compared with nltk's Treebank tokenizer, on the captions of ``benchmarks.scoring``.

Ours begins each round with an empty cache of words. nltk's gets lower-case text and keeps punctuation.
"""

from __future__ import annotations

from benchmarks.measure import Measurement, compare, rate
from benchmarks.scoring import draw
from captioner.optional import require
from captioner.text import ptb_lite

SPEED = 10.0


def measure(count: int = 5000, rounds: int = 3) -> list[Measurement]:
    """Captions per second of ours over nltk's; each of ``count`` images has six."""
    hypotheses, references = draw(count)
    captions = [*hypotheses.values(), *(text for texts in references.values() for text in texts)]
    treebank = require("nltk.tokenize.treebank", "smt").TreebankWordTokenizer()

    def ours() -> None:
        ptb_lite._known.clear()
        ptb_lite.ptb_lite(captions)

    def nltk() -> None:
        for caption in captions:
            treebank.tokenize(caption.lower())

    left, right = rate(len(captions), ours), rate(len(captions), nltk)
    return [compare("tokens of captions over nltk's", "captions/s", left, right, rounds=rounds, target=SPEED)]
