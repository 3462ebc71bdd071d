"""Prepare TACoS for captioning clips: clips with labels, label sets, and the agreement of sentences.

    python -m preprocess.tacos data/tacos -o data/tacos-clips
    python -m preprocess.tacos data/tacos-json --format tacos-json -o data/tacos-clips --min-count 10

Writes three files: ``clips.jsonl``, which everything with ``--format clips`` reads; ``sentences.jsonl``, in which each
training sentence is a clip of its own, CLIP#NUMBER, with the labels of that sentence, for training clip captioners; and
``labels.json`` with the labels of each node and their numbers of training clips. Prints how much the sentences of a
clip agree on each node. Labels in the corpus are kept; others come from the sentences (preprocess/semantics.py).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import choice, create_app, run
from captioner.data.clips import CLIP_READERS, NODES, NULL, OTHER, SENTENCE, Clip, read_clips, write_clips
from captioner.errors import DataError, UsageError, print_error
from captioner.files import Kind, check_output, write_text
from preprocess.lexicon import WORDS
from preprocess.semantics import Extractor, Labels, merge_synonyms

DETAILS = (1, 3, 4)
"""Tool, source and target: nodes that few sentences name."""
SCORE_BY = ("clips", "sentences", "left-out")


@dataclass(frozen=True)
class Agreement:
    """Agreement on a node between the different sentences of a clip.

    ``pairs``: share of pairs of different sentences with equal labels; clips are weighted by their number of sentences.
    ``alpha``: Krippendorff's alpha for nominal labels, which corrects for chance (0 no agreement, 1 full agreement).
    ``with_clip``: share of all sentences whose label equals the clip's.
    """

    pairs: float
    alpha: float
    with_clip: float


def consensus(tuples: Sequence[Labels], corpus: Counter[tuple[str, str]], share: float = 0.25) -> Labels:
    """The labels of the event that most sentences of a clip describe.

    Activity and object are chosen as a pair, so that they belong to one event: the pair with the most votes; ties are
    broken by the votes of its parts, then by its frequency in the ``corpus``. Tool, source and target come only from
    the sentences with that pair. Sentences often omit them, so the most frequent one is taken if at least ``share`` of
    these sentences name any.
    """
    named_events = [labels for labels in tuples if labels[0] != NULL]
    if not named_events:
        return (NULL,) * 5
    pairs = Counter((labels[0], labels[2]) for labels in named_events)
    activities, things = Counter(labels[0] for labels in named_events), Counter(labels[2] for labels in named_events)
    chosen = max(pairs, key=lambda pair: (pairs[pair], activities[pair[0]] + things[pair[1]], corpus[pair], pair))
    agreeing = [labels for labels in named_events if (labels[0], labels[2]) == chosen]
    details = {}
    for node in DETAILS:
        counts = Counter(labels[node] for labels in agreeing if labels[node] != NULL)
        enough = counts and counts.total() >= share * len(agreeing)
        details[node] = max(counts, key=lambda label: (counts[label], label)) if enough else NULL
    return chosen[0], details[1], chosen[1], details[3], details[4]


def label_sets(clips: Sequence[Clip], min_count: int, max_labels: int | None) -> dict[str, dict[str, int]]:
    """For each node its labels and their numbers of training clips: NULL, OTHER, then the others by frequency.

    A label in fewer than ``min_count`` training clips, or not among the ``max_labels`` most frequent, counts as OTHER.
    """
    sets = {}
    for index, node in enumerate(NODES):
        counts = Counter(clip.labels[index] for clip in clips if clip.split == "train" and clip.labels)
        named = sorted(
            (label for label in counts if label not in (NULL, OTHER)), key=lambda name: (-counts[name], name)
        )
        kept = [label for label in named if counts[label] >= min_count][:max_labels]
        rare = counts.total() - counts[NULL] - sum(counts[label] for label in kept)
        sets[node] = {NULL: counts[NULL], OTHER: rare} | {label: counts[label] for label in kept}
    return sets


def replace_rare(clip: Clip, sets: Mapping[str, Mapping[str, int]]) -> Clip:
    """The clip with ``OTHER`` in place of each label that is not in its node's set."""
    if clip.labels is None:
        return clip
    pairs = zip(clip.labels, sets.values(), strict=True)
    return replace(clip, labels=tuple(label if label in names else OTHER for label, names in pairs))


