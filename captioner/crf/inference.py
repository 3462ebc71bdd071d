"""Marginals and best assignments of a pairwise field, for many clips at once, in log space.

One algorithm does it all: belief propagation, with sums for the marginals and with maxima for the best assignment. It
is exact where the graph has no loop. A graph with loops whose joint table is small is first made one node
(``clustered``), which is exact too; for a larger one propagation goes round until the messages stay, and the result is
that of Bethe's approximation (Yedidia, Freeman and Weiss 2005), with a mark at each clip where they did not stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Edge = tuple[int, int]
"""Two nodes, the lower number first."""
DAMPING = 0.5  # share of the old message that stays, after so many rounds in which messages did not settle:
UNDAMPED = 10
MAXIMUM_ROUNDS = 20  # of messages of maxima around loops; what has not settled by then mostly goes in circles
PRODUCT_RANGE = 60.0  # nats; tables that span more are not summed as a matrix product, where exp would underflow


@dataclass(frozen=True)
class Field:
    """Log potentials, in nats, of N clips with V nodes each."""

    unary: tuple[Tensor, ...]
    """(N, L_v) for each node."""
    pairwise: Mapping[Edge, Tensor]
    """(L_v, L_w) for each edge, the same for all clips."""
    transition: tuple[Tensor, ...] = ()
    """(L_v, L_v) for each node, from the clip before to this one; empty where clips do not know each other."""
    first: Tensor | None = None
    """(N,) bool: the clip has none before it. Clips of a video follow one another; only a transition needs it."""

    def __len__(self) -> int:
        return len(self.unary[0])

    @property
    def sizes(self) -> list[int]:
        """Number of labels of each node."""
        return [one.shape[1] for one in self.unary]

    def neighbors(self, node: int) -> list[int]:
        """Nodes of the same clip that share an edge with ``node``, in order."""
        return sorted(v + w - node for v, w in self.pairwise if node in (v, w))

    def table(self, node: int, other: int) -> Tensor:
        """The pairwise potentials as (labels of ``node``, labels of ``other``)."""
        return self.pairwise[node, other] if node < other else self.pairwise[other, node].T

    @property
    def linked(self) -> Tensor:
        """(N,) bool: there is a transition from the clip before."""
        if not self.transition or self.first is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.unary[0].device)
        return ~self.first

    def score(self, labels: Tensor) -> Tensor:
        """Sum of all log potentials that ``labels`` (N, V) meet, for each clip (N,), a transition at its later clip."""
        total = sum(one.gather(1, labels[:, v, None])[:, 0] for v, one in enumerate(self.unary))
        for (v, w), table in self.pairwise.items():
            total = total + table[labels[:, v], labels[:, w]]
        for v, table in enumerate(self.transition):
            total = total + torch.where(self.linked, table[labels[:, v].roll(1), labels[:, v]], 0.0)
        assert isinstance(total, Tensor)
        return total


def has_loops(edges: Iterable[Edge], chain: bool = False) -> bool:
    """Whether a graph of these edges, repeated over the clips of a video with ``chain``, has a loop."""
    edges = list(edges)
    if chain and edges:
        return True
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while node in root:
            node = root[node]
        return node

    for v, w in edges:
        v, w = find(v), find(w)
        if v == w:
            return True
        root[v] = w
    return False


@dataclass(frozen=True)
class Marginals:
    """What ``marginals`` finds."""

    log_prob: tuple[Tensor, ...]
    """(N, L_v) for each node, normalized, in nats."""
    converged: Tensor
    """(N,) bool; False where messages still changed when the iterations ended."""


@dataclass(frozen=True)
class Best:
    """What ``best`` finds."""

    labels: Tensor
    """(N, V) int64, one label a node."""
    converged: Tensor
    """(N,) bool; where False there may well be a better assignment."""


def marginals(field: Field, states: int = 0, iterations: int = 100, tolerance: float = 1e-4) -> Marginals:
    """Probability of each label of each node of each clip.

    Graphs with loops and at most ``states`` entries in their joint table are solved exactly (see ``clustered``), and
    those without loops as well, if ``iterations`` is not less than their length; others by loopy propagation.
    ``tolerance``, in nats, is the greatest change of a message that counts as none.
    """
    with torch.no_grad():
        joint = clustered(field, states)
        messages = _Messages(joint or field)
        converged = messages.pass_around(False, iterations, tolerance)
        beliefs = [messages.belief(v).log_softmax(1) for v in range(len(messages.field.unary))]
        return Marginals(tuple(_unclustered(beliefs[0], field.sizes) if joint else beliefs), converged)


def best(
    field: Field, states: int = 0, iterations: int = 100, tolerance: float = 1e-4, guess: Tensor | None = None
) -> Best:
    """The assignment of greatest score: the best one where ``marginals`` is exact, else a good one.

    With loops, what propagation with maxima leads to is improved node by node until no single change helps. So is
    ``guess`` (N, V), such as the most probable labels, and each clip gets the better of the two.
    """
    with torch.no_grad():
        joint = clustered(field, states)
        loops = not joint and has_loops(field.pairwise, bool(field.transition))
        messages = _Messages(joint or field)
        converged = messages.pass_around(True, min(iterations, MAXIMUM_ROUNDS) if loops else iterations, tolerance)
        labels = messages.decode()
        if joint:
            labels = torch.stack(torch.unravel_index(labels[:, 0], field.sizes), 1)
        elif loops:
            labels = climb(field, labels)
            labels = labels if guess is None else _better(field, labels, climb(field, guess))
        return Best(labels, converged)


def log_partition(
    field: Field, allowed: tuple[Tensor, ...] | None = None, states: int = 0, iterations: int = 30
) -> Tensor:
    """Log of the sum over all assignments, added up over the clips: (), in nats; exact where ``marginals`` is.

    ``allowed`` (N, L_v) bool restricts the sum. Its gradient is the marginals, so what the messages depend on need not
    be kept: Bethe's free energy is stationary in them.
    """
    if allowed is not None:
        pairs = zip(field.unary, allowed, strict=True)
        field = replace(field, unary=tuple(one.masked_fill(~mask, -math.inf) for one, mask in pairs))
    field = clustered(field, states) or field
    messages = _Messages(field)
    with torch.no_grad():
        messages.pass_around(False, iterations, 1e-3)
    return messages.log_partition()


def clustered(field: Field, states: int) -> Field | None:
    """The same field with one node whose labels are the joint assignments; row-major order of the nodes' labels.

    None where it has no loops, or where the largest table would have more than ``states`` entries.
    """
    sizes, chain = field.sizes, bool(field.transition)
    if not has_loops(field.pairwise, chain) or math.prod(sizes) ** (1 + chain) > states:
        return None
    joint = field.unary[0].new_zeros((len(field), *sizes))
    for v, one in enumerate(field.unary):
        joint = joint + _along(one, sizes, v, lead=1)
    for (v, w), table in field.pairwise.items():
        joint = joint + _along(table, sizes, v, w)
    transition: tuple[Tensor, ...] = ()
    if chain:
        both = joint.new_zeros((*sizes, *sizes))
        for v, table in enumerate(field.transition):
            both = both + _along(table, sizes * 2, v, len(sizes) + v)
        transition = (both.reshape(math.prod(sizes), -1),)
    return Field((joint.flatten(1),), {}, transition, field.first)


def climb(field: Field, labels: Tensor, rounds: int = 10) -> Tensor:
    """Improve an assignment (N, V) node by node until no single change of a label raises the score."""
    labels = labels.clone()
    turns = [torch.arange(start, len(field), 2, device=labels.device) for start in (0, 1)]
    for _ in range(rounds):
        before = labels.clone()
        for v in range(len(field.unary)):
            for rows in turns if field.transition else (slice(None),):  # neighbors in time are never changed at once
                labels[rows, v] = _given_the_others(field, labels, v)[rows].argmax(1)
        if torch.equal(labels, before):
            break
    return labels


class _Messages:
    """The messages of belief propagation, in nats up to a constant each; uniform at first."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.inside: dict[Edge, Tensor] = {}  # (v, w): what v tells w, (N, L_w)
        for v, w in field.pairwise:
            self.inside[v, w] = torch.zeros_like(field.unary[w])
            self.inside[w, v] = torch.zeros_like(field.unary[v])
        self.onward = [torch.zeros_like(one) for one in field.unary]  # from the clip before
        self.back = [torch.zeros_like(one) for one in field.unary]  # from the clip after

    def belief(self, node: int) -> Tensor:
        """Unnormalized log marginals (or max-marginals) of a node, (N, L_v)."""
        total = self.field.unary[node]
        for other in self.field.neighbors(node):
            total = total + self.inside[other, node]
        return total + self.onward[node] + self.back[node] if self.field.transition else total

    def pass_around(self, maximum: bool, iterations: int, tolerance: float, done: int = 0) -> Tensor:
        """Update all messages until they stay; (N,) bool says for which clips they do.

        Within a clip the nodes take turns, in time all clips send at once. Where clips do not know each other, those
        that have not settled go on alone as soon as a quarter have. ``done`` of the ``iterations`` lie behind.
        """
        field = self.field
        loops = has_loops(field.pairwise, bool(field.transition))
        ways = [(v, field.neighbors(v)) for v in range(len(field.unary))] if loops else _there_and_back(field)
        tables = {(v, w): Table(field.table(v, w), maximum) for v, w in self.inside}
        forward = [Table(table, maximum) for table in field.transition]
        backward = [Table(table.T, maximum) for table in field.transition]
        change = torch.full((len(field),), math.inf if self.inside or forward else 0.0, device=field.unary[0].device)
        for number in range(done, iterations):
            rows = (change > tolerance).nonzero()[:, 0]
            if len(rows) == 0:
                break
            if not forward and 4 * len(rows) <= 3 * len(field):
                settled = change <= tolerance
                settled[rows] = self._go_on_with(rows, maximum, iterations, tolerance, number)
                return settled
            damping = DAMPING if loops and number >= UNDAMPED else 0.0
            change = torch.zeros_like(change)
            for v, tos in ways:
                belief = self.belief(v)
                for w in tos:
                    new = tables[v, w].send(belief - self.inside[w, v])
                    self.inside[v, w] = _damped(self.inside[v, w], new, damping, change)
            if not (loops or forward):  # each message once, when all that it depends on had come: nothing can change
                return torch.ones_like(change, dtype=torch.bool)
            for v in range(len(forward)):
                belief = self.belief(v)
                onward = forward[v].send(belief - self.back[v]).roll(1, 0).where(field.linked[:, None], 0.0)
                before = backward[v].send(belief - self.onward[v]).where(field.linked[:, None], 0.0).roll(-1, 0)
                self.onward[v] = _damped(self.onward[v], onward, damping, change)
                self.back[v] = _damped(self.back[v], before, damping, change)
        return change <= tolerance

    def _go_on_with(self, rows: Tensor, maximum: bool, iterations: int, tolerance: float, done: int) -> Tensor:
        """``pass_around`` for the clips ``rows`` (M,) only; (M,) bool."""
        rest = _Messages(Field(tuple(one[rows] for one in self.field.unary), self.field.pairwise))
        rest.inside = {edge: message[rows] for edge, message in self.inside.items()}
        settled = rest.pass_around(maximum, iterations, tolerance, done)
        for edge, message in rest.inside.items():
            self.inside[edge] = self.inside[edge].index_copy(0, rows, message)
        return settled

    def decode(self) -> Tensor:
        """Labels (N, V) after propagation with maxima: each node's best given those chosen before it.

        Nodes are taken along the edges, so that on a tree equally good assignments are not mixed.
        """
        chosen: dict[int, Tensor] = {}
        for v in _walk(self.field):
            belief = self.belief(v)
            for w in self.field.neighbors(v):
                if w in chosen:
                    belief = belief - self.inside[w, v] + self.field.table(w, v)[chosen[w]]
            chosen[v] = belief.argmax(1)
        return torch.stack([chosen[v] for v in sorted(chosen)], 1)

    def log_partition(self) -> Tensor:
        """Bethe's log partition function: edges, less what nodes with more than one edge count too often."""
        field = self.field
        linked = field.linked
        following = linked.roll(-1)  # a linked row 0 does not exist: the first clip has none before it
        beliefs = [self.belief(v) for v in range(len(field.unary))]
        total = field.unary[0].new_zeros(())
        for v, w in field.pairwise:
            sent = Table(field.table(v, w), False).send(beliefs[v] - self.inside[w, v])
            total = total + (sent + beliefs[w] - self.inside[v, w]).logsumexp(1).sum()
        for v, table in enumerate(field.transition):
            sent = Table(table, False).send(beliefs[v] - self.back[v]).roll(1, 0)
            total = total + (sent + beliefs[v] - self.onward[v]).logsumexp(1)[linked].sum()
        for v, belief in enumerate(beliefs):
            degree = len(field.neighbors(v)) + (linked.long() + following.long() if field.transition else 0)
            total = total + ((1 - degree) * belief.logsumexp(1)).sum()
        return total


