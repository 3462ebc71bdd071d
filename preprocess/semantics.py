"""Labels of a sentence: activity, tool, object, source and target.

"The man cuts the carrot with a knife on the cutting board" is cut, knife, carrot, NULL, cutting board. By default spaCy
only tokenizes (``spacy.blank("en")``, which needs no trained pipeline) and rules read the tokens as clauses
(preprocess/clauses.py) with the word lists of cooking.yaml. With an installed pipeline, such as
``Extractor("en_core_web_sm")``, the clauses come from its dependency parse instead. docs/tacos-labels.md defines the
nodes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.data.clips import NULL
from captioner.errors import MissingDependency
from captioner.optional import require
from preprocess.clauses import Event, read_events
from preprocess.lexicon import WORDS, Lexicon, NounPhrase

Labels = tuple[str, str, str, str, str]
"""Activity, tool, object, source and target of an event; ``NULL`` if the sentence names none."""


class Extractor:
    """Extracts labels from sentences. ``parser`` is an installed spaCy pipeline; by default rules read the tokens.

    Raises ``MissingDependency`` if spaCy or the pipeline is not installed.
    """

    def __init__(self, parser: str = "", words: Path = WORDS) -> None:
        spacy = require("spacy", extra="tacos")
        self.words = Lexicon(words)
        self.uses_parser = bool(parser)
        try:
            self.nlp: Any = spacy.load(parser) if parser else spacy.blank("en")
        except OSError as error:
            raise MissingDependency(
                f"spaCy has no pipeline {parser!r} here; install it with: python -m spacy download {parser}"
            ) from error

    def __call__(self, sentence: str) -> Labels:
        """Labels of the main event of ``sentence``."""
        return select_event(self.events(sentence), self.words)

    def events(self, sentence: str) -> list[Event]:
        """All events of ``sentence``, in order."""
        doc = self.nlp(self.words.spell(sentence))
        if self.uses_parser:
            return events_from_parse(doc, self.words)
        return read_events([token.text for token in doc if not token.is_space], self.words)


def select_event(events: list[Event], words: Lexicon) -> Labels:
    """Labels of the first event that has an object and is not preparation (going somewhere, opening a drawer).

    If there is none, the first event without an object, then the first preparation. "It" is the object of the previous
    event. If the source of something fetched is not named, it is the place that was approached or opened before.
    """
    ranked = sorted(events, key=lambda event: _rank(event, words))
    if not ranked:
        return (NULL,) * 5
    chosen = ranked[0]
    before = next((index for index, event in enumerate(events) if event is chosen))
    chosen = replace(chosen, arguments=dict(chosen.arguments))
    if chosen.pronoun:
        chosen.object = next((event.object for event in reversed(events[:before]) if event.object), None)
    if chosen.verb in words.fetch and not (chosen.object and chosen.object.whole):
        for event in reversed(events[:before]):
            chosen.fill("source", _storage(event, words))
    thing = chosen.object
    if thing and thing.whole and chosen.verb in words.fetch and _is_storage(chosen.arguments.get("source"), words):
        thing = NounPhrase(thing.whole)  # "takes a stalk of celery from the fridge"
    if thing and thing.whole:
        chosen.fill("source", NounPhrase(thing.whole))
    name = {node: place.name for node, place in chosen.arguments.items()}
    activity = f"{chosen.verb} {chosen.particle}".strip()
    tool, source, target = (name.get(node, NULL) for node in ("tool", "source", "target"))
    return activity, tool, thing.name if thing else NULL, source, target


def _rank(event: Event, words: Lexicon) -> int:
    if event.verb in words.empty:
        return 4
    if event.verb in words.moves:
        return 3
    if event.verb in words.opens and (event.pronoun or _storage(event, words) or event.object == NounPhrase("door")):
        return 3
    return 0 if event.has_object else 2 if event.verb in words.aspect else 1


def _storage(event: Event, words: Lexicon) -> NounPhrase | None:
    """The place of storage that an event approaches or opens; None if it does neither."""
    places = [event.object] if event.verb in words.opens else [event.arguments.get("target"), event.object]
    if event.verb not in words.opens and event.verb not in words.moves:
        return None
    return next((place for place in places if _is_storage(place, words)), None)


def _is_storage(place: NounPhrase | None, words: Lexicon) -> bool:
    return place is not None and place.name.split()[-1] in words.storage


def events_from_parse(doc: Any, words: Lexicon) -> list[Event]:
    """The events of a ``Doc`` with lemmas and dependencies (ClearNLP labels, as in spaCy's English pipelines)."""
    events = []
    for token in doc:
        if token.pos_ != "VERB" or token.dep_ in ("amod", "compound") or token.lemma_ in words.aspect:
            continue
        event = Event(token.lemma_.lower())
        for child in token.children:
            if child.dep_ == "prt":
                event.particle = child.lower_
            elif child.dep_ in ("dobj", "obj", "nsubjpass", "nsubj:pass"):
                event.pronoun = child.pos_ == "PRON"
                event.object = None if event.pronoun else noun_phrase_from_parse(child, words)
            elif child.dep_ == "prep" and child.lower_ in words.node_of:
                for noun in (child for child in child.children if child.dep_ == "pobj"):
                    event.fill(words.node_of[child.lower_], noun_phrase_from_parse(noun, words))
        events.append(event)
    return events


def noun_phrase_from_parse(noun: Any, words: Lexicon) -> NounPhrase | None:
    """The noun phrase of a token: its compound modifiers, and the noun after its "of"."""
    names = [child.lower_ for child in noun.lefts if child.dep_ == "compound"] + [noun.lower_]
    inner = next((end for of in noun.children if of.lower_ == "of" for end in of.children if end.dep_ == "pobj"), None)
    return words.noun_phrase(names, noun_phrase_from_parse(inner, words) if inner is not None else None)


def merge_synonyms(labels: Labels, words: Lexicon) -> Labels:
    """``labels`` with one name for synonyms (fridge, refrigerator), as cooking.yaml lists them.

    "Remove" becomes "take out" if the source is a place of storage.
    """
    activities, things = words.synonyms["activities"], words.synonyms["things"]
    activity, *rest = labels
    tool, thing, source, target = (things.get(name, name) for name in rest)
    if activity == "remove" and source.split()[-1] in words.storage:
        activity = "take out"
    return activities.get(activity, activity), tool, thing, source, target
