"""Sentences into tokens. One tokeniser serves training, captions and scores.

A tokeniser is a function ``str -> list[str]``. To add one (for example an exact port of the Stanford PTBTokenizer),
write the function and add one line to ``TOKENIZERS``.
"""

from __future__ import annotations

import html
import importlib
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from captioner.errors import ConfigError

TOKENIZERS: dict[str, str] = {"plain": "captioner.text.tokenize:plain"}

Tokenizer = Callable[[str], list[str]]

_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u2032\u00b4`", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011", "-")
    | dict.fromkeys("\u2013\u2014", " - ")
    | {"\u00ad": ""}
)
"""Typographic quotes, hyphens and dashes to ASCII; soft hyphens to nothing."""
_ABBREVIATIONS = r"(?:mr|mrs|ms|dr|st|jr|sr|inc|ltd|corp|dept|univ|ave|blvd|rd)"
_ABBREVIATIONS_INSIDE = r"(?:vs|etc|no|co|mt|ft|lt|gen|col|sgt|prof|rev)"  # at the end they are words and a full stop
_LETTER = r"[^\W\d_]"
_CLITIC = r"'(?:s|m|d|re|ve|ll)(?!\w)"
_TOKEN = re.compile(
    rf"""
    (?:https?://|www\.)[^\s"'<>()]+\w                         # addresses
    | \d{{1,2}}:\d\d(?=[ap]\.?m)                               # 10:30pm -> 10:30 pm
    | \d+(?:[.,:/]\d+)*(?=(?:am|pm)\b)                        # 9am -> 9 am
    | \.\d+                                                   # .5
    | \d+(?:[.,:/]\d+)*(?:-?[^\W_]+)*(?:-[^\W_]+)*            # 3/4, 5.00, 1950s, 2nd, 3-story
    | {_LETTER}\.(?:{_LETTER}\.)+                             # u.s., a.m.
    | {_ABBREVIATIONS}\.(?!\w) | {_ABBREVIATIONS_INSIDE}\.(?=\s+\w)
    | {_LETTER}\.(?=\s+\w)                                    # george w. bush
    | {_LETTER}+n't(?!\w)                                     # don't: parted below
    | {_CLITIC}
    | n't(?!\w)                                               # already parted text
    | (?:o|d|l)'{_LETTER}{{2,}}                               # o'clock, d'oeuvres
    | '(?:em|n|til|cause|tis|twas)(?!\w)
    | {_LETTER}{{1,2}}(?:&{_LETTER})+(?![^\W_])                   # b&w, at&t
    | [^\W_]+(?:[-_/@.][^\W_]+)*                              # words, t-shirt
    | [$£€¥%&\#@+=*<>°^~|\\]                                  # signs that count as words
    """,
    re.VERBOSE,
)
_PARTED = {
    "cannot": ["can", "not"],
    "gonna": ["gon", "na"],
    "wanna": ["wan", "na"],
    "gotta": ["got", "ta"],
    "gimme": ["gim", "me"],
    "lemme": ["lem", "me"],
    "'tis": ["'t", "is"],
    "'twas": ["'t", "was"],
}


def tokenize(text: str, name: str = "plain") -> list[str]:
    """The tokens of ``text`` by the tokeniser ``name``; an unknown name raises ``ConfigError``."""
    return tokenizer(name)(text)


@cache
def tokenizer(name: str) -> Tokenizer:
    """The function behind an entry of ``TOKENIZERS``."""
    if name not in TOKENIZERS:
        raise ConfigError(f"no tokeniser {name!r}; there are: {', '.join(TOKENIZERS)}")
    module, _, function = TOKENIZERS[name].partition(":")
    found: Tokenizer = getattr(importlib.import_module(module), function)
    return found


def plain(text: str) -> list[str]:
    """Lower-case tokens without punctuation, clitics parted as the Penn Treebank parts them.

    ``A man's T-shirt, isn't it?`` gives ``a man 's t-shirt is n't it``. Rules only, no dictionary. Stanford's
    PTBTokenizer 3.4.1 with coco-caption's removal of punctuation gives the same tokens for 25,003 of the 25,014
    captions of COCO val2017; what differs is mostly brackets (kept there as ``-lrb-``) and full stops of abbreviations.
    """
    tokens: list[str] = []
    for token in _TOKEN.findall(unicodedata.normalize("NFC", html.unescape(text)).translate(_TYPOGRAPHY).lower()):
        if token.endswith("n't") and len(token) > 3:
            tokens += [token[:-3], "n't"]
        elif token in _PARTED:
            tokens += _PARTED[token]
        else:
            tokens.append(token)
    return tokens