class Table:
    """Pairwise log potentials (K, L) through which messages go, from the rows' side to the columns'."""

    def __init__(self, table: Tensor, maximum: bool) -> None:
        self.maximum = maximum
        self.table = table
        self.top = table.detach().amax()
        self.span = self.top - table.detach().amin()
        self.product = not maximum and bool(self.span < PRODUCT_RANGE)
        if self.product:
            self.factor = (table - self.top).exp()
        if maximum:
            self.negative = (self.top - table).T.contiguous()  # (L, K)

    def send(self, log: Tensor) -> Tensor:
        """(N, K) to (N, L): log of the sum, or the maximum, over the rows."""
        if self.product:
            most = log.detach().amax(1, keepdim=True)
            return ((log - most).exp() @ self.factor).log() + (most + self.top)
        if not self.maximum:
            return (log[:, :, None] + self.table).logsumexp(1)
        # As the greatest distance, of numbers that are all positive, which torch has in one pass without (N, K, L).
        # A row that is behind the greatest by more than the table spans cannot win, so cutting it off changes nothing.
        most = log.amax(1, keepdim=True)
        rest = (log - most).clamp_min(-self.span - 1)  # from here to the table's least: -2 span - 1 at most
        shift = 2 * self.span + 2
        return torch.cdist(rest + shift, self.negative, p=math.inf) + (most + self.top - shift)


