"""Sentences straight from semantic tuples, without a model: what the describers of clips have to beat.

    python -m eval.tuples nearest --clips clips.jsonl --potentials potentials.h5 -o nearest.json
    python -m eval.tuples nearest --clips clips.jsonl --potentials potentials.h5 --input prob -o nearest-prob.json
    python -m eval.tuples template --clips clips.jsonl --potentials potentials.h5 -o template.json

nearest: of all sentences of the training clips whose tuples are most similar, the one with which the others agree most.
Tuples are as similar as they have labels in common; with --input prob, as many as are expected to be.
template: "the person {activity} the {object} with the {tool} from the {source} into the {target}", without the parts
that the best assignment does not have.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captioner.crf.predictions import KINDS, Potentials, read_potentials
from captioner.data.clips import NODES, NULL, OTHER, Clip, read_clips
from captioner.data.records import SPLITS, Captioned
from captioner.errors import DataError, exit_status
from captioner.text.tokenizers import DEFAULT
from eval.baselines import consensus, write_results

Labels = tuple[str, ...]

TEMPLATE = {"object": "the {}", "tool": "with the {}", "source": "from the {}", "target": "into the {}"}


def most_probable(potentials: Potentials, row: int, n: int) -> list[tuple[Labels, float]]:
    """Up to ``n`` assignments of a clip by the product of its marginals, with its natural log, the best first."""
    found: list[tuple[Labels, float]] = [((), 0.0)]
    for node in potentials.nodes.values():
        log_prob = node.log_prob[row]
        likely = [k for k in np.argsort(-log_prob, kind="stable")[:n] if log_prob[k] > -np.inf]
        longer = [((*labels, node.labels[k]), total + float(log_prob[k])) for labels, total in found for k in likely]
        found = heapq.nlargest(n, longer, key=lambda one: one[1])
    return found


def clips_of(clips: Sequence[Clip], split: str) -> list[Clip]:
    """Those of a split that have sentences; ``DataError`` where there are none."""
    found = [clip for clip in clips if clip.split == split and clip.sentences]
    if not found:
        raise DataError(f"no clip of the {split} split has a sentence")
    return found


def records_of(clips: Sequence[Clip]) -> list[Captioned]:
    """Clips as what is captioned."""
    return [Captioned(clip.clip_id, None, clip.sentences, clip.split) for clip in clips]


def nearest(train: Sequence[Clip], potentials: Potentials, rows: np.ndarray, kind: str, cut: str) -> list[str]:
    """For each of ``rows`` (T,) the sentence that agrees most with all those of the most similar training clips.

    Similarity is the number of equal labels of the best assignment (``max``), or its expectation (``prob``).
    """
    known = [clip for clip in train if clip.labels is not None]
    if not known:
        raise DataError("no training clip has labels; python -m preprocess.tacos finds them in the sentences")
    distinct = sorted({clip.labels for clip in known if clip.labels is not None})
    having: dict[Labels | None, list[int]] = {}
    for place, clip in enumerate(known):
        having.setdefault(clip.labels, []).append(place)
    similar = potentials.vector(kind)[rows] @ _one_hot(distinct, potentials).T  # (T, distinct)
    near = [tuple(np.flatnonzero(row >= row.max() - 1e-6)) for row in similar]
    different = sorted(set(near))  # clips with equal neighbors share an answer
    places = [[place for one in row for place in having[distinct[one]]] for row in different]
    answers = dict(zip(different, consensus(records_of(known), places, "cider", cut), strict=True))
    return [answers[row] for row in near]


def template(labels: Sequence[str]) -> str:
    """A sentence that says each label of a tuple, in the order of ``NODES``, that is neither NULL nor OTHER."""
    said = {node: label for node, label in zip(NODES, labels, strict=True) if label not in (NULL, OTHER)}
    parts = ["the person", third_person(said.get("activity", "use"))]
    parts += [phrase.format(said[node]) for node, phrase in TEMPLATE.items() if node in said]
    return " ".join(parts)


def third_person(verb: str) -> str:
    """take out: takes out."""
    first, *rest = verb.split(" ")
    if first.endswith("y") and first[-2:-1] not in tuple("aeiou"):
        first = f"{first[:-1]}ies"
    else:
        first += "es" if first.endswith(("s", "sh", "ch", "x", "z", "o")) else "s"
    return " ".join([first, *rest])


def run(options: argparse.Namespace) -> None:
    clips = read_clips("clips", options.clips)
    wanted = clips_of(clips, options.split)
    potentials = read_potentials(options.potentials)
    rows = potentials.select([clip.clip_id for clip in wanted])
    if options.baseline == "template":
        if tuple(potentials.nodes) != NODES:
            raise DataError(f"{options.potentials}: the template is for the nodes {', '.join(NODES)}")
        sentences = [template(potentials.tuple_of(row)) for row in rows]
    else:
        sentences = nearest(clips_of(clips, "train"), potentials, rows, options.input, options.tokenizer)
    write_results(options.output, records_of(wanted), sentences)


def shared_options() -> argparse.ArgumentParser:
    """Those of every program that makes sentences of potentials."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--clips", type=Path, required=True, help="clips.jsonl as preprocess.tacos writes it")
    shared.add_argument("--potentials", type=Path, required=True, help="what the CRF says of them")
    shared.add_argument("--split", default="test", choices=SPLITS, help="clips to describe")
    shared.add_argument("--tokenizer", default=DEFAULT, help="how sentences are cut into words")
    shared.add_argument("-o", "--output", type=Path, required=True)
    return shared


def _one_hot(tuples: Sequence[Labels], potentials: Potentials) -> np.ndarray:
    """(N, sum of L) float32 as ``Potentials.vector`` has it; a label that a node does not know is nowhere."""
    places = {
        (node, label): place
        for place, (node, label) in enumerate(
            (node, label) for node, labels in enumerate(potentials.labels.values()) for label in labels
        )
    }
    found = np.zeros((len(tuples), len(places)), np.float32)
    for row, labels in enumerate(tuples):
        known = [places[key] for key in enumerate(labels) if key in places]
        found[row, known] = 1.0
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="baseline", required=True)
    near = kinds.add_parser("nearest", parents=[shared_options()], help="a sentence of the most similar training clips")
    near.add_argument("--input", default="max", choices=KINDS, help="the best assignment, or all probabilities")
    kinds.add_parser("template", parents=[shared_options()], help="the labels in a fixed sentence")
    options = parser.parse_args(arguments)
    return exit_status(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
