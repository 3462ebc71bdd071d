"""Turn sentences into tokens. The same tokenizer serves training, captions and scores.

A tokenizer is a function ``Sequence[str] -> list[list[str]]``: the tokens of each text. To add one, write the function
and add one line to ``TOKENIZERS``; ``VERSION`` in its module, if there is one, is part of the scores' signatures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from itertools import islice

from captioner.registry import resolve

TOKENIZERS: dict[str, str] = {
    "ptb-lite": "captioner.text.ptb_lite:ptb_lite",
    "ptb-java": "captioner.text.ptb_java:ptb_java",
    "plain": "captioner.text.tokenizers:plain",
}
DEFAULT = "ptb-lite"

Tokenizer = Callable[[Sequence[str]], list[list[str]]]


@cache
def tokenizer(name: str) -> Tokenizer:
    """The function behind an entry of ``TOKENIZERS``; an unknown name raises ``ConfigError``."""
    found: Tokenizer = resolve(TOKENIZERS, name, "tokenizer")
    return found


def tokenize(text: str, name: str = DEFAULT) -> list[str]:
    """The tokens of one text."""
    return tokenizer(name)([text])[0]


def join_pairs(words: Iterable[str], names: Container[str]) -> list[str]:
    """``words`` with neighbors that form one of ``names``, such as "hot dog", joined; the leftmost come first."""
    found: list[str] = []
    for word in words:
        if found and (pair := f"{found[-1]} {word}") in names:
            found[-1] = pair
        else:
            found.append(word)
    return found


def tokenize_groups(groups: Iterable[Sequence[str]], tokenize: Tokenizer) -> list[list[list[str]]]:
    """The tokens of each text in each group, such as an image's references, with a single call of ``tokenize``."""
    groups = list(groups)
    tokens = iter(tokenize([text for texts in groups for text in texts]))
    return [list(islice(tokens, len(texts))) for texts in groups]


def plain(texts: Sequence[str]) -> list[list[str]]:
    """Tokens as in the paper's code: lower case, split at ``\\W+``, the last full stop dropped; other signs stay.

    ``A man's T-shirt.`` gives ``a man ' s t - shirt``.
    """
    return [_plain(text) for text in texts]


def _plain(text: str) -> list[str]:
    tokens = [token.strip() for token in re.split(r"(\W+)", text.lower()) if token.strip()]
    return tokens[:-1] if tokens[-1:] == ["."] else tokens
