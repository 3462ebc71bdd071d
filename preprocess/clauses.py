"""Rule-based parser: from the tokens of a sentence to verbs with their particle, object, tool and places.

Verbs, particles, prepositions and so on are word lists (preprocess/lexicon.py). One pass from left to right is enough
for English sentences about what somebody does: a clause begins with its verb ("cut the carrot"), a subject ("the man
cuts", "the carrot is cut") or a place ("with a knife, he cuts"), and ends at a conjunction or a comma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from preprocess.lexicon import Lexicon, NounPhrase, guess_base


@dataclass
class Event:
    """A verb and its arguments. ``pronoun``: the object is "it" or "them". ``form``: base, s, past or ing."""

    verb: str
    form: str = "base"
    particle: str = ""
    object: NounPhrase | None = None
    pronoun: bool = False
    arguments: dict[str, NounPhrase] = field(default_factory=dict)
    """Tool, source and target, as far as the sentence names them."""

    def fill(self, node: str, thing: NounPhrase | None) -> None:
        """Set the argument ``node`` unless it is set already."""
        if thing is not None and node != "none":
            self.arguments.setdefault(node, thing)

    @property
    def has_object(self) -> bool:
        return self.object is not None or self.pronoun


def read_events(tokens: Sequence[str], words: Lexicon) -> list[Event]:
    """The events of the lower-case ``tokens`` of one sentence, in order."""
    return _ClauseParser(tokens, words).parse()


class _ClauseParser:
    """State of the pass over one sentence's tokens."""

    def __init__(self, tokens: Sequence[str], words: Lexicon) -> None:
        self.tokens, self.words, self.position = tokens, words, 0
        self.events: list[Event] = []
        self.pending: dict[str, NounPhrase] = {}  # named before the verb: "with a knife, he cuts"
        self.list_head: NounPhrase | None = None  # "the seeds" of "the seeds and ribs are removed"
        self.expects_verb = False  # after "to" or "by"

    def parse(self) -> list[Event]:
        while self.position < len(self.tokens):
            before = self.position
            self.clause()
            self.position = max(self.position, before + 1)
        for node, thing in self.pending.items():
            if self.events:
                self.events[-1].fill(node, thing)
        return self.events

    def token(self, ahead: int = 0) -> str:
        index = self.position + ahead
        return self.tokens[index] if 0 <= index < len(self.tokens) else ""

    def skip(self) -> None:
        """Move past adverbs and other skipped words."""
        while self.token() in self.words.skipped or (self.token().endswith("ly") and len(self.token()) > 4):
            self.position += 1

    # ------------------------------------------------------------------------------------------ clauses

    def clause(self) -> None:
        """Parse up to the next break: places before the verb, subject, verb and complements."""
        words = self.words
        joined = ""
        while self.token() and (self.token() in words.breaks or self.token() in words.skipped):
            joined = self.token() if self.token() in ("and", ",", "or") else ""
            self.position += 1
        self.skip()
        if self.token() in words.node_of and not self.expects_verb:
            node = words.node_of[self.token()]
            self.position += 1
            thing = self.noun_phrase()
            if thing is not None and node != "none":
                self.pending[node] = self.located(thing)
            return
        verb = self.verb_first(joined)
        if verb is not None:
            last = self.events[-1] if self.events else None
            self.event(*verb)
            if joined and last:
                self.share_object(verb[1])
            return
        subject = self.noun_phrase(subject=True)
        if subject is None and self.token() in words.pronouns:
            self.position += 1
            subject = NounPhrase("it")
        if subject is not None:
            self.predicate(subject)

    def share_object(self, form: str) -> None:
        """Give the last event's object to verbs that are joined to it: "peels and cuts the kiwi"."""
        for event in reversed(self.events[:-1]):
            if event.has_object or event.arguments or event.form != form or event.verb in self.words.alone:
                return
            event.object, event.pronoun = self.events[-1].object, self.events[-1].pronoun

    def predicate(self, subject: NounPhrase) -> None:
        """Parse the words after a subject; without a verb the noun continues the previous event's list."""
        words = self.words
        person = words.is_person(subject)
        start, auxiliary = self.position, ""
        self.skip()
        while self.token() in words.auxiliaries or self.token() in words.negations:
            auxiliary = self.token() or auxiliary
            self.position += 1
            self.skip()
        verb = self.verb_after(person, auxiliary)
        if verb is None and not person and not auxiliary and not self.events:
            self.list_head = self.list_head or subject
        if verb is None:
            self.position = start if not auxiliary else self.position
            if self.events and not person:
                self.complements(self.events[-1], closed=True)
            return
        passive = not person and verb[1] == "past"
        self.event(*verb, subject=(self.list_head or subject) if passive else None)
        self.list_head = None

    def verb_first(self, joined: str) -> tuple[str, str] | None:
        """Consume the verb of a clause without a subject; None if a noun begins instead."""
        sure, self.expects_verb = self.aspects() or self.expects_verb, False
        word = self.token()
        found = self.words.forms.get(word)
        if found is None or not (sure or self.begins_clause(word, found[1], joined)):
            return None
        self.position += 1
        return found

    def begins_clause(self, word: str, form: str, joined: str) -> bool:
        """Whether ``word``, which can be a verb, is one here: "peels the lime", not "peels are thrown away"."""
        words, following = self.words, self.token(1)
        if following in words.auxiliaries or (following == "of" and words.forms[word][0] not in words.of_verbs):
            return False
        if form == "past" and word not in words.nouns_too and self.has_auxiliary():
            return False
        if form == "ing" and word in words.thing_ing:
            return following in words.determiners | words.particles | words.pronouns
        if form == "base" and self.position == 0 and following in words.node_of and not self.has_auxiliary():
            return True
        if word not in words.nouns_too or following in words.determiners or following in words.pronouns:
            return True
        if following in words.particles or (following == "on" and words.forms[word][0] in words.on_verbs):
            return True
        last = self.events[-1] if self.events else None
        if joined and last is not None and not last.has_object:
            return True
        if not following or following in words.breaks or following in words.node_of:
            return False
        if following in words.forms and following not in words.nouns_too:
            return False
        return not joined or last is None or last.form == form

    def has_auxiliary(self) -> bool:
        """Whether "is" or "are" stands between here and the next break."""
        for ahead in range(1, len(self.tokens) - self.position):
            if self.token(ahead) in self.words.breaks:
                return False
            if self.token(ahead) in self.words.auxiliaries:
                return True
        return False

    def verb_after(self, person: bool, auxiliary: str) -> tuple[str, str] | None:
        """Consume the verb after a subject and its auxiliaries."""
        words = self.words
        aspect = self.aspects()
        word = self.token()
        found = words.forms.get(word)
        if found is None and person and not auxiliary and word not in words.node_of and word not in words.breaks:
            base = guess_base(word)
            found = (base, "s") if base and word not in words.aspect else None
        elif found is not None and not person and not aspect:
            if not auxiliary and (found[1] == "base" or word in words.nouns_too):
                found = None
            elif auxiliary and word in words.irregular_past:
                found = (found[0], "past")
        if found is not None:
            self.position += 1
        elif auxiliary in ("has", "have", "had") and person:
            found = ("have", "s")
        return found

    def aspects(self) -> bool:
        """Consume "starts to", "finishes", "continues to carefully"; True if there was one."""
        start = self.position
        while self.token() in self.words.aspect:
            step = 1
            while self.token(step) in self.words.skipped or self.token(step).endswith("ly"):
                step += 1
            if self.token(step) == "to":
                step += 1
                while self.token(step).endswith("ly"):
                    step += 1
                if self.token(step) == "be":
                    self.position, step = self.position + step + 1, 0
                goes_on = self.verbal(step, "base") or self.token(step) in self.words.aspect
            else:
                step += self.token(step) == "by"
                goes_on = self.verbal(step, "ing") or self.token(step) in ("about", "ready")
            if not goes_on:
                break
            self.position += step
        return self.position > start

    def verbal(self, ahead: int, form: str) -> bool:
        """Whether the token can be a verb of that form and its context does not make it a noun."""
        word, following = self.token(ahead), self.token(ahead + 1)
        found = self.words.forms.get(word)
        if found is None or found[1] != form:
            return False
        if form == "ing":
            return word not in self.words.thing_ing or following not in ("board", "pan", "knife", "bowl", "station")
        ends = not following or following in self.words.breaks or following in self.words.node_of
        return not (ends and word in self.words.things_first)

    def event(self, verb: str, form: str, subject: NounPhrase | None = None) -> None:
        found = Event(verb, form, object=subject, arguments=self.pending)
        self.pending = {}
        self.events.append(found)
        self.complements(found)
        if verb == "use" and self.expects_verb:  # "uses a knife to cut": the knife is the tool of the next event
            self.events.pop()
            self.pending = found.arguments
            if found.object is not None:
                self.pending["tool"] = self.located(found.object)

    # ------------------------------------------------------------------------------------------ complements

    def complements(self, event: Event, closed: bool = False) -> None:
        """Parse particle, object and places up to the next clause; ``closed``: no object can follow."""
        words = self.words
        closed = closed or event.object is not None
        while True:
            self.skip()
            word = self.token()
            if not word or word in words.subjects or (word in words.breaks and not self.is_determiner()):
                return
            if self.begins_infinitive():
                return
            if self.particle(event, closed):
                continue
            if word == "of" and not closed:
                self.position += 1
                event.object, closed = self.noun_phrase(), True
            elif word in words.node_of:
                self.position += 1
                self.place(event, words.node_of[word])
            elif word in words.pronouns and not self.is_determiner():
                event.pronoun = event.pronoun or not closed
                closed = True
                self.position += 1
            elif closed and word not in words.nouns_too and self.verbal(0, words.forms.get(word, ("", ""))[1]):
                return
            else:
                before = self.position
                thing = self.noun_phrase()
                if thing is not None and words.is_person(thing):
                    self.position = before
                    return
                if thing is not None and not closed:
                    event.object, closed = thing, True
                self.position = max(self.position, before + 1)

    def begins_infinitive(self) -> bool:
        """Consume "to" before an infinitive or "by" before a verb in -ing, which begin another clause."""
        form = {"to": "base", "by": "ing"}.get(self.token(), "")
        if not self.verbal(1 + self.token(1).endswith("ly"), form):
            return False
        self.position, self.expects_verb = self.position + 1, True
        self.skip()
        return True

    def is_determiner(self) -> bool:
        """Whether the pronoun here ("each", "that") is a determiner of the following noun."""
        following = self.token(1)
        return (
            self.token() in self.words.determiners
            and self.token() not in ("that",)
            and bool(following)
            and following not in self.words.breaks
            and (following == "of" or following not in self.words.node_of)
            and following not in self.words.particles
        )

    def place(self, event: Event, node: str) -> None:
        self.position += self.token() in self.words.node_of  # "from under the oven"
        thing = self.noun_phrase()
        if thing is not None and thing.name in self.words.times:
            return
        event.fill(node, self.located(thing) if thing else None)

    def located(self, thing: NounPhrase) -> NounPhrase:
        """The whole in "on the edge of the cup" and "with the flat side of the knife"."""
        return NounPhrase(thing.whole) if thing.whole and thing.name.split()[-1] in self.words.relations else thing

    def particle(self, event: Event, closed: bool) -> bool:
        """Consume a particle such as "out", with the source that follows "off" or "out of"."""
        words, word, following = self.words, self.token(), self.token(1)
        if word == "on":
            if event.verb not in words.on_verbs or event.particle or (closed and following in words.determiners):
                return False
        elif word not in words.particles:
            return False
        elif word == "down" and closed and following in words.determiners:  # "down the middle"
            self.position += 1
            self.place(event, "none")
            return True
        thing_follows = bool(following) and following not in words.breaks and following not in words.node_of
        if word in ("over", "off") and closed and thing_follows and following not in words.skipped:
            if word == "over":
                return False
            self.position += 1
            event.fill("source", self.noun_phrase())
        elif following in ("of", "from") and word in ("out", "off", "away"):
            self.position += 2
            event.fill("source", self.noun_phrase())
        else:
            self.position += 1
        if event.verb not in words.moves:
            event.particle = event.particle or word
        return True

    # ------------------------------------------------------------------------------------------ nouns

    def noun_phrase(self, subject: bool = False, determined: bool = False) -> NounPhrase | None:
        """Consume the noun phrase that begins here; None if none does. ``determined``: after a determiner."""
        words: list[str] = []
        bare = ""  # an adjective that may turn out to be the noun: "the top"
        while word := self.token():
            kind = self.token_kind(word, bool(words), determined, subject)
            if word in ("and", "or") and bare and not words and self.is_adjective(self.token(1)):
                kind = "adjective"  # "a large and small knife"
            if kind == "end":
                break
            if kind == "noun":
                words.append(word)
            elif kind == "adjective":
                bare, determined = word, True
            elif kind == "determiner":
                determined = True
                bare = word if word in self.words.quantities else bare
            self.position += 1
        if not words and bare and bare in self.words.parts | self.words.quantities | self.words.nouns_too:
            words = [bare]
        inner = None
        if self.token() == "of" and (words or determined):
            self.position += 1
            inner = self.noun_phrase(determined=True)
        if not words and bare in self.words.relations and inner:
            words = [bare]
        return self.words.noun_phrase(words, inner)

    def token_kind(self, word: str, begun: bool, determined: bool, subject: bool) -> str:
        """Role of ``word`` in a noun phrase: noun, adjective, determiner, owner ("'s"), or end of the phrase."""
        lists, following = self.words, self.token(1)
        if word in ("'s", "'"):
            return "owner" if begun and following and following not in lists.determiners else "end"
        if word in lists.determiners:
            return "end" if begun else "determiner"
        if word == "can" and begun and not subject:
            return "noun"
        if begun and (word in lists.subjects or (word.endswith("ing") and not self.is_thing_ing(word))):
            return "end"
        if (word in lists.breaks or word in lists.auxiliaries or word in lists.negations or word in lists.pronouns) or (
            word in lists.skipped
        ):
            return "end"
        if word in lists.adjectives and not begun:
            return "adjective"
        if word in lists.parts and begun and not subject:
            return "noun"
        if word in lists.node_of or word in lists.particles:
            return "noun" if determined and not begun and word in lists.parts else "end"
        if word[0].isdigit() or word.endswith("ly"):
            return "adjective"
        return self.verb_or_noun(word, begun, determined, subject)

    def is_adjective(self, word: str) -> bool:
        form = self.words.forms.get(word, ("", ""))[1]
        return word in self.words.adjectives or (form == "past" or (not form and word.endswith("ed") and len(word) > 4))

    def is_thing_ing(self, word: str) -> bool:
        return word in self.words.thing_ing or word in self.words.nouns_too or len(word) < 6

    def verb_or_noun(self, word: str, begun: bool, determined: bool, subject: bool) -> str:
        """The kind of an open-class word in a noun phrase."""
        lists, following = self.words, self.token(1)
        form = lists.forms.get(word, ("", ""))[1]
        if subject and begun and self.token(-1) in lists.persons:
            return "end"
        if following in lists.auxiliaries and form == "s":
            return "noun"
        if subject and begun and (form or word in lists.aspect):
            aux = following in lists.auxiliaries or lists.forms.get(following, ("", ""))[1] == "past"
            return "noun" if word in lists.nouns_too and aux else "end"
        if not form or word in lists.nouns_too:
            participle = word.endswith("ed") and len(word) > 4 and word not in lists.nouns_too and not begun
            return "adjective" if participle else "noun"
        if form == "past":
            return "end" if begun else "adjective"
        if form == "ing":
            return "noun" if word in lists.thing_ing else "end" if begun or not determined else "adjective"
        return "noun" if determined and not begun else "end"
