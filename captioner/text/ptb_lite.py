"""coco-caption's tokens without Java: Penn Treebank tokens in lower case, without most punctuation.

coco-caption runs Stanford's PTBTokenizer 3.4.1 and drops a list of punctuation from its output. This is an independent
tokenizer, written from three sources: the Treebank's published conventions, the rules of nltk's Treebank tokenizers
(Apache-2.0; Edward Loper, Michael Heilman, Tom Aarsen, after Robert MacIntyre's ``tokenizer.sed``), and pairs of
captions and the Java program's output for them. ``RULES`` gives a pair for each rule. The Java program gives other
tokens for 5 of 223,684 real captions (``python -m eval.tokens``); ``ptb-java`` runs the program itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

VERSION = "1"
"""Part of every score's signature; any change of any text's tokens is a new version."""

ABBREVIATIONS = (
    "mr mrs ms dr jr sr prof rev hon gov gen sen rep sgt lt capt col maj pvt cpl "
    "st ave blvd rd bldg sq mt ft co cos corp inc ltd bros dept assoc univ vs etc est tel ext "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri "
    "ala ariz calif colo conn fla ga ind kan ky md mich minn mont neb nev okla penn tenn va vt wis wyo"
)
"""Words that keep their full stop, as in the Java program; only common ones."""
STARTS = "A An The This That These He She It They There We You"
"""Words before which the full stop after a single letter ends a sentence."""
MEMORY = 1 << 16
"""Number of words whose tokens are cached."""

_LETTER = r"[^\W\d_]"
_ALPHA = rf"(?:{_LETTER}|[\u0300-\u036f])"  # combining accents are no word characters for Python
_ALNUM = r"(?:[^\W_]|[\u0300-\u036f])"

RULES: tuple[tuple[str, str, str], ...] = (
    # links, names, smileys, brackets
    (r"https?://\S*[\w/]", "see https://a.com/b?c=d.", "see https://a.com/b?c=d"),
    (
        rf"(?:www\.[\w.-]+|{_LETTER}{{2,64}}\.(?:com|edu|gov|net|org))/[^\s,;\"'()<>]+\w",
        "www.dog.co.uk/ab?c=1&d=2 and dog.com/a?b=1.",
        "www.dog.co.uk/ab?c=1&d=2 and dog.com/a?b=1",
    ),
    (r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*", "mail a.b@c.com now", "mail a.b@c.com now"),
    (rf"@{_LETTER}\w*", "by @user.", "by @user"),
    (rf"\#{_LETTER}+", "a #tag here", "a #tag here"),
    (rf"</?{_LETTER}\w*/?>", "a <b>bold</b> dog", "a <b> bold </b> dog"),
    (r"[:;=]['-]?(?:[()|\\]|[dpo]\b)", "hello :-) you :D", "hello :--rrb- you :d"),
    (r"-[lr][crs]b-", "tokens -lrb- already -rrb-", "tokens -lrb- already -rrb-"),
    # apostrophes
    (r"'n'", "rock'n'roll and 'n' too", "rock 'n' roll and 'n' too"),
    (r"'(?:em|til|cause|bout)\b", "get 'em 'til noon", "get 'em 'til noon"),
    (r"'\d(?:\d|0s)(?!\S)", "an '80s car of '62 here", "an '80s car of '62 here"),
    (r"'t(?=(?:is|was)\b)", "'tis a dog", "'t is a dog"),
    (r"'(?:s|m|d|ll|re|ve)\b", "he's the dogs' and I'll", "he 's the dogs and i 'll"),
    (r"n't\b", "it isn't", "it is n't"),
    (rf"{_LETTER}+?(?=n't\b)", "DON'T", "do n't"),
    (r"[jy]'(?=\w)", "y'all", "y' all"),
    (r"dunkin'(?!\w)", "a Dunkin' Donuts", "a dunkin' donuts"),
    (r"more(?='n\b)|'n\b", "more'n one", "more 'n one"),
    # contractions that are written as one word
    (r"can(?=not(?![\w'-]))", "cannot", "can not"),
    (r"go[nt](?=[nt]a(?![\w'-]))|wan(?=na(?![\w'-]))", "gonna gotta wanna", "gon na got ta wan na"),
    (r"(?:gim|lem)(?=me(?![\w'-]))", "gimme and lemme", "gim me and lem me"),
    # full stops that are not punctuation
    (rf"{_LETTER}\.(?!\w|\s*$|\s(?-i:{'|'.join(STARTS.split())})\b)", "J. Smith is p. A dog", "j. smith is p a dog"),
    (rf"{_LETTER}(?:\.{_LETTER})+\.(?!\w)", "in the U.S.A.", "in the u.s.a."),
    (rf"(?:{'|'.join(ABBREVIATIONS.split())}|ph\.d)\.(?!\w)", "St. Paul Ave.", "st. paul ave."),
    (r"no\.(?=\s?\d)", "No. 5", "no. 5"),
    # numbers
    (r"--", "a--5", "a 5"),
    (r"(?<![\w.])\d{1,4}\ \d+/\d+", "22 3/4 st.", "22\u00a03/4 st."),
    (
        rf"[-+]?\d*(?::\d+)+|[-+]?\d*(?:[.,:]\d+)+(?:-{_LETTER}+)*",
        "1,000 at 10:30pm for -5.5, a 1.5-inch",
        "1,000 at 10:30 pm for -5.5 a 1.5-inch",
    ),
    (r"[-+]\d+", "at -5", "at -5"),
    (rf"\d{_ALNUM}*(?:[-/_]{_ALNUM}+)*", "a 10-year-old at 5pm on 9/11", "a 10-year-old at 5pm on 9/11"),
    (r"(?:us|ca|au|hk|c|a)\$", "US$5", "us$ 5"),
    # words
    (r"(?-i:[A-Z]+&[A-Z]+)", "Q&A by AT&T but at&t", "q&a by at&t but at & t"),
    (
        rf"(?:(?:[cdlno]|qu)'(?={_LETTER}{{2}}))?{_ALPHA}{_ALNUM}*"
        rf"(?:(?:[-/_]|\.(?={_LETTER})|(?<=[aeiou])'(?=[aeiou])){_ALNUM}+)*(?:\.(?=[,;:]))?",
        "O'Brien's and/or a half-open t-shirt-, Pe'e example.com truck.,",
        "o'brien 's and/or a half-open t-shirt pe'e example.com truck.",
    ),
    # everything else
    (r"[!?]+", "what? no!!", "what no !!"),
    (r"\*+|_+|\#\#+", "** a_ __", "** a _ __"),
    (r"\S", "100% (red) [x] $5 #1 a & b", "100 % -lrb- red -rrb- -lsb- x -rsb- $ 5 # 1 a & b"),
)
"""(Pattern, example, its tokens); the first pattern that matches at a position is used."""

REMOVED = frozenset("' ` \" . ? ! , : ; - --".split())
"""Tokens that coco-caption removes. Its list ``PUNCTUATIONS`` has brackets in capitals, as ``-LRB-``, but its tokens
are in lower case, so brackets stay, and so do ``!!`` and ``?!``, which the list lacks."""

_TOKEN = re.compile("|".join(f"(?:{pattern})" for pattern, _, _ in RULES), re.IGNORECASE)
_CODES = str.maketrans(
    {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
    | {"½": "1/2", "¼": "1/4", "¾": "3/4", " ": "\u00a0"}
)
"""The Java program's spellings of brackets, fractions and the blank in ``22 3/4``."""
_ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|nbsp|mdash);", re.IGNORECASE)
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " ", "mdash": "--"}
_DROPPED = re.compile(
    "[\U00010000-\U0010ffff\u200b-\u200f\u2011\u2012\u2027\u2060-\u206f\u20a9-\u20ab\u20ad-\u20bf\ufe00-\ufe0f\ufeff]"
)
"""Characters that the Java program does not know and drops, such as emoji."""
_SIGNS = str.maketrans(
    dict.fromkeys("‘’‛‹›", "'")
    | dict.fromkeys("“”«»", '"')
    | dict.fromkeys("–—―", " -- ")
    | {sign: f" {sign} " for sign in "½¼¾"}
    | {"…": " ... ", "¢": " cents ", "£": " # ", "€": " $ ", "\u00ad": "-"}
)


