"""Count objects in captions that the photos do not show, by CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image
Captioning"), in percent.

    python -m eval.hallucination captions.json --references captions.jsonl --format own --split val \\
        --detections detections.jsonl --class-words class_words.json

An object counts as present if a detector found it or one of the references names it. CHAIRi is the share of named
objects that are not present, CHAIRs the share of captions that name such an object. Detectors make errors and
references omit objects, so compare numbers only for the same photos and detections.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from captioner.cli.program import create_app, run
from captioner.data.records import bare_name, parse_json, read_lines
from captioner.data.results import Matched, read_systems
from captioner.errors import DataError
from captioner.files import read_text
from captioner.tables import render
from captioner.text.tokenizers import join_pairs, tokenize

Classes = frozenset[str]


@dataclass(frozen=True)
class Hallucination:
    """Counts of objects in the captions of one system."""

    captions: int
    named: int
    """Objects that captions name, each counted once per caption."""
    invented: Counter[str]
    """Words for absent objects, and the number of captions with each."""
    wrong: int
    """Captions that name an absent object."""

    @property
    def row(self) -> list[str]:
        """The system's row of the table."""
        total = self.invented.total()
        return [
            str(self.captions),
            f"{self.named / max(1, self.captions):.2f}",
            f"{100 * total / max(1, self.named):.1f}",
            f"{100 * self.wrong / max(1, self.captions):.1f}",
            ", ".join(f"{word} ({count})" for word, count in self.invented.most_common(5)),
        ]


def read_class_words(path: Path) -> dict[str, Classes]:
    """The classes that each word may stand for, from a JSON file that lists the words of each class."""
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict) or not all(isinstance(words, list) for words in content.values()):
        raise DataError(f'{path}: expected {{"class": ["word", ...], ...}}')
    words = {str(word) for each in content.values() for word in each}
    return {word: frozenset(name for name, each in content.items() if word in each) for word in words}


def read_detected(path: Path, least: float) -> dict[str, set[str]]:
    """The classes detected in each photo with a score of at least ``least``; a numeric id is read as a name."""
    found: dict[str, set[str]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        item: Any = parse_json(line, f"{path}, line {number}")
        try:
            boxes = [box for box in item["detections"] if box["score"] >= least]
            found.setdefault(bare_name(str(item["id"])), set()).update(box["class"] for box in boxes)
        except (TypeError, KeyError) as error:
            raise DataError(f'{path}, line {number}: expected {{"id": ..., "detections": [...]}}') from error
    return found


def named(text: str, words: Mapping[str, Classes]) -> dict[str, Classes]:
    """The words, or pairs of words, of a caption that stand for objects, with their classes."""
    return {word: words[word] for word in join_pairs(tokenize(text), words) if word in words}


def hallucination(
    matched: Matched, words: Mapping[str, Classes], detected: Mapping[str, Iterable[str]]
) -> Hallucination:
    """Counts over the captions of the photos that have detections."""
    captions = total = wrong = 0
    invented: Counter[str] = Counter()
    for image, text in matched.hypotheses.items():
        if (key := bare_name(image)) not in detected:
            continue
        there = {name for line in matched.references[image] for some in named(line, words).values() for name in some}
        there.update(detected[key])
        said = named(text, words)
        missing = [word for word, classes in said.items() if not classes & there]
        captions, total, wrong = captions + 1, total + len(said), wrong + bool(missing)
        invented.update(missing)
    if not captions:
        raise DataError("no captioned photograph has detections; their ids must be the photographs' names or numbers")
    return Hallucination(captions, total, invented, wrong)


def command(
    results: Annotated[list[Path], typer.Argument(help="Captions in any form that captioner score reads.")],
    references: Annotated[list[Path], typer.Option("--references", "-r", help="As for captioner score.")],
    detections: Annotated[Path, typer.Option(help="JSON lines of what a detector found in each photograph.")],
    class_words: Annotated[Path, typer.Option(help="JSON: the words that people use for each of its classes.")],
    data_format: Annotated[str, typer.Option("--format", help="The references' format, if they are a folder.")] = "",
    split: Annotated[str, typer.Option(help="train, val or test; all by default.")] = "",
    least: Annotated[float, typer.Option(min=0, max=1, help="Score that a detection must have.")] = 0.25,
) -> None:
    words, detected = read_class_words(class_words), read_detected(detections, least)
    systems, _ = read_systems(results, references, data_format, split)
    rows = [[path.stem, *hallucination(one, words, detected).row] for path, one in zip(results, systems, strict=True)]
    headings = ["captions of", "photographs", "objects a caption", "CHAIRi", "CHAIRs", "most often not there"]
    print(render(headings, rows, style="markdown"))


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, command), arguments)


if __name__ == "__main__":
    sys.exit(main())
