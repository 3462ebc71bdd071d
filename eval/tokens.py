"""Count how often captioner's tokens differ from those of coco-caption's Java program, on captions and unusual texts.

    python -m eval.tokens Flickr8k.token.txt captions.token captions_val2017.json --show 5

Prints a table in Markdown. One fifth of the captions, chosen by a hash of the text, was not used in writing the rules
of ``captioner/text/ptb_lite.py``; it has a row of its own. Needs Java and the extra ``java``.
"""

from __future__ import annotations

import hashlib
import random
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import create_app, run
from captioner.data.results import read_captions
from captioner.tables import render
from captioner.text.tokenizers import tokenizer

ODD = 1000
"""Number of generated texts of each kind."""
WORDS = "dog red T-shirt café O'Neill it's don't man 7".split()
KINDS: dict[str, list[list[str]]] = {
    "links": [
        ["http://", "https://", "www.", ""],
        ["{w}"],
        [".com", ".org", ".co.uk"],
        ["", "/", "/a?b=1", "/x.html"],
        ["", ",", "."],
    ],
    "handles, tags, mail": ["@{w} #{w} #{n} {w}@a.com".split()],
    "emoji, smileys": [["{w}"], ["", " "], "😀 👍🏽 ❤️ :) ;-) :D <3 :/ 🇫🇷 ☺".split()],
    "typographic quotes": ["“{w}” ‘{w}’ «{w}» „{w}“ {w}’s ’{w} {w}…".split()],
    "straight quotes": [['"{w}"', "'{w}'", "{w}'", "'{w}", '{w}"', "`{w}`", "''{w}''"]],
    "times": [["{h}"], [":", "."], ["{m:02}"], ["", " ", "-"], ["", "pm", "p.m.", "PM", "AM", "h"]],
    "prices": [["$", "€", "£", "US$", "¥", ""], ["{n}", "{n:,}", "{c}"], ["", "", "€", "¢", "k", "/day", "%"]],
    "numbers": [
        [
            "{h} {h}/{m}",
            "{h}½",
            "{h}'{m}\"",
            "No. {h}",
            "-{n}",
            "{n:,}.5",
            "{h}x{h}",
            "{h}th-{h}th",
            "'{m:02}",
            "'{h}0s",
        ]
    ],
    "dashes, slashes": [["{w}"], ["-", "--", "—", "–", " - ", "/", "...", "-/", "_"], ["{w}"]],
    "abbreviations": ["St. Mr. U.S. T.V. a.m. etc. Ave. vs. Ph.D. approx. J. Inc.".split(), [" {w}"]],
    "any ASCII": [[sign * 2 if sign in "{}" else sign for sign in string.printable[:95]]] * 8,
}
"""Parts of generated texts by kind; a text takes one of each list. Fields are a word, number, price, hour, minute."""
Pair = tuple[str, list[str], list[str]]
"""A text, the Java program's tokens, and ours."""


def kept_aside(text: str) -> bool:
    """Whether a caption belongs to the fifth that was not used in writing the rules."""
    return hashlib.sha256(text.strip().encode()).digest()[0] % 5 == 0


def compare(texts: Sequence[str]) -> list[Pair]:
    """Each text with both lists of tokens, by one run of the Java program."""
    return list(zip(texts, tokenizer("ptb-java")(texts), tokenizer("ptb-lite")(texts), strict=True))


def odd_texts(count: int = ODD, seed: int = 0) -> dict[str, list[str]]:
    """Generated captions with one unusual element each, by kind."""
    rng = random.Random(seed)

    def make(parts: Sequence[Sequence[str]]) -> str:
        whole, hour, minute = rng.randint(1, 2000), rng.randint(1, 12), rng.randint(0, 59)
        word, other = rng.choices(WORDS, k=2)
        fields = {"w": word, "n": whole, "c": whole / 100, "h": hour, "m": minute}
        return f"A {other} with {''.join(map(rng.choice, parts)).format(**fields)} stands outdoors."

    return {kind: [make(parts) for _ in range(count)] for kind, parts in KINDS.items()}


def row(name: str, pairs: Sequence[Pair]) -> list[str]:
    differ = sum(theirs != ours for _, theirs, ours in pairs)
    return [name, f"{len(pairs):,}", f"{differ:,}", f"{100 * differ / max(1, len(pairs)):.3f} %"]


def command(
    captions: Annotated[list[Path], typer.Argument(help="Captions in any form that captioner score reads.")],
    show: Annotated[int, typer.Option(min=0, help="Print at most this many differing texts per row.")] = 0,
) -> None:
    texts = {path.name: [text for texts in read_captions(path).values() for text in texts] for path in captions}
    found = {name: compare(each) for name, each in texts.items()}
    every = [pair for pairs in found.values() for pair in pairs]
    found["all captions"] = every
    found["of these, kept aside"] = [pair for pair in every if kept_aside(pair[0])]
    found |= {f"generated: {kind}": compare(each) for kind, each in odd_texts().items()}
    print(render(["texts", "number", "differ", "share"], [row(*item) for item in found.items()], style="markdown"))
    for name, pairs in found.items():
        for text, theirs, ours in [pair for pair in pairs if pair[1] != pair[2]][:show]:
            print(f"{name}: {text}\n  Java: {' '.join(theirs)}\n  ours: {' '.join(ours)}")


app = create_app(__doc__, command)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