def _damped(old: Tensor, new: Tensor, damping: float, change: Tensor) -> Tensor:
    """The next message, its greatest value 0; notes in ``change`` (N,) by how much it differs from the old one."""
    new = new - new.amax(1, keepdim=True)
    torch.maximum(change, (new - old).abs().amax(1), out=change)
    return damping * old + (1 - damping) * new if damping else new


def _there_and_back(field: Field) -> list[tuple[int, list[int]]]:
    """On a graph without loops: from the leaves to a root and back, each node with those that it sends to."""
    walk = list(_walk(field))
    place = {v: number for number, v in enumerate(walk)}
    inward = [(v, [w for w in field.neighbors(v) if place[w] < place[v]]) for v in reversed(walk)]
    outward = [(v, [w for w in field.neighbors(v) if place[w] > place[v]]) for v in walk]
    return inward + outward


def _walk(field: Field) -> Iterator[int]:
    """All nodes, each after one of its neighbors where it has any."""
    seen: set[int] = set()
    for root in range(len(field.unary)):
        waiting = [root]
        while waiting:
            v = waiting.pop()
            if v not in seen:
                seen.add(v)
                yield v
                waiting += field.neighbors(v)


def _given_the_others(field: Field, labels: Tensor, node: int) -> Tensor:
    """Score of each label of a node when all else stays, up to a constant: (N, L_v)."""
    score = field.unary[node]
    for other in field.neighbors(node):
        score = score + field.table(other, node)[labels[:, other]]
    if field.transition:
        table, own, linked = field.transition[node], labels[:, node], field.linked[:, None]
        score = score + table[own.roll(1)].where(linked, 0.0)
        score = score + table.T[own.roll(-1)].where(linked.roll(-1, 0), 0.0)
    return score


def _better(field: Field, one: Tensor, other: Tensor) -> Tensor:
    """For each video, or clip where they do not know each other, the assignment with the greater score."""
    gain = field.score(other) - field.score(one)  # (N,)
    video = (~field.linked).long().cumsum(0) - 1
    gain = gain.new_zeros(len(gain)).index_add(0, video, gain)[video]
    return torch.where((gain > 0)[:, None], other, one)


def _along(table: Tensor, sizes: list[int], *axes: int, lead: int = 0) -> Tensor:
    """A table over some axes, ascending, of a tensor of ``sizes``, shaped so that it can be added to all of it."""
    shape = [size if axis in axes else 1 for axis, size in enumerate(sizes)]
    return table.reshape(*table.shape[:lead], *shape)


def _unclustered(joint: Tensor, sizes: list[int]) -> list[Tensor]:
    """Log marginals of each node from those of the joint assignment (N, S)."""
    joint = joint.reshape(-1, *sizes)  # (N, S) -> (N, L_1, ..., L_V)
    axes = range(1, len(sizes) + 1)
    return [joint.logsumexp([a for a in axes if a != axis]) if len(sizes) > 1 else joint for axis in axes]
