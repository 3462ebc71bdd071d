"""The tokenizer of coco-caption, without Java: Stanford's PTBTokenizer 3.4.1, then punctuation removed.

``ptb`` gives the tokens of a caption that ``java edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase`` and
coco-caption's list of punctuation leave. Java reads all captions as one text, and some of its rules look over the end
of a line: a letter and a full stop at the end of a caption are ``b .`` if the next caption begins with ``A`` or another
typical first word, else ``b.``; ``art .`` becomes ``art.`` before a number. So that tokens depend on the caption alone,
every caption counts here as followed by one that begins with ``A``, as most do.

A line that ends within a caption (carriage return, form feed, U+0085, U+2028 and the like; of these coco-caption
replaces ``\\n`` alone) is a blank here. In coco-caption it moves all captions that follow to a wrong picture.
"""

from __future__ import annotations

import re
from functools import cache

from captioner.text.ptb.automaton import Automaton, State
from captioner.text.ptb.rules import NAMED, RULES

VERSION = "3.4.1"
"""Of the tool that these are the tokens of; signatures of scores carry it."""
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
"""What coco-caption removes. As it looks after lower-casing, brackets stay, as ``-lrb-`` and so on."""
END = "\nA "
"""What follows a caption."""
MOST_PIECES = 1 << 17
LONGEST_PIECE = 100  # characters; of a piece that is remembered
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def ptb(text: str) -> list[str]:
    """The tokens of a caption; some hold a no-break space, which Java leaves in ``5 7/8`` and telephone numbers.

    Most pieces between two spaces have the same tokens wherever they stand, and are looked up. A piece that may belong
    together with the next one is looked up together with it. Other spaces than the common one would join with it.
    """
    if not text.isascii() or "\t" in text:
        return lex(text)
    tokens: list[str] = []
    pending = ""
    *pieces, last = text.replace("\n", " ").split(" ")
    for piece in pieces:
        pending += piece + " "
        found = _PIECES[pending]
        if found is not None:
            tokens += found
            pending = ""
        elif len(pending) > LONGEST_PIECE:
            return lex(text)
    tokens += _PIECES[pending + last + END] or []
    return tokens


def lex(text: str, following: str = "A ") -> list[str]:
    """The same by the rules alone, remembering nothing; before a line that begins with ``following``."""
    tokens, _ = _lex(text.replace("\n", " ") + "\n" + following, len(text))
    return _without_punctuation(tokens)


class _Pieces(dict[str, "list[str] | None"]):
    """Tokens of a piece with the space or the end after it, or None if they hang on what follows."""

    def __missing__(self, piece: str) -> list[str] | None:
        ended = piece.endswith(END)
        tokens, settled = _lex(piece, len(piece) - len(END if ended else " "))
        found = _without_punctuation(tokens) if ended or settled else None
        if len(self) >= MOST_PIECES:
            self.clear()
        if len(piece) <= LONGEST_PIECE:
            self[piece] = found
        return found


_PIECES = _Pieces()


def _without_punctuation(tokens: list[str]) -> list[str]:
    return [part for token in tokens for part in token.split(" ") if part and part not in PUNCTUATION]


def _lex(text: str, stop: int) -> tuple[list[str], bool]:
    """Lower-case tokens that begin before ``stop``, and whether they are the same whatever comes after ``text``."""
    beyond = len(text) - stop
    astral = not text.isascii() and max(text) > "\uffff"
    if astral:  # Java reads such a character as two
        text = _ASTRAL.sub(lambda found: _units(found[0]), text)
        stop = len(text) - beyond
    automaton = _automaton()
    symbols = text.translate(automaton.symbols)
    tokens, settled, at = [], True, 0
    while at < stop:
        number, end, decided = _longest(automaton.start, symbols, at)
        settled = settled and decided
        rule = RULES[number]
        if rule.context:
            end = at + _cut(number, text[at:end])
        end -= rule.back
        token = rule.form(text[at:end])
        if token is not None:
            tokens.append(token.lower())
        at = end
    if astral:
        tokens = [token.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for token in tokens]
    if tokens and tokens[-1][-1:].isspace():  # coco-caption strips the end of a line
        tokens[-1], settled = tokens[-1].rstrip(), False
    return tokens, settled and at == stop


def _longest(state: State, symbols: str, at: int) -> tuple[int, int, bool]:
    """The rule of the longest match from ``at`` on, where it ends, and whether no longer text could match longer."""
    number, end = 0, at
    for position in range(at, len(symbols)):
        following = state[symbols[position]]
        if following is None:
            return number, end, True
        state = following
        if state.rule is not None:
            number, end = state.rule, position + 1
    return number, end, state.stuck


def _cut(number: int, match: str) -> int:
    """How much of a match is the token; the rest is its context."""
    pattern, context = _parts(number)
    return next(n for n in reversed(pattern.lengths(match)) if len(match) - n in context.lengths(match[n:]))


@cache
def _automaton() -> Automaton:
    return Automaton([f"({rule.pattern})({rule.context})" for rule in RULES], NAMED)


@cache
def _parts(number: int) -> tuple[Automaton, Automaton]:
    """The pattern and the context of a rule, each by itself."""
    return Automaton([RULES[number].pattern], NAMED), Automaton([RULES[number].context], NAMED)


def _units(character: str) -> str:
    """The two of UTF-16."""
    high, low = divmod(ord(character) - 0x10000, 0x400)
    return chr(0xD800 + high) + chr(0xDC00 + low)
