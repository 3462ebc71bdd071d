"""Prepare TACoS for describing videos: clips with labels, label sets, and how far people agree.

    python -m preprocess.tacos data/tacos -o data/tacos-clips
    python -m preprocess.tacos data/tacos-json --format tacos-json -o data/tacos-clips --min-count 10

Writes ``clips.jsonl`` (``--format clips`` of everything that reads clips), ``sentences.jsonl`` (the same, but each
training sentence is a clip of its own, CLIP#NUMBER, with the labels that it tells itself: for training describers) and
``labels.json`` (for each node its labels with their number of training clips) into the folder, and prints how far the
sentences of one clip agree, node by node.
Labels that the corpus itself brings are kept; the others come from the sentences (preprocess/semantics.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captioner.data.clips import CLIP_READERS, NODES, NULL, OTHER, SENTENCE, Clip, read_clips, write_clips
from captioner.errors import DataError, UsageError, exit_status
from captioner.files import write_text
from preprocess.lexicon import WORDS
from preprocess.semantics import Extractor, Labels, canonical

DETAILS = (1, 3, 4)  # tool, source, target: what few sentences say


@dataclass(frozen=True)
class Agreement:
    """How far the different sentences of a clip agree on a node.

    ``pairs``: share of pairs of different sentences with equal labels, each clip weighing as many as its sentences.
    ``alpha``: Krippendorff's alpha for nominal labels, the same corrected for what chance gives (0 none, 1 full).
    ``with_clip``: share of all sentences whose label is the clip's.
    """

    pairs: float
    alpha: float
    with_clip: float


def consensus(tuples: Sequence[Labels], corpus: Counter[tuple[str, str]], share: float = 0.25) -> Labels:
    """The one event that most sentences of a clip tell.

    Activity and object are chosen together, so that they belong to one event: the pair that most sentences say, among
    those with equal votes the one whose parts have the most votes, then the one that is commonest in the ``corpus``.
    Tool, source and target come from sentences of that activity and object alone. They are often left unsaid, so the
    one said most counts as soon as ``share`` of these sentences say any.
    """
    told = [labels for labels in tuples if labels[0] != NULL]
    if not told:
        return (NULL,) * 5
    pairs = Counter((labels[0], labels[2]) for labels in told)
    activities, things = Counter(labels[0] for labels in told), Counter(labels[2] for labels in told)
    chosen = max(pairs, key=lambda pair: (pairs[pair], activities[pair[0]] + things[pair[1]], corpus[pair], pair))
    agreeing = [labels for labels in told if (labels[0], labels[2]) == chosen]
    details = {}
    for node in DETAILS:
        said = Counter(labels[node] for labels in agreeing if labels[node] != NULL)
        enough = said.total() >= share * len(agreeing) and said
        details[node] = max(said, key=lambda label: (said[label], label)) if enough else NULL
    return chosen[0], details[1], chosen[1], details[3], details[4]


def label_sets(clips: Sequence[Clip], min_count: int, max_labels: int | None) -> dict[str, dict[str, int]]:
    """For each node its labels with their number of training clips: NULL, OTHER, then the others by frequency.

    A label in fewer than ``min_count`` training clips, or behind the ``max_labels`` commonest, is counted as OTHER.
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


def with_other(clip: Clip, sets: Mapping[str, Mapping[str, int]]) -> Clip:
    """The clip with OTHER for every label that is not in its node's set."""
    if clip.labels is None:
        return clip
    pairs = zip(clip.labels, sets.values(), strict=True)
    return replace(clip, labels=tuple(label if label in names else OTHER for label, names in pairs))


def agreement(clips: Sequence[Clip], tuples: Mapping[str, Labels]) -> dict[str, Agreement]:
    """Agreement for each node, and for ``all`` five at once. ``tuples`` has the labels of every sentence."""
    picks = [(name, slice(index, index + 1)) for index, name in enumerate(NODES)] + [("all", slice(None))]
    found = {}
    for node, pick in picks:
        units = [[tuples[text][pick] for text in set(clip.sentences)] for clip in clips]
        pairs, alpha = krippendorff([unit for unit in units if len(unit) > 1])
        same = [tuples[text][pick] == clip.labels[pick] for clip in clips if clip.labels for text in clip.sentences]
        found[node] = Agreement(pairs, alpha, sum(same) / len(same) if same else float("nan"))
    return found


