"""Search an index for similar images, images that match a sentence, and duplicates; each match gives its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from captioner.arrays import namespace
from captioner.errors import UsageError
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.search.index import Entry, Index
from captioner.text.tokenizers import tokenize
from captioner.text.vocabulary import END, START, UNK

TOP = 10
"""Default number of results."""
CANDIDATES = 200
"""Most images found by their words that the model then ranks."""
FEW = 1000
"""If no word of a sentence is found, the model ranks all images of an index of at most this size."""
NEAR = 0.95
"""Smallest cosine of near-duplicates."""
ROWS = 1024
"""Images that are compared with all others at a time."""
CLASS_WEIGHT = 0.5
"""Weight of a word in the name of a class, relative to a word in a caption."""
STOP_WORDS = frozenset(
    "a an and are as at be by for from has have his her in is it its of on or that the their there they this to was "
    "were which while who with".split()
)
"""Words that occur in nearly every caption."""


@dataclass(frozen=True)
class Match:
    """An image that was found."""

    entry: Entry
    score: float
    """Cosine; for a sentence, the geometric mean of its words' probabilities, or 0 if the model knows none of them."""
    why: str


def unit(feature: np.ndarray) -> np.ndarray:
    """The unit vector of a feature (D,)."""
    found: np.ndarray = feature / max(float(np.linalg.norm(feature)), 1e-12)
    return found.astype(np.float32)


def similar(
    index: Index,
    vector: np.ndarray,
    top: int = TOP,
    min_score: float = -1.0,
    *,
    without: Entry | None = None,
    digest: str = "",
) -> list[Match]:
    """The images whose vectors are nearest to a unit vector (D,), best first.

    ``without`` is the query's own entry, if it is in the index; else ``digest`` is the SHA-256 of its file, if known.
    """
    check_top(top)
    rows, scores = index.nearest.search(vector, top + (without is not None))
    digest = without.digest if without else digest
    found = zip(index.by_row(rows), scores.tolist(), strict=True)
    matches = [_similar_match(entry, score, digest) for entry, score in found if score >= min_score]
    return [match for match in matches if without is None or match.entry.id != without.id][:top]


def by_sentence(
    index: Index, captioner: LRCNCaptioner, sentence: str, top: int = TOP, min_score: float = 0.0
) -> list[Match]:
    """The images that match a sentence, best first.

    The candidates share a word with the sentence in their captions or class names (compared by stem, ranked by BM25).
    They are ranked by the likelihood of the sentence given the image (Donahue et al., CVPR 2015, section 5.2), or by
    BM25 if the model knows none of its words. If no word is found, the likelihood ranks all images of a small index.
    """
    check_top(top)
    words = query_words(sentence)
    if not words:
        raise UsageError(f"{sentence!r:.80} has no words to search for; give a sentence or an image")
    ids = _full_text(index, words)
    candidates = index.entries(ids or (index.ids.tolist() if len(index) <= FEW else []))
    if not candidates:
        return []
    found = _found_words(index, [entry.id for entry in candidates], words)
    scores = likelihoods(captioner, _features(index, candidates), sentence)
    if not ids and not scores.any():  # the model knows none of the words either
        return []
    order = np.argsort(-scores, kind="stable").tolist()
    matches = [_match(candidates[place], found[candidates[place].id], float(scores[place])) for place in order]
    return [match for match in matches if match.score >= min_score][:top]


def likelihoods(captioner: LRCNCaptioner, features: np.ndarray, sentence: str) -> np.ndarray:
    """Geometric mean (N,) of the probabilities of a sentence's words and its end, given image features (N, D).

    Words that the model does not know are inputs but not counted; the result is zeros if it knows none.
    """
    runtime = captioner.runtime
    numbers = captioner.checkpoint.outputs.encode(tokenize(sentence))
    if all(number == UNK for number in numbers):
        return np.zeros(len(features))
    totals, counted = np.zeros(len(features)), 0
    state = runtime.start(features)
    like: Any = None
    for token, target in pairwise((START, *numbers, END)):
        tokens = np.full(len(features), token)
        log_probs, state = runtime.step(tokens if like is None else namespace(like).asarray(tokens), state)
        like = log_probs
        if target != UNK:
            totals += np.asarray(log_probs[:, target].tolist())
            counted += 1
    return np.exp(totals / counted)


