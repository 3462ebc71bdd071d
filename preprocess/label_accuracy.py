"""Compare the rules that read labels from sentences with spaCy's matcher and parser, on sentences labeled by hand.

    python -m preprocess.label_accuracy tests/fixtures/tacos_golden.tsv
    python -m preprocess.label_accuracy tests/fixtures/tacos_golden_corpus.tsv --corpus data/tacos
    python -m preprocess.label_accuracy tests/fixtures/tacos_golden.tsv --parser en_core_web_sm

The matcher has the word lists of the rules (preprocess/cooking.yaml), their tokenizer, and a few patterns of verbs,
prepositions and the words between them. It lacks what preprocess/clauses.py and preprocess/semantics.py add: clauses,
the distinction of verbs and nouns, pronouns, lists, parts, and the choice of one of several events. With ``--parser`` a
dependency parse takes the place of preprocess/clauses.py alone. A file is a table with the columns of the five nodes
and either ``sentence``, or ``clip_id``, ``index`` and ``sha256`` of a sentence of --corpus.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from captioner.cli.program import create_app, run
from captioner.data.clips import CLIP_READERS, NODES, NULL, read_clips
from captioner.data.records import read_lines
from captioner.errors import DataError
from captioner.optional import require
from captioner.tables import render
from preprocess.lexicon import WORDS, Lexicon
from preprocess.semantics import Extractor, Labels

ADVERBS = {"LOWER": {"REGEX": "..ly$"}, "OP": "*"}


class PlainMatcher:
    """The labels of a sentence by ``spacy.matcher.Matcher``, with the word lists of ``words`` and no further rules.

    The first verb is the activity, the nouns after it (or before a passive) are the object, and the nouns after the
    first preposition of a node are that node's label.
    """

    def __init__(self, words: Lexicon) -> None:
        self.words, self.nlp = words, require("spacy", extra="tacos").blank("en")
        self.matcher: Any = require("spacy.matcher", extra="tacos").Matcher(self.nlp.vocab)
        for name, pattern in self._patterns().items():
            self.matcher.add(name, [pattern], greedy="LONGEST")

    def __call__(self, sentence: str) -> Labels:
        doc = self.nlp(self.words.spell(sentence))
        first: dict[str, list[str]] = {}
        for name, start, end in sorted(self.matcher(doc), key=lambda one: one[1]):
            first.setdefault(self.nlp.vocab.strings[name], [token.text for token in doc[start:end]])
        if "passive" in first:
            verb, thing = [word for word in first["passive"] if word in self.words.forms][-1], first["passive"]
            thing = thing[: next(i for i, word in enumerate(thing) if word in self.words.auxiliaries)]
        elif "active" in first:
            verb, thing = first["active"][0], first.get("object", [])[1:]
        else:
            return (NULL,) * 5
        said = first.get("passive") or first.get("object") or first["active"]
        particle = next((word for word in said if word in self.words.particles), "")
        activity = f"{self.words.forms[verb][0]} {particle}".strip()
        tool, source, target = (self._label(first.get(node, [])[1:]) for node in ("tool", "source", "target"))
        return activity, tool, self._label(thing), source, target

    def _patterns(self) -> dict[str, list[dict[str, Any]]]:
        words = self.words
        small = words.determiners | words.adjectives | words.skipped
        closed = small | words.breaks | words.pronouns | words.auxiliaries | words.negations | words.persons
        closed |= words.particles | words.node_of.keys() | {"of"}
        fetched = words.fetch | words.moves  # "gets" and "goes", which are also in ``aspect``
        verbs = {word for word, (base, _) in words.forms.items() if word not in words.aspect or base in fetched}
        verbs -= words.persons
        past = {word for word in verbs if words.forms[word][1] == "past"} | words.irregular_past
        verb, particle = _one_of(verbs), _one_of(words.particles, "?")
        thing = [_one_of(small, "*"), {"LOWER": {"NOT_IN": sorted(closed)}, "OP": "{1,2}"}]
        of_node = {node: {word for word, place in words.node_of.items() if place == node} for node in NODES}
        return {
            "active": [verb, particle],
            "object": [verb, particle, *thing, particle],
            "passive": [
                *thing,
                _one_of(words.auxiliaries, "+"),
                _one_of(words.skipped, "*"),
                ADVERBS,
                _one_of(past),
                particle,
            ],
        } | {node: [_one_of(heads), *thing] for node, heads in of_node.items() if heads}

    def _label(self, tokens: Sequence[str]) -> str:
        """The name of the nouns among ``tokens``."""
        small = self.words.determiners | self.words.adjectives | self.words.skipped | self.words.particles
        found = self.words.noun_phrase([word for word in tokens if word not in small], None)
        return found.name if found else NULL


def _one_of(words: Collection[str], times: str = "1") -> dict[str, Any]:
    return {"LOWER": {"IN": sorted(words)}} | ({"OP": times} if times != "1" else {})


def read_labeled(path: Path, sentences: Mapping[str, Sequence[str]]) -> list[tuple[str, Labels]]:
    """Sentences and labels of the table at ``path``; sentences given by clip are looked up in ``sentences``.

    Raises ``DataError`` for a missing column, and for a sentence that differs from the one that was labeled.
    """
    rows = list(csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        try:
            text = row["sentence"] if "sentence" in row else sentences[row["clip_id"]][int(row["index"])]
            activity, tool, thing, source, target = (row[node] for node in NODES)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"{where}: no such sentence or column, {error}; --corpus names the corpus") from error
        if "sha256" in row and hashlib.sha256(text.encode()).hexdigest()[:16] != row["sha256"]:
            raise DataError(f"{where}: another sentence was labeled; the corpus is of another edition")
        found.append((text, (activity, tool, thing, source, target)))
    if not found:
        raise DataError(f"{path}: holds no sentences")
    return found


def accuracy(extract: Callable[[str], Labels], labeled: Sequence[tuple[str, Labels]]) -> list[float]:
    """Share of correct labels of each node, and of all five together, in percent."""
    right = np.array([[a == b for a, b in zip(extract(text), gold, strict=True)] for text, gold in labeled])
    return [*(100 * right.mean(0)).tolist(), 100 * float(right.all(1).mean())]


def compare(
    files: Annotated[list[Path], typer.Argument(help="Tables of sentences with labels (.tsv).")],
    corpus: Annotated[Path | None, typer.Option(help="Folder or file of the corpus that they name.")] = None,
    format: Annotated[str, typer.Option(help=f"Its reader: {', '.join(CLIP_READERS)}.")] = "tacos",
    words: Annotated[Path, typer.Option(help="Word lists in the form of preprocess/cooking.yaml.")] = WORDS,
    parser: Annotated[str, typer.Option(help="Also compare this spaCy pipeline, such as en_core_web_sm.")] = "",
) -> None:
    """Print the accuracy of the rules, of the plain matcher and of a dependency parser, in percent."""
    known = {clip.clip_id: clip.sentences for clip in read_clips(format, corpus)} if corpus else {}
    rules = Extractor(words=words)
    extractors: dict[str, Callable[[str], Labels]] = {"rules": rules, "matcher": PlainMatcher(rules.words)}
    if parser:
        extractors["parser"] = Extractor(parser, words)
    rows = []
    for path in files:
        labeled = read_labeled(path, known)
        for name, extract in extractors.items():
            scores = [f"{score:.1f}" for score in accuracy(extract, labeled)]
            rows.append([path.name, name, str(len(labeled)), *scores])
    print(render(["file", "by", "sentences", *NODES, "all five"], rows, text_columns=2))


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, compare), arguments)


if __name__ == "__main__":
    sys.exit(main())
