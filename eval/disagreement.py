"""How far tools differ about the same captions: coco-caption's way of counting, and one departure from it in each row.

    python -m eval.disagreement results.json --references captions_val2017.json

Prints a table in Markdown. Every row is a way in which published or shared code computes "BLEU", "CIDEr" or "ROUGE-L".
"""

from __future__ import annotations

import argparse
import string
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from captioner.data.records import of_split
from captioner.data.results import Matched, match, read_references, read_results
from captioner.errors import exit_status
from captioner.metrics.base import FAST, Array, find_metric
from captioner.metrics.corpus import Corpus, Tokens
from captioner.optional import require
from captioner.text.tokenizers import tokenizer

SHOWN = ("BLEU-1", "BLEU-4", "CIDEr-D", "ROUGE-L")
Cut = Callable[[str], Tokens]


def cutters() -> dict[str, Cut]:
    """Ways to make tokens; the first is coco-caption's."""
    ptb, nist = tokenizer("ptb"), Tokenizer13a()
    bare = str.maketrans("", "", string.punctuation)

    def with_full_stop(text: str) -> Tokens:
        return [*ptb(text), "."] if text.rstrip().endswith(".") else ptb(text)

    return {
        "coco-caption: PTB tokens, lower case, no punctuation": ptb,
        "the tokens of the LRCN release (`plain`)": tokenizer("plain"),
        "the full stop at the end kept as a token": with_full_stop,
        "lower case, punctuation deleted, split at blanks": lambda text: text.lower().translate(bare).split(),
        "lower case, split at blanks, punctuation kept": lambda text: text.lower().split(),
        "split at blanks": str.split,
        "sacreBLEU's 13a tokens, lower case": lambda text: nist(text.lower()).split(),
        "sacreBLEU's 13a tokens (its default)": lambda text: nist(text).split(),
    }


def disagreement(matched: Matched) -> list[tuple[str, dict[str, float]]]:
    """Scores in percent by the name of the way they are computed."""
    hypotheses, references = [*matched.hypotheses.values()], [*matched.references.values()]
    rows = []
    for name, cut in cutters().items():
        corpus = Corpus([cut(text) for text in hypotheses], [[cut(text) for text in texts] for texts in references])
        rows.append((name, _scores(corpus)))
        if len(rows) == 1:
            usual = corpus
    first = Corpus(usual.hypotheses, [texts[:1] for texts in usual.references])
    rows.append(("one reference of each image, the first", _scores(first)))
    rows += [(name, {"BLEU-4": value}) for name, value in _averages(usual).items()]
    return rows


def _scores(corpus: Corpus) -> dict[str, float]:
    found: dict[str, Array] = {}
    for name in FAST:
        metric = find_metric(name)
        found |= metric.aggregate(metric.statistics(corpus).sum(0))
    return {name: float(found[name]) for name in SHOWN}


def _averages(corpus: Corpus) -> dict[str, float]:
    """BLEU-4 of single captions, averaged, and nltk's with what its documentation offers as smoothing."""
    bleu = find_metric("bleu")
    nltk = require("nltk.translate.bleu_score", "smt")
    smooth = nltk.SmoothingFunction()
    pairs = list(zip(corpus.references, corpus.hypotheses, strict=True))

    def sentences(method: Callable[..., object]) -> float:
        return 100 * float(np.mean([nltk.sentence_bleu(*pair, smoothing_function=method) for pair in pairs]))

    return {
        "mean of the captions' own BLEU, not smoothed": float(bleu.aggregate(bleu.statistics(corpus))["BLEU-4"].mean()),
        "mean of nltk's sentence_bleu, smoothing method 1": sentences(smooth.method1),
        "mean of nltk's sentence_bleu, smoothing method 4": sentences(smooth.method4),
        "nltk's corpus_bleu": 100 * float(nltk.corpus_bleu(corpus.references, corpus.hypotheses)),
    }


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Markdown, with the distance from the first row behind each BLEU-4."""
    base = rows[0][1]["BLEU-4"]
    lines = [f"| how | {' | '.join(SHOWN)} | BLEU-4 differs by |", "|---|" + "---:|" * (len(SHOWN) + 1)]
    for name, scores in rows:
        cells = [f"{scores[score]:.2f}" if score in scores else "" for score in SHOWN]
        lines.append(f"| {name} | {' | '.join(cells)} | {round(scores['BLEU-4'] - base, 2) + 0:+.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="captions in any form that captioner score reads")
    parser.add_argument("--references", "-r", type=Path, action="append", required=True)
    parser.add_argument("--format", default="", help="the references' format, if they are a folder")
    parser.add_argument("--split", default="", help="train, val or test; all by default")
    options = parser.parse_args(arguments)

    def run() -> None:
        results = read_results(options.results)
        records = read_references(options.references, options.format, results.aligned)
        print(table(disagreement(match(results, of_split(records, options.split) if options.split else records))))

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
