"""The word lists of the rules in preprocess/clauses.py (cooking.yaml), verb inflections and singulars."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from captioner.errors import DataError
from captioner.plain_yaml import read_yaml

WORDS = Path(__file__).parent / "cooking.yaml"


@dataclass(frozen=True)
class NounPhrase:
    """A noun without articles and adjectives; ``whole`` is what it is part of (carrot in "ends of the carrot")."""

    name: str
    whole: str = ""


class Lexicon:
    """The word lists of a YAML file such as cooking.yaml, each as an attribute, and tables derived from them."""

    def __init__(self, path: Path = WORDS) -> None:
        document = read_words(path)
        vars(self).update({key: frozenset(text.split()) for key, text in document.items() if isinstance(text, str)})
        self._irregular: dict[str, str] = document["irregular"]
        self._nouns: dict[str, str] = document["nouns"]
        self._spelling: dict[str, str] = document["spelling"]
        self.synonyms = {
            kind: {word.strip(): name for name, words in names.items() for word in words.split(",")}
            for kind, names in document["same"].items()
        }
        """For ``activities`` and ``things``, the label of each word whose label is another word."""
        self.node_of = {word: node for node, words in document["prepositions"].items() for word in words.split()}

    def __getattr__(self, name: str) -> frozenset[str]:  # declares the lists for type checkers
        raise AttributeError(name)

    @cached_property
    def irregular_past(self) -> frozenset[str]:
        return frozenset(word for words in self._irregular.values() for word in words.split())

    @cached_property
    def forms(self) -> dict[str, tuple[str, str]]:
        """(Base, form) of each inflected verb; a form is base, s, past or ing."""
        found: dict[str, tuple[str, str]] = {}
        for verb in self.verbs:
            for form, word in inflections(verb, self._irregular.get(verb, "").split()):
                found.setdefault(word, (verb, form))
        return found | {verb: (verb, "base") for verb in self.verbs}

    def singular(self, noun: str) -> str:
        """``knives`` to ``knife``, ``potatoes`` to ``potato``."""
        if noun in self._nouns:
            return self._nouns[noun]
        if len(noun) < 4 or noun in self.in_s or not noun.endswith("s") or noun.endswith("ss"):
            return noun
        if noun.endswith("ies"):
            return noun[:-3] + "y"
        return noun[:-2] if re.search(r"(ch|sh|x|ss|o)es$", noun) else noun[:-1]

    def is_person(self, thing: NounPhrase) -> bool:
        return thing.name.split()[-1] in self.persons

    def spell(self, text: str) -> str:
        """Lower case, common misspellings corrected, hyphens inside words removed."""
        text = re.sub(r"\bre-(?=\w)", "re", text.lower().replace("\u2019", "'"))
        text = re.sub(r"(?<=\w)-(?=\w)", " ", re.sub(r"(?<=[a-z])/(?=[a-z])", " and ", text))
        text = text.replace("by hand", "with hand")
        text = re.sub(r"([(),;])", r" \1 ", text)
        return re.sub(r"\w+", lambda word: self._spelling.get(word[0], word[0]), text)

    def noun_phrase(self, words: list[str], inner: NounPhrase | None) -> NounPhrase | None:
        """The noun phrase of ``words``, head last, with the noun phrase after its "of" (``inner``)."""
        names = [self.singular(word) for word in words]
        if not names:
            return inner
        head = names[-1]
        if inner is not None and inner.name not in self.times:
            whole = inner.name if head in self.parts else ""
            return inner if head in self.quantities else NounPhrase(" ".join(names[-2:]), whole)
        if len(names) > 1 and head in self.portions:
            return NounPhrase(" ".join(names[:-1][-2:]))
        if len(names) > 1 and head in self.parts:
            return NounPhrase(head, " ".join(names[:-1][-2:]))
        return NounPhrase(" ".join(names[-2:]))


def read_words(path: Path) -> dict[str, Any]:
    """The document at ``path``; raises ``DataError`` unless it has all lists and tables of cooking.yaml."""
    document: dict[str, Any] = read_yaml(path, DataError)
    model = document if path == WORDS else read_words(WORDS)
    for key, value in model.items():
        if not isinstance(document, dict) or not _same_form(document.get(key), value):
            raise DataError(f"{path}: {key} must be there, in the form that it has in {WORDS}")
    return document


def _same_form(value: Any, model: Any) -> bool:
    """Whether both are strings, or tables whose entries have the same form."""
    if not isinstance(model, dict):
        return isinstance(value, str)
    inner = next(iter(model.values()))
    return isinstance(value, dict) and all(_same_form(item, inner) for item in value.values())


def inflections(verb: str, irregular: list[str]) -> Iterator[tuple[str, str]]:
    """(form, word) pairs of a verb; both spellings if a final consonant may double."""
    y = re.search(r"[^aeiou]y$", verb)
    yield "s", verb[:-1] + "ies" if y else verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")
    stems = [verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb]
    if re.search(r"[^aeiou][aeiou][^aeiouwxy]$", verb):
        stems.append(verb + verb[-1])
    for stem in stems:
        yield "ing", stem + "ing"
        yield "past", (verb[:-1] + "i" if y else stem.removesuffix("e") if verb.endswith("ee") else stem) + "ed"
    if verb.endswith("ee"):
        yield "past", verb + "d"
    for word in irregular:
        yield "past", word


def guess_base(word: str) -> str | None:
    """The base of an unknown verb in -s or -ed, guessed from its spelling; None for other words."""
    if word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if re.search(r"(ch|sh|x|z|ss)es$", word):
        return word[:-2]
    if word.endswith("ed") and len(word) > 4:
        return word[:-3] if word[-3] == word[-4] and word[-3] not in "ls" else word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else None