def krippendorff(units: Sequence[Sequence[Hashable]]) -> tuple[float, float]:
    """(Observed agreement, alpha) of nominal labels; each unit holds two labels or more.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C. NaN where nothing can disagree.
    """
    total = Counter(label for unit in units for label in unit)
    n = total.total()
    if n < 2:
        return float("nan"), float("nan")
    agreeing = sum(sum(count * (count - 1) for count in Counter(unit).values()) / (len(unit) - 1) for unit in units)
    chance = sum(count * (count - 1) for count in total.values()) / (n * (n - 1))
    observed = agreeing / n
    return observed, (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def labeled(clips: Sequence[Clip], tuples: Mapping[str, Labels], share: float) -> list[Clip]:
    """Clips with the consensus of their sentences as labels; ties are broken by the training sentences."""
    corpus = Counter(
        (tuples[text][0], tuples[text][2]) for clip in clips if clip.split == "train" for text in clip.sentences
    )
    return [
        clip
        if clip.labels
        else replace(clip, labels=consensus([tuples[text] for text in clip.sentences], corpus, share))
        for clip in clips
    ]


def apart(clips: Sequence[Clip], tuples: Mapping[str, Labels]) -> list[Clip]:
    """Each sentence of a training clip as a clip of its own, with its labels; where it tells no event, the clip's."""
    found = []
    for clip in clips:
        if clip.split != "train":
            found.append(clip)
            continue
        for number, text in enumerate(clip.sentences, start=1):
            labels = tuples[text] if text in tuples and tuples[text][0] != NULL else clip.labels
            found.append(replace(clip, clip_id=f"{clip.clip_id}{SENTENCE}{number}", sentences=(text,), labels=labels))
    return found


def report(clips: Sequence[Clip], sets: Mapping[str, Mapping[str, int]], scores: Mapping[str, Agreement]) -> str:
    """The table that is printed: a row for each node."""
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


def prepare(options: argparse.Namespace) -> None:
    """Read, label and write what ``options`` ask for."""
    if options.min_count < 1 or (options.max_labels is not None and options.max_labels < 1):
        raise UsageError("--min-count and --max-labels must be 1 or more")
    if not 0 <= options.share <= 1:
        raise UsageError(f"--share is a share between 0 and 1, not {options.share:g}")
    clips = read_clips(options.format, options.corpus)
    extract = Extractor(options.parser, options.words)
    distinct = {sentence: extract(sentence) for clip in clips for sentence in clip.sentences}
    tuples = distinct if options.as_said else {text: canonical(said, extract.words) for text, said in distinct.items()}
    full = labeled(clips, tuples, options.share)
    if not any(clip.split == "train" for clip in full):
        raise DataError(f"{options.corpus}: no training clips, from which the label sets come")
    sets = label_sets(full, options.min_count, options.max_labels)
    kept = [with_other(clip, sets) for clip in full]
    write_clips(options.output / "clips.jsonl", kept)
    own = tuples if all(clip.labels is None for clip in clips) else {}  # the corpus' labels are other words
    write_clips(options.output / "sentences.jsonl", [with_other(clip, sets) for clip in apart(kept, own)])
    document = {"format": "captioner-labels", "version": 1, "nodes": sets}
    write_text(options.output / "labels.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(report(kept, sets, agreement(full, tuples)))
    print(f"clips.jsonl, sentences.jsonl and labels.json are in {options.output}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder or file that the reader opens")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for clips.jsonl and labels.json")
    parser.add_argument("--format", choices=CLIP_READERS, default="tacos")
    parser.add_argument("--min-count", type=int, default=3, help="training clips that a label needs (default 3)")
    parser.add_argument("--max-labels", type=int, help="labels of a node besides NULL and OTHER (default: no limit)")
    parser.add_argument("--share", type=float, default=0.25, help="of the sentences that must name a tool or place")
    parser.add_argument("--as-said", action="store_true", help="keep different words for one thing apart")
    parser.add_argument("--parser", default="", help="an installed spaCy pipeline, such as en_core_web_sm")
    parser.add_argument("--words", type=Path, default=WORDS, help="word lists in the form of preprocess/cooking.yaml")
    options = parser.parse_args(arguments)
    return exit_status(lambda: prepare(options))


if __name__ == "__main__":
    sys.exit(main())
