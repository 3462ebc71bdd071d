"""The vocabulary: the words of a model, and their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from captioner.errors import DataError, shorten

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
NEVER = [PAD, START, UNK]
"""Ids of tokens that decoding never chooses."""


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their ids; the four of ``SPECIALS`` come first."""

    kind: ClassVar[str] = "vocabulary"

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(word, str) for word in self.words):
            raise DataError("the words of a vocabulary must be texts")
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise DataError(f"a vocabulary starts with {' '.join(SPECIALS)}, not {' '.join(self.words[:4])}")
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"the vocabulary holds {shorten(twice)} more than once")

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
        """Words seen at least ``min_count`` times in tokenized ``captions``: most frequent first, then by letter."""
        counts = Counter(word for caption in captions for word in caption)
        for special in SPECIALS:
            counts.pop(special, None)
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        return cls(SPECIALS + tuple(kept))

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of the tokens, ``UNK`` for unknown ones; no start or end token is added."""
        numbers = self._numbers
        return [numbers.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> str:
        """The sentence of ``ids`` up to the first ``END``, without padding and start tokens."""
        words = []
        for number in ids:
            if number == END:
                break
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)

    def __len__(self) -> int:
        return len(self.words)

    def to_list(self) -> list[str]:
        return list(self.words)

    @classmethod
    def from_list(cls, words: Iterable[str]) -> Vocabulary:
        return cls(tuple(words))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        # Names of special tokens in a caption are unknown words, never special tokens.
        return {word: number for number, word in enumerate(self.words) if number >= len(SPECIALS)}
