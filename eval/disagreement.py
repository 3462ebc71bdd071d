"""Scores of the same captions by different tools: those of coco-caption, then one variation per row.

    python -m eval.disagreement results.json --references captions_val2017.json

Prints a table in Markdown. Each row is a way in which published or shared code computes "BLEU", "CIDEr" or "ROUGE-L".
"""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from captioner.cli.program import create_app, run
from captioner.data.results import Matched, read_systems
from captioner.metrics.base import FAST, Array, find_metric
from captioner.metrics.corpus import Corpus
from captioner.optional import require
from captioner.tables import render
from captioner.text.tokenizers import Tokenizer, tokenize_groups, tokenizer

SHOWN = ("BLEU-1", "BLEU-4", "CIDEr-D", "ROUGE-L")


def tokenizers() -> dict[str, Tokenizer]:
    """Common tokenizers by description; the first is coco-caption's."""
    ptb, nist = tokenizer("ptb-lite"), Tokenizer13a()  # type: ignore[no-untyped-call]
    bare = str.maketrans("", "", string.punctuation)

    def each(tokenize: Callable[[str], list[str]]) -> Tokenizer:
        return lambda texts: [tokenize(text) for text in texts]

    def with_full_stop(texts: Sequence[str]) -> list[list[str]]:
        return [tokens + ["."] * text.rstrip().endswith(".") for text, tokens in zip(texts, ptb(texts), strict=True)]

    return {
        "coco-caption: PTB tokens, lower case, no punctuation": ptb,
        "the tokens of the LRCN release (`plain`)": tokenizer("plain"),
        "the full stop at the end kept as a token": with_full_stop,
        "lower case, punctuation deleted, split at blanks": each(lambda text: text.lower().translate(bare).split()),
        "lower case, split at blanks, punctuation kept": each(lambda text: text.lower().split()),
        "split at blanks": each(str.split),
        "sacreBLEU's 13a tokens, lower case": each(lambda text: nist(text.lower()).split()),
        "sacreBLEU's 13a tokens (its default)": each(lambda text: nist(text).split()),
    }


def disagreement(matched: Matched) -> list[tuple[str, dict[str, float]]]:
    """Scores in percent, by the description of their computation."""
    hypotheses, references = [*matched.hypotheses.values()], [*matched.references.values()]
    rows = []
    for name, tokenize in tokenizers().items():
        corpus = Corpus(tokenize(hypotheses), tokenize_groups(references, tokenize))
        rows.append((name, _scores(corpus)))
        if len(rows) == 1:
            standard = corpus
    first = Corpus(standard.hypotheses, [texts[:1] for texts in standard.references])
    rows.append(("one reference of each image, the first", _scores(first)))
    rows += [(name, {"BLEU-4": value}) for name, value in _averages(standard).items()]
    return rows


def _scores(corpus: Corpus) -> dict[str, float]:
    found: dict[str, Array] = {}
    for name in FAST:
        metric = find_metric(name)
        found |= metric.aggregate(metric.statistics(corpus).sum(0))
    return {name: float(found[name]) for name in SHOWN}


def _averages(corpus: Corpus) -> dict[str, float]:
    """Means over captions of their BLEU-4, and of nltk's sentence_bleu with smoothing methods of its documentation."""
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
    """The table in Markdown; each BLEU-4 is followed by its difference from the first row."""
    base = rows[0][1]["BLEU-4"]
    cells = [
        [
            name,
            *(f"{scores[score]:.2f}" if score in scores else "" for score in SHOWN),
            f"{round(scores['BLEU-4'] - base, 2) + 0:+.2f}",
        ]
        for name, scores in rows
    ]
    return render(["how", *SHOWN, "BLEU-4 differs by"], cells, style="markdown")


def command(
    results: Annotated[Path, typer.Argument(help="Captions in any form that captioner score reads.")],
    references: Annotated[list[Path], typer.Option("--references", "-r", help="As for captioner score.")],
    data_format: Annotated[str, typer.Option("--format", help="The references' format, if they are a folder.")] = "",
    split: Annotated[str, typer.Option(help="train, val or test; all by default.")] = "",
) -> None:
    [matched], _ = read_systems([results], references, data_format, split)
    print(table(disagreement(matched)))


app = create_app(__doc__, command)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
