"""Sentences into tokens. One tokenizer serves training, captions and scores.

A tokenizer is a function ``str -> list[str]``. To add one, write the function and add one line to ``TOKENIZERS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from captioner.registry import resolve

TOKENIZERS: dict[str, str] = {
    "ptb": "captioner.text.ptb:ptb",
    "plain": "captioner.text.tokenizers:plain",
}
DEFAULT = "ptb"

Tokenizer = Callable[[str], list[str]]


def tokenize(text: str, name: str = DEFAULT) -> list[str]:
    """The tokens of ``text`` by the tokenizer ``name``; an unknown name raises ``ConfigError``."""
    return tokenizer(name)(text)


@cache
def tokenizer(name: str) -> Tokenizer:
    """The function behind an entry of ``TOKENIZERS``."""
    found: Tokenizer = resolve(TOKENIZERS, name, "tokenizer")
    return found


def plain(text: str) -> list[str]:
    """As the paper's code cuts captions: lower case, split at ``\\W+``, the last full stop dropped; other signs stay.

    ``A man's T-shirt.`` gives ``a man ' s t - shirt``.
    """
    tokens = [token.strip() for token in re.split(r"(\W+)", text.lower()) if token.strip()]
    return tokens[:-1] if tokens[-1:] == ["."] else tokens
