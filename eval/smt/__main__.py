"""Sentences for clips by statistical machine translation of their semantic tuples, as in Rohrbach et al. 2013 and 2014.

    python -m eval.smt --clips clips.jsonl --label-predictions p.h5 --input map -o smt-map.json
    python -m eval.smt --clips clips.jsonl --label-predictions p.h5 --input marginals -o smt-marginals.json

Translation is learned from the labels and sentences of the training clips; the weights are chosen by BLEU-4 on val.
map: the MAP assignment of the CRF is translated. marginals: each of the most probable assignments is translated, and
the best translation is taken; the probability of its assignment is one of the weighted features.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import choice, create_app, run
from captioner.crf.predictions import KINDS, LabelPredictions, read_label_predictions
from captioner.data.clips import NULL, Clip, read_clips
from captioner.errors import print_error
from captioner.text.tokenizers import DEFAULT, tokenize_groups
from captioner.text.tokenizers import tokenizer as find_tokenizer
from eval.baselines import write_results
from eval.command import Output, Split, Tokenizer
from eval.smt.alignment import HEURISTICS, MODELS, Pair
from eval.smt.translator import ALL_FEATURES, Sources, Words, train_smt
from eval.tuples import clips_of, most_probable, records_of

LEARN_FROM = ("gold", "predictions", "both")


def source_words(labels: Sequence[str]) -> Words:
    """The source words of a tuple: one per label, without NULL unless there is nothing else."""
    return tuple(label for label in labels if label != NULL) or (NULL,)


def sources(predictions: LabelPredictions, clips: Sequence[Clip], kind: str, n: int) -> list[Sources]:
    """Each clip's sources: its best assignment, or the ``n`` most probable ones."""
    rows = predictions.select([clip.clip_id for clip in clips])
    if kind == "map":
        return [[(source_words(predictions.assignment(row)), 0.0)] for row in rows]
    found: list[Sources] = []
    for row in rows:
        mine: dict[Words, float] = {}
        for labels, log_prob in most_probable(predictions, row, n):
            mine.setdefault(source_words(labels), log_prob)
        found.append(list(mine.items()))
    return found


def training_pairs(
    clips: Sequence[Clip], sentences: Sequence[Sequence[Sequence[str]]], predictions: LabelPredictions, labels: str
) -> list[Pair]:
    """(Words of a tuple, words of a sentence) for all tokenized ``sentences`` of the ``clips``.

    ``labels``: ``gold``; ``predictions``, where the i-th sentence of a clip gets the MAP assignment of its i-th
    observation, in turn; or ``both``.
    """
    pairs: list[Pair] = []
    for clip, mine in zip(clips, sentences, strict=True):
        if labels != "predictions":
            source = source_words(clip.labels) if clip.labels is not None else ()
            pairs += [(source, sentence) for sentence in mine]
        if labels != "gold":
            rows = predictions.observations.get(clip.clip_id, [])
            pairs += [
                (source_words(predictions.assignment(row)), sentence)
                for row, sentence in zip(cycle(rows), mine, strict=False)
            ]
    return pairs


def translate(
    clip_file: Annotated[Path, typer.Option("--clips", help="clips.jsonl as preprocess.tacos writes it.")],
    predictions_file: Annotated[Path, typer.Option("--label-predictions", help="The CRF's predictions for them.")],
    output: Output,
    split: Split = "test",
    tokenizer: Tokenizer = DEFAULT,
    kind: Annotated[str, choice(KINDS, "--input", help="The MAP assignment, or the most probable ones.")] = "map",
    n_best: Annotated[int, typer.Option(min=1, max=1000, help="Assignments that --input marginals translates.")] = 10,
    learn_from: Annotated[
        str, choice(LEARN_FROM, "--learn-from", help="Labels of the training clips: gold, or those of the CRF.")
    ] = "gold",
    alignment: Annotated[str, choice(tuple(MODELS))] = "ibm1",
    heuristic: Annotated[str, choice(HEURISTICS)] = "intersection",
    order: Annotated[int, typer.Option(min=1, max=10, help="Length of the language model's n-grams.")] = 4,
    tuned: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the weights by BLEU-4 on val.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of tuning.")] = 0,
    processes: Annotated[int, typer.Option(min=1, max=256)] = os.cpu_count() or 1,
) -> None:
    clips = read_clips("clips", clip_file)
    val, wanted = clips_of(clips, "val"), clips_of(clips, split)
    predictions = read_label_predictions(predictions_file)
    tuned_on, asked = (sources(predictions, part, kind, n_best) for part in (val, wanted))
    tokenize, train = find_tokenizer(tokenizer), clips_of(clips, "train")
    tokenized = tokenize_groups([clip.sentences for clip in train], tokenize)
    pairs = training_pairs(train, tokenized, predictions, learn_from)
    print_error(f"training on {len(pairs)} sentences")
    told = [tuple(words) for mine in tokenized for words in mine]
    model = train_smt(pairs, sentences=told, model=alignment, heuristic=heuristic, order=order)
    references = tokenize_groups([clip.sentences for clip in val], tokenize)
    if tuned:
        model.tune(tuned_on, references, seed, processes)
    weights = ", ".join(f"{name} {w:.3f}" for name, w in zip(ALL_FEATURES, model.weights, strict=True))
    print_error(f"weights: {weights}")
    began = time.monotonic()
    sentences = [" ".join(words) for words in model.translate_all(asked, processes)]
    seconds = time.monotonic() - began
    print_error(f"{len(wanted)} clips in {seconds:.1f} s, {len(wanted) / seconds:.1f} per second")
    write_results(output, records_of(wanted), sentences)


app = create_app(__doc__, translate)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