def duplicates(index: Index, near: float = NEAR) -> list[list[Match]]:
    """Groups of images with the same bytes, or linked by cosines of at least ``near``.

    The score of a match is its cosine with the first image of its group.
    """
    leaders = np.arange(len(index))  # union-find over the images' positions
    for one, other in _close_pairs(index.exact.vectors, near):
        a, b = _leader(leaders, one), _leader(leaders, other)
        leaders[max(a, b)] = min(a, b)
    roots = np.array([_leader(leaders, place) for place in range(len(leaders))], np.int64)
    groups = []
    for root in np.flatnonzero(np.bincount(roots, minlength=1) > 1):
        places = np.flatnonzero(roots == root)
        entries = index.by_row(index.rows[places])
        cosines = index.exact.vectors[places] @ index.exact.vectors[places[0]]
        groups.append([_similar_match(*one, entries[0].digest) for one in zip(entries, cosines.tolist(), strict=True)])
    return groups


def query_words(sentence: str) -> list[str]:
    """The distinct words of a sentence, of letters and digits, without stop words."""
    words = [word for word in re.findall(r"\w+", sentence.lower()) if word not in STOP_WORDS]
    return list(dict.fromkeys(words))[:32]


def check_top(top: int) -> None:
    """Raise ``UsageError`` unless ``top`` is a valid number of images."""
    if not 1 <= top <= 10_000:
        raise UsageError(f"top must be between 1 and 10000, not {top}")


def _full_text(index: Index, words: Sequence[str]) -> list[int]:
    """Ids of images whose captions or classes contain one of the words, ranked by BM25."""
    wanted = " OR ".join(f'"{word}"' for word in words)
    sql = f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 1.0, {CLASS_WEIGHT}) LIMIT ?"
    return [id for (id,) in index.query(sql, (wanted, CANDIDATES))]


def _found_words(index: Index, ids: Sequence[int], words: Sequence[str]) -> dict[int, list[tuple[str, str]]]:
    """For each image, the words that it contains, each with its column (caption or classes)."""
    found: dict[int, list[tuple[str, str]]] = {id: [] for id in ids}
    for word in words:
        for column in ("caption", "classes"):
            sql = "SELECT rowid FROM words WHERE words MATCH ?"
            for (id,) in index.query(sql, (f'{column} : "{word}"',)):
                if id in found and word not in (known for known, _ in found[id]):
                    found[id].append((word, column))
    return found


def _features(index: Index, entries: Sequence[Entry]) -> np.ndarray:
    """The images' features (N, D) as the network computed them, up to float16 rounding."""
    norms = np.array([entry.norm for entry in entries], np.float32)
    return index.vectors(entries) * norms[:, None]


def _match(entry: Entry, found: Sequence[tuple[str, str]], score: float) -> Match:
    parts = []
    for column, where in (("caption", "its caption has"), ("classes", "its classes have")):
        words = [word for word, place in found if place == column]
        if words:
            parts.append(f"{where} {', '.join(words)}")
    if score > 0:
        parts.append(f"the model gives it {_percent(score)} a word")
    return Match(entry, score, "; ".join(parts))


def _percent(share: float) -> str:
    return f"{100 * share:.{max(0, min(6, 1 - math.floor(math.log10(100 * share))))}f}%"


def _similar_match(entry: Entry, cosine: float, digest: str) -> Match:
    return Match(entry, min(cosine, 1.0), "the same file" if entry.digest == digest else "similar features")


def _close_pairs(vectors: np.ndarray, near: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows of unit vectors (N, D) with a cosine of at least ``near``; equal vectors always count."""
    for first in range(0, len(vectors), ROWS):
        cosines = vectors[first : first + ROWS] @ vectors[first:].T
        ones, others = np.nonzero(np.triu(cosines, 1) >= min(near, 0.999))
        yield from zip((first + ones).tolist(), (first + others).tolist(), strict=True)


def _leader(leaders: np.ndarray, place: int) -> int:
    while leaders[place] != place:
        leaders[place] = leaders[leaders[place]]
        place = int(leaders[place])
    return place
