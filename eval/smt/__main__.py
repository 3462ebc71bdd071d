"""Sentences for clips by statistical machine translation of their semantic tuples, as Rohrbach et al. 2013 and 2014.

    python -m eval.smt --clips clips.jsonl --label-predictions p.h5 --input map -o smt-map.json
    python -m eval.smt --clips clips.jsonl --label-predictions p.h5 --input marginals -o smt-marginals.json

Translation is learned from the labels and sentences of the training clips, the weights are chosen by BLEU-4 on val.
map: the MAP assignment of the CRF is translated. marginals: each of the most probable assignments is, and the best
translation of any is taken, where the probability of its assignment counts with a weight of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from captioner.crf.predictions import KINDS, LabelPredictions, read_label_predictions
from captioner.data.clips import NULL, Clip, read_clips
from captioner.data.records import SPLITS
from captioner.errors import exit_status
from captioner.text.tokenizers import DEFAULT, tokenizer
from eval.baselines import write_results
from eval.smt.alignment import HEURISTICS, MODELS
from eval.smt.translator import ALL_FEATURES, Sources, Words, train_smt
from eval.tuples import clips_of, most_probable, records_of


def words_of(labels: Sequence[str]) -> Words:
    """A tuple as a source: one word a label, NULL left out unless there is nothing else."""
    return tuple(label for label in labels if label != NULL) or (NULL,)


def sources(predictions: LabelPredictions, clips: Sequence[Clip], kind: str, n: int) -> list[Sources]:
    """The source sentences of each clip: its MAP assignment, or the ``n`` most probable ones."""
    rows = predictions.select([clip.clip_id for clip in clips])
    if kind == "map":
        return [[(words_of(predictions.assignment(row)), 0.0)] for row in rows]
    found: list[Sources] = []
    for row in rows:
        mine: dict[Words, float] = {}
        for labels, log_prob in most_probable(predictions, row, n):
            mine.setdefault(words_of(labels), log_prob)
        found.append(list(mine.items()))
    return found


def run(options: argparse.Namespace) -> None:
    cut = tokenizer(options.tokenizer)
    clips = read_clips("clips", options.clips)
    val, wanted = clips_of(clips, "val"), clips_of(clips, options.split)
    predictions = read_label_predictions(options.label_predictions)
    tuned_on, asked = (sources(predictions, part, options.input, options.n_best) for part in (val, wanted))
    pairs = [
        (words_of(clip.labels) if clip.labels is not None else (), cut(sentence))
        for clip in clips_of(clips, "train")
        for sentence in clip.sentences
    ]
    print(f"learning from {len(pairs)} sentences", file=sys.stderr)
    model = train_smt(pairs, model=options.alignment, heuristic=options.heuristic, order=options.order)
    model.tune(tuned_on, [[cut(one) for one in clip.sentences] for clip in val], options.seed, options.processes)
    weights = ", ".join(f"{name} {w:.3f}" for name, w in zip(ALL_FEATURES, model.weights, strict=True))
    print(f"weights: {weights}", file=sys.stderr)
    began = time.monotonic()
    sentences = [" ".join(words) for words in model.translate_all(asked, options.processes)]
    seconds = time.monotonic() - began
    print(f"{len(wanted)} clips in {seconds:.1f} s, {len(wanted) / seconds:.1f} a second", file=sys.stderr)
    write_results(options.output, records_of(wanted), sentences)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eval.smt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=Path, required=True, help="clips.jsonl of preprocess.tacos")
    parser.add_argument("--label-predictions", type=Path, required=True, help="label predictions of the clips")
    parser.add_argument("--split", default="test", choices=SPLITS, help="split to caption")
    parser.add_argument("--tokenizer", default=DEFAULT, help="tokenizer of sentences")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--input", default="map", choices=KINDS, help="MAP assignment, or the most probable assignments"
    )
    parser.add_argument("--n-best", type=int, default=10, help="how many assignments --input marginals translates")
    parser.add_argument("--alignment", default="ibm1", choices=MODELS)
    parser.add_argument("--heuristic", default="intersection", choices=HEURISTICS)
    parser.add_argument("--order", type=int, default=4, help="n-grams of the language model")
    parser.add_argument("--seed", type=int, default=0, help="of tuning")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    return exit_status(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
