"""What a sentence says happens in a clip: activity, tool, object, source and target.

"The man cuts the carrot with a knife on the cutting board" is cut, knife, carrot, nothing, cutting board. Rules read
the tokens of spaCy's blank English as clauses (preprocess/clauses.py); they need no trained model, and all words that
they know are in cooking.yaml. With an installed parser of spaCy (``Extractor(parser="en_core_web_sm")``) the clauses
come from its dependencies instead. What the five nodes mean is in docs/tacos.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.data.clips import NULL
from captioner.errors import MissingDependency
from captioner.optional import require
from preprocess.clauses import Event, read_events
from preprocess.lexicon import WORDS, Lexicon, Thing

Labels = tuple[str, str, str, str, str]
"""Activity, tool, object, source and target of one event, NULL where the sentence names none."""


class Extractor:
    """Sentences to labels. ``parser`` names an installed spaCy pipeline; without one the rules read tokens alone."""

    def __init__(self, parser: str = "", words: Path = WORDS) -> None:
        spacy = require("spacy", extra="tacos")
        self.words = Lexicon(words)
        self.parsed = bool(parser)
        try:
            self.nlp: Any = spacy.load(parser) if parser else spacy.blank("en")
        except OSError as error:
            raise MissingDependency(
                f"spaCy has no pipeline {parser!r} here; install it with: python -m spacy download {parser}"
            ) from error

    def __call__(self, sentence: str) -> Labels:
        """The labels of the event that ``sentence`` tells."""
        return choose(self.events(sentence), self.words)

    def events(self, sentence: str) -> list[Event]:
        """All events of ``sentence``, in its order."""
        doc = self.nlp(self.words.spell(sentence))
        if self.parsed:
            return parsed_events(doc, self.words)
        return read_events([token.text for token in doc if not token.is_space], self.words)


def choose(events: list[Event], words: Lexicon) -> Labels:
    """The first event that has an object and is more than preparation (going somewhere, opening a drawer).

    Where there is none: the first without an object, then the first that only prepares. "It" stands for the object of
    the event before. What is fetched without a source comes from the place that was gone to or opened before.
    """
    ranked = sorted(events, key=lambda event: _rank(event, words))
    if not ranked:
        return (NULL,) * 5
    chosen = ranked[0]
    before = next((index for index, event in enumerate(events) if event is chosen))
    chosen = replace(chosen, places=dict(chosen.places))
    if chosen.pronoun:
        chosen.object = next((event.object for event in reversed(events[:before]) if event.object), None)
    if chosen.verb in words.fetch and not (chosen.object and chosen.object.whole):
        for event in reversed(events[:before]):
            chosen.put("source", _storage(event, words))
    thing = chosen.object
    if thing and thing.whole and chosen.verb in words.fetch and _is_storage(chosen.places.get("source"), words):
        thing = Thing(thing.whole)  # "takes a stalk of celery from the fridge"
    if thing and thing.whole:
        chosen.put("source", Thing(thing.whole))
    name = {node: place.name for node, place in chosen.places.items()}
    activity = f"{chosen.verb} {chosen.particle}".strip()
    tool, source, target = (name.get(node, NULL) for node in ("tool", "source", "target"))
    return activity, tool, thing.name if thing else NULL, source, target


def _rank(event: Event, words: Lexicon) -> int:
    if event.verb in words.empty:
        return 4
    if event.verb in words.moves:
        return 3
    if event.verb in words.opens and (event.pronoun or _storage(event, words) or event.object == Thing("door")):
        return 3
    return 0 if event.has_object else 2 if event.verb in words.aspect else 1


def _storage(event: Event, words: Lexicon) -> Thing | None:
    """The cupboard that an event goes to or opens."""
    places = [event.object] if event.verb in words.opens else [event.places.get("target"), event.object]
    if event.verb not in words.opens and event.verb not in words.moves:
        return None
    return next((place for place in places if _is_storage(place, words)), None)


def _is_storage(place: Thing | None, words: Lexicon) -> bool:
    return place is not None and place.name.split()[-1] in words.storage


def parsed_events(doc: Any, words: Lexicon) -> list[Event]:
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
                event.object = None if event.pronoun else parsed_thing(child, words)
            elif child.dep_ == "prep" and child.lower_ in words.node_of:
                for noun in (child for child in child.children if child.dep_ == "pobj"):
                    event.put(words.node_of[child.lower_], parsed_thing(noun, words))
        events.append(event)
    return events


def parsed_thing(noun: Any, words: Lexicon) -> Thing | None:
    """The noun at a token with its compound modifiers and what "of" leads to."""
    names = [child.lower_ for child in noun.lefts if child.dep_ == "compound"] + [noun.lower_]
    inner = next((end for of in noun.children if of.lower_ == "of" for end in of.children if end.dep_ == "pobj"), None)
    return words.thing(names, parsed_thing(inner, words) if inner is not None else None)


def canonical(labels: Labels, words: Lexicon) -> Labels:
    """``labels`` with one name for what people call differently (fridge, refrigerator), as cooking.yaml lists it.

    "Removes" is "takes out" when it happens to come out of a place of storage.
    """
    activities, things = words.same["activities"], words.same["things"]
    activity, *rest = labels
    tool, thing, source, target = (things.get(name, name) for name in rest)
    if activity == "remove" and source.split()[-1] in words.storage:
        activity = "take out"
    return activities.get(activity, activity), tool, thing, source, target
