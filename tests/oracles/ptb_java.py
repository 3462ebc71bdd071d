"""The tokenizer of coco-caption itself: Stanford's PTBTokenizer 3.4.1 in Java, out of the pycocoevalcap package."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

PUNCTUATION = ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
JAR = "stanford-corenlp-3.4.1.jar"
_MARK = re.compile(r"(?:^|\n)a zq(\d+)zq\n")


def jar() -> Path | None:
    """From CAPTIONER_PTB_JAR, else from an installed pycocoevalcap."""
    if named := os.environ.get("CAPTIONER_PTB_JAR"):
        return Path(named)
    package = importlib.util.find_spec("pycocoevalcap")
    folders = list(package.submodule_search_locations or ()) if package else []
    return next((path for folder in folders if (path := Path(folder) / "tokenizer" / JAR).is_file()), None)


def run(text: str) -> str:
    """What the tool prints for a file with this text."""
    command = ["java", "-cp", str(jar()), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode()


def without_punctuation(line: str) -> list[str]:
    """As pycocoevalcap/tokenizer/ptbtokenizer.py does it."""
    return [word for word in line.rstrip().split(" ") if word and word not in PUNCTUATION]


def tokens_of_lines(captions: Sequence[str]) -> list[list[str]]:
    """All captions in one file as coco-caption writes it, so that each may hang on the next."""
    lines = run("\n".join(caption.replace("\n", " ") for caption in captions)).split("\n")
    return [without_punctuation(line) for line in lines[: len(captions)]]


def tokens(captions: Sequence[str]) -> list[list[str]]:
    """Each caption followed by a line that begins with ``A``; a blank joins lines that Java makes of one caption.

    That line is a numbered mark. Where an unclosed tag swallows marks, the captions around are run alone.
    """
    marked = (f"{caption.replace(chr(10), ' ')}\nA zq{i}zq\n" for i, caption in enumerate(captions))
    parts = _MARK.split("\n" + run("".join(marked)))
    found = dict(zip(map(int, parts[1::2]), parts[0::2], strict=False))
    swallowed = [i for i in range(len(captions)) if i not in found or (i > 0 and i - 1 not in found)]
    alone = {i: tokens([captions[i]])[0] for i in swallowed} if len(captions) > 1 else {}
    return [
        alone[i] if i in alone else without_punctuation(found.get(i, "").replace("\n", " "))
        for i in range(len(captions))
    ]