def agreement(clips: Sequence[Clip], tuples: Mapping[str, Labels]) -> dict[str, Agreement]:
    """Agreement on each node, and on ``all`` five at once; ``tuples`` are the labels of each sentence."""
    picks = [(name, slice(index, index + 1)) for index, name in enumerate(NODES)] + [("all", slice(None))]
    found = {}
    for node, pick in picks:
        units = [[tuples[text][pick] for text in set(clip.sentences)] for clip in clips]
        pairs, alpha = krippendorff([unit for unit in units if len(unit) > 1])
        same = [tuples[text][pick] == clip.labels[pick] for clip in clips if clip.labels for text in clip.sentences]
        found[node] = Agreement(pairs, alpha, sum(same) / len(same) if same else float("nan"))
    return found


def krippendorff(units: Sequence[Sequence[Hashable]]) -> tuple[float, float]:
    """Observed agreement and alpha of nominal labels; each unit has two labels or more.

    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C. NaN if all labels are equal.
    """
    total = Counter(label for unit in units for label in unit)
    n = total.total()
    if n < 2:
        return float("nan"), float("nan")
    agreeing = sum(sum(count * (count - 1) for count in Counter(unit).values()) / (len(unit) - 1) for unit in units)
    chance = sum(count * (count - 1) for count in total.values()) / (n * (n - 1))
    observed = agreeing / n
    return observed, (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def event_counts(clips: Sequence[Clip], tuples: Mapping[str, Labels]) -> Counter[tuple[str, str]]:
    """The number of training sentences with each pair of activity and object."""
    return Counter(
        (tuples[text][0], tuples[text][2]) for clip in clips if clip.split == "train" for text in clip.sentences
    )


def label_clips(clips: Sequence[Clip], tuples: Mapping[str, Labels], share: float) -> list[Clip]:
    """Clips with the consensus of their sentences as labels; existing labels are kept."""
    corpus = event_counts(clips, tuples)
    return [
        clip
        if clip.labels
        else replace(clip, labels=consensus([tuples[text] for text in clip.sentences], corpus, share))
        for clip in clips
    ]


def split_sentences(clips: Sequence[Clip], tuples: Mapping[str, Labels]) -> list[Clip]:
    """Each sentence of a training clip as a clip of its own with its own labels, or the clip's if it names no event."""
    found = []
    for clip in clips:
        if clip.split != "train":
            found.append(clip)
            continue
        for number, text in enumerate(clip.sentences, start=1):
            labels = tuples[text] if text in tuples and tuples[text][0] != NULL else clip.labels
            found.append(replace(clip, clip_id=f"{clip.clip_id}{SENTENCE}{number}", sentences=(text,), labels=labels))
    return found


def single_references(clips: Sequence[Clip], tuples: Mapping[str, Labels], share: float, left_out: bool) -> list[Clip]:
    """Each sentence of a val or test clip as its own clip; with ``left_out`` its labels come from the clip's others.

    Then a caption's reference has no part in its labels. Sentences equal to the one that is left out are left out too.
    Clips whose sentences are all equal are dropped, so that the clips are the same with ``left_out`` and without.
    """
    corpus = event_counts(clips, tuples)
    found = []
    for clip in clips:
        if clip.split == "train":
            found.append(clip)
            continue
        for number, text in enumerate(clip.sentences, start=1):
            others = [tuples[other] for other in clip.sentences if other != text]
            if others:
                labels = consensus(others, corpus, share) if left_out else clip.labels
                name = f"{clip.clip_id}{SENTENCE}{number}"
                found.append(replace(clip, clip_id=name, sentences=(text,), labels=labels))
    return found


def report(clips: Sequence[Clip], sets: Mapping[str, Mapping[str, int]], scores: Mapping[str, Agreement]) -> str:
    """The printed table, with a row for each node."""
    sentences = [text for clip in clips for text in clip.sentences]
    lines = [
        f"{len(clips)} clips of {len({clip.video for clip in clips})} videos, {len(sentences)} sentences, "
        f"{len(sentences) - sum(len(set(clip.sentences)) for clip in clips)} of them repeat another one of their clip",
        "",
        f"{'node':<10}{'labels':>7}{'not null':>10}{'other':>8}{'pairs agree':>13}{'alpha':>7}{'as the clip':>13}",
    ]
    for index, node in enumerate(NODES):
        there = sum(clip.labels is not None and clip.labels[index] != NULL for clip in clips) / len(clips)
        rare = sum(clip.labels is not None and clip.labels[index] == OTHER for clip in clips) / len(clips)
        lines.append(f"{node:<10}{len(sets[node]):>7}{there:>10.1%}{rare:>8.1%}{_score(scores[node])}")
    return "\n".join([*lines, f"{'all five':<35}{_score(scores['all'])}"])


def _score(score: Agreement) -> str:
    return f"{score.pairs:>13.1%}{score.alpha:>7.2f}{score.with_clip:>13.1%}"


CLIPS = Kind("a clips file", rb'\{"format": "captioner-clips"')
LABELS = Kind("a file of label sets", rb'\{\s*"format": "captioner-labels"')
FILES = {"clips.jsonl": CLIPS, "sentences.jsonl": CLIPS, "labels.json": LABELS}


def prepare(
    corpus: Annotated[Path, typer.Argument(help="Folder or file that the reader opens.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for clips.jsonl, sentences.jsonl and labels.json.")
    ],
    format: Annotated[str, typer.Option(help=f"Reader: {', '.join(CLIP_READERS)}.")] = "tacos",
    min_count: Annotated[int, typer.Option(min=1, help="Training clips that a label must occur in.")] = 3,
    max_labels: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of labels of a node, besides NULL and OTHER.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the sentences that must name a tool or place.")
    ] = 0.25,
    keep_synonyms: Annotated[bool, typer.Option("--keep-synonyms", help="Do not merge synonyms.")] = False,
    score_by: Annotated[
        str,
        choice(SCORE_BY, help="Val and test are clips; or sentences, with the labels of the clip or of its others."),
    ] = "clips",
    parser: Annotated[str, typer.Option(help="Installed spaCy pipeline, such as en_core_web_sm.")] = "",
    words: Annotated[Path, typer.Option(help="Word lists in the form of preprocess/cooking.yaml.")] = WORDS,
) -> None:
    """Write clips with labels, clips of single sentences, and label sets; print how much the sentences agree."""
    read = [corpus, words, *([corpus / "clips.jsonl"] if format == "clips" else [])]
    for name, kind in FILES.items():
        check_output("-o", output / name, kind, read)
    clips = read_clips(format, corpus)
    extract = Extractor(parser, words)
    raw = {sentence: extract(sentence) for clip in clips for sentence in clip.sentences}
    tuples = raw if keep_synonyms else {text: merge_synonyms(labels, extract.words) for text, labels in raw.items()}
    full = label_clips(clips, tuples, share)
    if score_by == "left-out" and any(clip.labels for clip in clips):
        raise UsageError("--score-by left-out reads labels from sentences, but the corpus has labels of its own")
    if not any(clip.split == "train" for clip in full):
        raise DataError(f"{corpus}: no training clips, from which the label sets come")
    sets = label_sets(full, min_count, max_labels)
    table = report([replace_rare(clip, sets) for clip in full], sets, agreement(full, tuples))
    if score_by != "clips":
        full = single_references(full, tuples, share, score_by == "left-out")
    kept = [replace_rare(clip, sets) for clip in full]
    write_clips(output / "clips.jsonl", kept)
    own = tuples if all(clip.labels is None for clip in clips) else {}  # the corpus' own labels use other words
    write_clips(output / "sentences.jsonl", [replace_rare(clip, sets) for clip in split_sentences(kept, own)])
    document = {"format": "captioner-labels", "version": 1, "nodes": sets}
    write_text(output / "labels.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(table)
    print_error(f"wrote clips.jsonl, sentences.jsonl and labels.json to {output}")


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, prepare), arguments)


if __name__ == "__main__":
    sys.exit(main())