def ptb_lite(texts: Sequence[str]) -> list[list[str]]:
    """The tokens of each text."""
    return [_tokens(text) for text in texts]


def _tokens(text: str) -> list[str]:
    if not text.isascii() or not text.isprintable() or "&" in text:
        text = plain_signs(text)
    if ". " in text or "/" in text:  # only these rules look past a blank
        return scan(" ".join(text.split()))
    tokens: list[str] = []
    for part in text.split():
        tokens += _known[part]
    return tokens


def plain_signs(text: str) -> str:
    """The text with typographic signs and HTML entities in ASCII, and white space as blanks."""
    text = _DROPPED.sub(" ", text).translate(_SIGNS)
    return " ".join(_ENTITY.sub(lambda found: _ENTITIES[found[1].lower()], text).split())


def scan(text: str) -> list[str]:
    """The tokens of a text from ``plain_signs`` by all rules: the definition, of which ``_tokens`` is a faster form."""
    found = _TOKEN.findall(text)
    return [token.translate(_CODES).lower() for token in found if token not in REMOVED]


class _Known(dict[str, list[str]]):
    """The tokens of the most recent texts between blanks, at most ``MEMORY`` of them."""

    def __missing__(self, part: str) -> list[str]:
        if len(self) >= MEMORY:
            self.clear()
        self[part] = found = scan(part)
        return found


_known = _Known()
