"""coco-caption's own tokens, by Stanford's PTBTokenizer 3.4.1, a Java program that is part of pycocoevalcap.

The program reads all texts as one: whether ``P.`` at the end of a caption is an initial depends on the first word of
the next caption. So the same captions in the same order are needed for the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from captioner.errors import MissingDependency
from captioner.java import find_jar, run_java

VERSION = "3.4.1"
JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
MAIN = "edu.stanford.nlp.process.PTBTokenizer"
REMOVED = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
"""coco-caption's ``PUNCTUATIONS``."""


def ptb_java(texts: Sequence[str]) -> list[list[str]]:
    """The tokens of each text, all in one run; ``MissingDependency`` says what is not installed."""
    if not texts:
        return []
    jar = find_jar("ptb-java", JAR)
    text = "\n".join(" ".join(text.splitlines()) for text in texts) + "\n"
    answer = run_java("ptb-java", jar, ["-preserveLines", "-lowerCase"], "2G", text, MAIN)
    lines = answer.removesuffix("\n").split("\n")
    if len(lines) != len(texts):
        raise MissingDependency(f"ptb-java: {jar} gave {len(lines)} lines for {len(texts)} captions")
    return [[token for token in line.split(" ") if token and token not in REMOVED] for line in lines]
