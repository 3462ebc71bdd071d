"""Baselines for clip captioners: sentences from label tuples, without a model.

    python -m eval.tuples nearest --clips clips.jsonl --label-predictions label-predictions.h5 -o nearest.json
    python -m eval.tuples nearest --clips clips.jsonl --label-predictions label-predictions.h5 --input marginals \
        -o nearest-marginals.json
    python -m eval.tuples template --clips clips.jsonl --label-predictions label-predictions.h5 -o template.json

nearest: the consensus of all sentences of the training clips with the most similar tuples. Similarity is the number of
equal labels of the MAP assignment; with --input marginals, its expectation.
template: "the person {activity} the {object} with the {tool} from the {source} into the {target}", without the parts
whose label is NULL in the MAP assignment.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from captioner.cli.program import create_app, run
from captioner.crf.predictions import KINDS, LabelPredictions, read_label_predictions
from captioner.data.clips import NODES, NULL, OTHER, Clip, read_clips
from captioner.data.records import Captioned
from captioner.errors import DataError, UsageError
from captioner.text.tokenizers import DEFAULT
from eval.baselines import consensus, write_results
from eval.command import Output

Labels = tuple[str, ...]

TEMPLATE = {"object": "the {}", "tool": "with the {}", "source": "from the {}", "target": "into the {}"}


def most_probable(predictions: LabelPredictions, row: int, n: int) -> list[tuple[Labels, float]]:
    """The ``n`` most probable assignments under the product of a clip's marginals, with log probabilities (nats)."""
    found: list[tuple[Labels, float]] = [((), 0.0)]
    for node in predictions.nodes.values():
        log_prob = node.log_marginals[row]
        likely = [k for k in np.argsort(-log_prob, kind="stable")[:n] if log_prob[k] > -np.inf]
        longer = [((*labels, node.labels[k]), total + float(log_prob[k])) for labels, total in found for k in likely]
        found = heapq.nlargest(n, longer, key=lambda one: one[1])
    return found


def clips_of(clips: Sequence[Clip], split: str) -> list[Clip]:
    """The clips of a split that have sentences; raises ``DataError`` if there are none."""
    found = [clip for clip in clips if clip.split == split and clip.sentences]
    if not found:
        raise DataError(f"no clip of the {split} split has a sentence")
    return found


def records_of(clips: Sequence[Clip]) -> list[Captioned]:
    """The clips as records of captioned items."""
    return [Captioned(clip.clip_id, None, clip.sentences, clip.split) for clip in clips]


def nearest(
    train: Sequence[Clip], predictions: LabelPredictions, rows: np.ndarray, kind: str, tokenizer: str
) -> list[str]:
    """For each of ``rows`` (T,) the consensus sentence of the most similar training clips.

    Similarity is the number of equal labels of the MAP assignment (kind ``map``), or its expectation (``marginals``).
    """
    known = [clip for clip in train if clip.labels is not None]
    if not known:
        raise DataError("no training clip has labels; python -m preprocess.tacos finds them in the sentences")
    distinct = sorted({clip.labels for clip in known if clip.labels is not None})
    having: dict[Labels | None, list[int]] = {}
    for place, clip in enumerate(known):
        having.setdefault(clip.labels, []).append(place)
    similar = predictions.vector(kind)[rows] @ _one_hot(distinct, predictions).T  # (T, distinct)
    near = [tuple(np.flatnonzero(row >= row.max() - 1e-6)) for row in similar]
    different = sorted(set(near))  # clips with equal neighbors share an answer
    places = [[place for one in row for place in having[distinct[one]]] for row in different]
    answers = dict(zip(different, consensus(records_of(known), places, "cider", tokenizer), strict=True))
    return [answers[row] for row in near]


def template(labels: Sequence[str]) -> str:
    """A sentence with the labels of a tuple, given in the order of ``NODES``; NULL and OTHER are left out."""
    said = {node: label for node, label in zip(NODES, labels, strict=True) if label not in (NULL, OTHER)}
    parts = ["the person", third_person(said.get("activity", "use"))]
    parts += [phrase.format(said[node]) for node, phrase in TEMPLATE.items() if node in said]
    return " ".join(parts)


def third_person(verb: str) -> str:
    """The third person of a verb: ``take out`` gives ``takes out``."""
    first, *rest = verb.split(" ")
    if first.endswith("y") and first[-2:-1] not in tuple("aeiou"):
        first = f"{first[:-1]}ies"
    else:
        first += "es" if first.endswith(("s", "sh", "ch", "x", "z", "o")) else "s"
    return " ".join([first, *rest])


ClipsFile = Annotated[Path, typer.Option("--clips", help="clips.jsonl of preprocess.tacos.")]
PredictionsFile = Annotated[Path, typer.Option("--label-predictions", help="Label predictions of the clips.")]
Split = Annotated[str, typer.Option(help="Split to caption.")]


def nearest_command(
    clips_file: ClipsFile,
    predictions_file: PredictionsFile,
    output: Output,
    split: Split = "test",
    kind: Annotated[str, typer.Option("--input", help=f"{KINDS[0]} (MAP assignment) or {KINDS[1]}.")] = KINDS[0],
    tokenizer: Annotated[str, typer.Option(help="Tokenizer of sentences.")] = DEFAULT,
) -> None:
    """Write the consensus sentence of the training clips with the most similar labels."""
    if kind not in KINDS:
        raise UsageError(f"--input {kind}: choose one of {', '.join(KINDS)}")
    clips, predictions = read_clips("clips", clips_file), read_label_predictions(predictions_file)
    wanted = clips_of(clips, split)
    rows = predictions.select([clip.clip_id for clip in wanted])
    sentences = nearest(clips_of(clips, "train"), predictions, rows, kind, tokenizer)
    write_results(output, records_of(wanted), sentences)


def template_command(
    clips_file: ClipsFile, predictions_file: PredictionsFile, output: Output, split: Split = "test"
) -> None:
    """Write the labels of the MAP assignment in a fixed sentence."""
    wanted = clips_of(read_clips("clips", clips_file), split)
    predictions = read_label_predictions(predictions_file)
    if tuple(predictions.nodes) != NODES:
        raise DataError(f"{predictions_file}: the template is for the nodes {', '.join(NODES)}")
    rows = predictions.select([clip.clip_id for clip in wanted])
    write_results(output, records_of(wanted), [template(predictions.assignment(row)) for row in rows])


def _one_hot(tuples: Sequence[Labels], predictions: LabelPredictions) -> np.ndarray:
    """(N, sum of L) float32 in the order of ``LabelPredictions.vector``; labels that a node lacks are left out."""
    places = {
        (node, label): place
        for place, (node, label) in enumerate(
            (node, label) for node, labels in enumerate(predictions.labels.values()) for label in labels
        )
    }
    found = np.zeros((len(tuples), len(places)), np.float32)
    for row, labels in enumerate(tuples):
        known = [places[key] for key in enumerate(labels) if key in places]
        found[row, known] = 1.0
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, nearest_command, template_command), arguments)


if __name__ == "__main__":
    sys.exit(main())
