"""Longest match over a list of patterns, as a JFlex lexer finds it: of equally long matches the earlier pattern wins.

Python's ``re`` cannot do this: it takes the first alternative that fits, not the longest. So the patterns become one
nondeterministic automaton (Thompson's construction), and its deterministic states are made when a text first needs
them. Matching then costs a look-up a character, whatever the number of patterns.

Patterns are written as in JFlex: ``{name}`` a named pattern, ``[a-z]`` and ``[^a-z]`` characters, ``a{2,3}``, ``*``,
``+``, ``?``, ``|``, ``(...)``, a backslash before a character that stands for itself, and ``\\u00a0``. Letters outside
of brackets match in either case, letters in brackets as they are written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

FORMS = {"i": "iI\u0130\u0131", "k": "kK\u212a", "s": "sS\u017f"}
"""Letters of more than two forms: with and without dot, the Kelvin sign, the long s."""
LAST = "\U0010ffff"


@dataclass(frozen=True)
class Characters:
    """The characters of some ranges, or all others."""

    ranges: tuple[tuple[str, str], ...]  # sorted, first and last character of each, without overlap
    inverted: bool = False

    def __contains__(self, character: str) -> bool:
        at = bisect_right(self.ranges, (character, LAST)) - 1
        return (at >= 0 and character <= self.ranges[at][1]) != self.inverted


def _merged(ranges: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return tuple(found)


class Network:
    """A nondeterministic automaton: for each state the arcs that read one of a set of characters, and the free ones."""

    def __init__(self, named: Mapping[str, str]) -> None:
        self.named = named
        self.sets: dict[Characters, int] = {}
        self.arcs: list[list[tuple[int, int]]] = []  # (number of the set, target)
        self.free: list[list[int]] = []

    def state(self) -> int:
        self.arcs.append([])
        self.free.append([])
        return len(self.arcs) - 1

    def read(self, start: int, characters: Characters) -> int:
        """One character from ``start`` on; the state after it."""
        end = self.state()
        self.arcs[start].append((self.sets.setdefault(characters, len(self.sets)), end))
        return end

    def lay(self, pattern: str, start: int) -> int:
        """``pattern`` from ``start`` on; the state after it."""
        reader = _Reader(self, pattern)
        end = reader.choice(start)
        assert reader.at == len(pattern), f"unbalanced: {pattern[reader.at :]!r} of {pattern!r}"
        return end


class _Reader:
    """Recursive descent through a pattern; each method lays what it reads and returns the state after it."""

    def __init__(self, network: Network, pattern: str) -> None:
        self.network, self.pattern, self.at = network, pattern, 0

    def next(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.pattern[self.at - 1]

    def choice(self, start: int) -> int:
        end = self.network.state()
        self.network.free[self.sequence(start)].append(end)
        while self.next() == "|":
            self.at += 1
            self.network.free[self.sequence(start)].append(end)
        return end

    def sequence(self, start: int) -> int:
        while self.next() and self.next() not in "|)":
            start = self.repeated(start)
        return start

    def repeated(self, start: int) -> int:
        free, begin = self.network.free, self.at
        entry, end = self.network.state(), self.network.state()
        free[start].append(entry)  # a state of its own, so that a loop back to it does not reach what was before
        last = self.single(entry)
        low, high = self.count()
        after = self.at
        if low == 0:
            free[entry].append(end)
        if high == 0:
            free[last].append(entry)
        for copy in range(1, max(low, high) + 1):
            if copy > 1:
                self.at = begin
                last = self.single(last)
            if copy >= low:
                free[last].append(end)
        self.at = after
        return end

    def count(self) -> tuple[int, int]:
        """How often at least and at most; 0 at most stands for any number."""
        following = self.pattern[self.at + 1 : self.at + 2]
        if self.next() == "{" and following.isdigit():
            inside = self.name()
            low, _, high = inside.partition(",")
            return int(low), int(high or low)
        counts = {"*": (0, 0), "+": (1, 0), "?": (0, 1)}
        return counts[self.take()] if self.next() and self.next() in counts else (1, 1)

    def name(self) -> str:
        """What stands between braces."""
        begin, self.at = self.at + 1, self.pattern.index("}", self.at) + 1
        return self.pattern[begin : self.at - 1]

    def single(self, start: int) -> int:
        if self.next() == "{":
            return self.network.lay(self.network.named[self.name()], start)
        if self.next() == "(":
            self.at += 1
            end = self.choice(start)
            assert self.take() == ")"
            return end
        if self.next() == "[":
            self.at += 1
            return self.network.read(start, self.bracket())
        sign = self.character()
        forms = FORMS.get(sign.lower(), sign.lower() + sign.upper())
        return self.network.read(start, Characters(tuple((form, form) for form in sorted(forms))))

    def bracket(self) -> Characters:
        inverted = self.next() == "^"
        self.at += inverted
        ranges = []
        while self.next() != "]":
            first = last = self.character()
            if self.next() == "-":
                self.at += 1
                last = self.character()
            ranges.append((first, last))
        self.at += 1
        return Characters(_merged(ranges), inverted)

    def character(self) -> str:
        sign = self.take()
        if sign != "\\":
            return sign
        sign = self.take()
        if sign != "u":
            return sign
        self.at += 4
        return chr(int(self.pattern[self.at - 4 : self.at], 16))


class State(dict[str, "State | None"]):
    """Where a symbol leads, None if nowhere, and which pattern ends here: the number of the earliest, or None."""

    __slots__ = ("automaton", "members", "rule", "stuck")

    def __init__(self, automaton: Automaton, members: frozenset[int]) -> None:
        self.automaton, self.members = automaton, members
        self.rule = min((automaton.ends[member] for member in members if member in automaton.ends), default=None)
        self.stuck = not any(automaton.network.arcs[member] for member in members)

    def __missing__(self, symbol: str) -> State | None:
        found = self[symbol] = self.automaton.follow(self.members, symbol)
        return found


class Symbols(dict[int, str]):
    """For ``str.translate``: one symbol for all characters that no pattern tells apart."""

    def __init__(self, sets: Iterable[Characters]) -> None:
        self.sets = list(sets)
        self.matching: dict[str, frozenset[int]] = {}  # the sets that the characters of a symbol are in
        self._symbols: dict[frozenset[int], str] = {}
        self._lock = Lock()

    def __missing__(self, code: int) -> str:
        matching = frozenset(number for number, characters in enumerate(self.sets) if chr(code) in characters)
        with self._lock:  # two threads must not count to the same symbol
            symbol = self._symbols.setdefault(matching, chr(len(self._symbols)))
            self.matching[symbol] = matching
        self[code] = symbol
        return symbol


class Automaton:
    """Deterministic states over all ``patterns`` at once; ``named`` holds what they mention in braces."""

    def __init__(self, patterns: Sequence[str], named: Mapping[str, str]) -> None:
        self.network = Network(named)
        start = self.network.state()
        self.ends = {self.network.lay(pattern, start): number for number, pattern in enumerate(patterns)}
        self.symbols = Symbols(self.network.sets)
        self._states: dict[frozenset[int], State] = {}
        self._closures: dict[int, frozenset[int]] = {}
        self.start = self._state([start])

    def lengths(self, text: str) -> list[int]:
        """At which lengths a pattern ends, of all that match at the beginning of ``text``."""
        state, found = self.start, []
        for position, symbol in enumerate(text.translate(self.symbols)):
            following = state[symbol]
            if following is None:
                break
            state = following
            if state.rule is not None:
                found.append(position + 1)
        return found

    def follow(self, members: frozenset[int], symbol: str) -> State | None:
        matching = self.symbols.matching[symbol]
        targets = [target for member in members for number, target in self.network.arcs[member] if number in matching]
        return self._state(targets) if targets else None

    def _state(self, members: Iterable[int]) -> State:
        reached = frozenset().union(*map(self._reached, members))
        if reached not in self._states:
            self._states[reached] = State(self, reached)
        return self._states[reached]

    def _reached(self, member: int) -> frozenset[int]:
        """Over free arcs, of what reads a character or ends a pattern."""
        if member not in self._closures:
            reached, waiting = {member}, [member]
            while waiting:
                new = [target for target in self.network.free[waiting.pop()] if target not in reached]
                reached.update(new)
                waiting += new
            self._closures[member] = frozenset(m for m in reached if self.network.arcs[m] or m in self.ends)
        return self._closures[member]
