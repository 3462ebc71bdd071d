"""Marginals, MAP assignments and the log partition function of pairwise MRFs, batched over clips, in log space.

All three are computed by belief propagation: sum-product for the marginals and the partition function, max-product for
the MAP assignment. It is exact on graphs without loops. A graph with loops whose joint table is small is first merged
into one node (``joint_node``), which is exact too. On larger ones loopy belief propagation runs until the messages
converge and gives the Bethe approximation (Yedidia, Freeman and Weiss 2005, Constructing free-energy approximations and
generalized belief propagation algorithms); clips whose messages did not converge are marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captioner.crf.graph import Edge, depth_first, has_loops, neighbors, two_pass_schedule

DAMPING = 0.5
"""Weight of the old message in an update, in loopy belief propagation after ``UNDAMPED_ROUNDS``."""
UNDAMPED_ROUNDS = 10
MAX_PRODUCT_ROUNDS = 20
"""Rounds of loopy max-product; messages that have not converged by then usually oscillate."""
MATMUL_RANGE = 60.0
"""In nats; a factor with a larger span is not applied as a matrix product, because exp would underflow."""


@dataclass(frozen=True)
class PairwiseMRF:
    """Log potentials, in nats, of N clips with V nodes each; node v has L_v labels."""

    unary: tuple[Tensor, ...]
    """(N, L_v) for each node."""
    pairwise: Mapping[Edge, Tensor]
    """(L_v, L_w) for each edge, shared by all clips."""
    transition: tuple[Tensor, ...] = ()
    """(L_v, L_v) for each node, from the previous clip of the video to this one; empty without a chain."""
    starts_video: Tensor | None = None
    """(N,) bool: the clip has no previous one. Needed with ``transition``; a video's clips are consecutive rows."""

    def __len__(self) -> int:
        return len(self.unary[0])

    @property
    def num_nodes(self) -> int:
        return len(self.unary)

    @property
    def sizes(self) -> list[int]:
        """Number of labels of each node."""
        return [potentials.shape[1] for potentials in self.unary]

    @property
    def has_loops(self) -> bool:
        return has_loops(self.pairwise, bool(self.transition))

    def neighbors(self, node: int) -> list[int]:
        """Nodes of the same clip that share an edge with ``node``, in ascending order."""
        return neighbors(self.pairwise, node)

    def potentials(self, node: int, other: int) -> Tensor:
        """Pairwise log potentials of two neighbors, (labels of ``node``, labels of ``other``)."""
        return self.pairwise[node, other] if node < other else self.pairwise[other, node].T

    @property
    def has_previous(self) -> Tensor:
        """(N,) bool: whether there is a transition from the previous clip."""
        if not self.transition or self.starts_video is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.unary[0].device)
        return ~self.starts_video

    def score(self, labels: Tensor) -> Tensor:
        """Unnormalized log probability (N,) of ``labels`` (N, V) int64; a transition counts for the later clip."""
        total = self.unary[0].new_zeros(len(self))
        for v, potentials in enumerate(self.unary):
            total = total + potentials.gather(1, labels[:, v, None])[:, 0]
        for (v, w), potentials in self.pairwise.items():
            total = total + potentials[labels[:, v], labels[:, w]]
        for v, potentials in enumerate(self.transition):
            total = total + torch.where(self.has_previous, potentials[labels[:, v].roll(1), labels[:, v]], 0.0)
        return total


@dataclass(frozen=True)
class Marginals:
    """Result of ``marginals``."""

    log_marginals: tuple[Tensor, ...]
    """(N, L_v) for each node, normalized, in nats."""
    converged: Tensor
    """(N,) bool; False if messages still changed in the last round."""


@dataclass(frozen=True)
class MAPAssignment:
    """Result of ``map_assignment``."""

    labels: Tensor
    """(N, V) int64, one label for each node."""
    converged: Tensor
    """(N,) bool; if False, the assignment may not be the most probable one."""


def marginals(mrf: PairwiseMRF, max_joint_states: int = 0, iterations: int = 100, tolerance: float = 1e-4) -> Marginals:
    """Log marginals of each node of each clip.

    Exact for graphs without loops and for graphs with at most ``max_joint_states`` entries in their joint table (see
    ``joint_node``); otherwise the Bethe approximation.
    ``tolerance``, in nats, is the largest change of a message that counts as convergence.
    """
    with torch.no_grad():
        joint = joint_node(mrf, max_joint_states)
        bp = BeliefPropagation(joint or mrf)
        converged = bp.run_bp(False, iterations, tolerance)
        beliefs = [bp.belief(v).log_softmax(1) for v in range(bp.mrf.num_nodes)]
        return Marginals(tuple(_split_joint(beliefs[0], mrf.sizes) if joint else beliefs), converged)


def map_assignment(
    mrf: PairwiseMRF,
    max_joint_states: int = 0,
    iterations: int = 100,
    tolerance: float = 1e-4,
    initial: Tensor | None = None,
) -> MAPAssignment:
    """The assignment with the highest score; exact under the same conditions as ``marginals``.

    In graphs with loops, ``icm`` improves the result of max-product and ``initial`` (N, V), for example the most
    probable label of each node; the better of the two local optima is returned.
    """
    with torch.no_grad():
        joint = joint_node(mrf, max_joint_states)
        loopy = not joint and mrf.has_loops
        bp = BeliefPropagation(joint or mrf)
        converged = bp.run_bp(True, min(iterations, MAX_PRODUCT_ROUNDS) if loopy else iterations, tolerance)
        labels = bp.decode()
        if joint:
            labels = torch.stack(torch.unravel_index(labels[:, 0], mrf.sizes), 1)
        elif loopy:
            labels = icm(mrf, labels)
            labels = labels if initial is None else _higher_score(mrf, labels, icm(mrf, initial))
        return MAPAssignment(labels, converged)


def log_partition(
    mrf: PairwiseMRF, allowed: tuple[Tensor, ...] | None = None, max_joint_states: int = 0, iterations: int = 30
) -> Tensor:
    """Log of the sum over all assignments, summed over the clips: (), in nats; exact if ``marginals`` is.

    ``allowed``, (N, L_v) bool for each node, restricts the sum. The gradient is the marginals: the Bethe free energy is
    stationary in the messages, so these are computed without autograd.
    """
    if allowed is not None:
        pairs = zip(mrf.unary, allowed, strict=True)
        mrf = replace(mrf, unary=tuple(values.masked_fill(~mask, -math.inf) for values, mask in pairs))
    mrf = joint_node(mrf, max_joint_states) or mrf
    bp = BeliefPropagation(mrf)
    with torch.no_grad():
        bp.run_bp(False, iterations, 1e-3)
    return bp.log_partition()


def joint_node(mrf: PairwiseMRF, max_joint_states: int) -> PairwiseMRF | None:
    """The same MRF with one node whose labels are the joint assignments, in row-major order.

    None if the graph has no loops, or if its largest table would have more than ``max_joint_states`` entries.
    """
    sizes, chain = mrf.sizes, bool(mrf.transition)
    if not mrf.has_loops or math.prod(sizes) ** (1 + chain) > max_joint_states:
        return None
    joint = mrf.unary[0].new_zeros((len(mrf), *sizes))
    for v, potentials in enumerate(mrf.unary):
        joint = joint + _expand(potentials, sizes, v, lead=1)
    for (v, w), potentials in mrf.pairwise.items():
        joint = joint + _expand(potentials, sizes, v, w)
    transition: tuple[Tensor, ...] = ()
    if chain:
        both = joint.new_zeros((*sizes, *sizes))
        for v, potentials in enumerate(mrf.transition):
            both = both + _expand(potentials, sizes * 2, v, len(sizes) + v)
        transition = (both.reshape(math.prod(sizes), -1),)
    return PairwiseMRF((joint.flatten(1),), {}, transition, mrf.starts_video)


def icm(mrf: PairwiseMRF, labels: Tensor, rounds: int = 10) -> Tensor:
    """Iterated conditional modes (Besag 1986): improve labels (N, V) node by node until no single change helps."""
    labels = labels.clone()
    alternating = [torch.arange(start, len(mrf), 2, device=labels.device) for start in (0, 1)]
    for _ in range(rounds):
        before = labels.clone()
        for v in range(mrf.num_nodes):
            for rows in alternating if mrf.transition else (slice(None),):  # neighbors in time never change together
                labels[rows, v] = _conditional_scores(mrf, labels, v)[rows].argmax(1)
        if torch.equal(labels, before):
            break
    return labels


class BeliefPropagation:
    """Messages of an MRF, in nats up to a constant each; uniform at first."""

    def __init__(self, mrf: PairwiseMRF) -> None:
        self.mrf = mrf
        self.messages: dict[Edge, Tensor] = {}  # (sender, receiver): (N, L_receiver)
        for v, w in mrf.pairwise:
            self.messages[v, w] = torch.zeros_like(mrf.unary[w])
            self.messages[w, v] = torch.zeros_like(mrf.unary[v])
        self.forward = [torch.zeros_like(values) for values in mrf.unary]  # from the previous clip
        self.backward = [torch.zeros_like(values) for values in mrf.unary]  # from the next clip

    def belief(self, node: int) -> Tensor:
        """Unnormalized log marginals (or max-marginals) of a node, (N, L_v)."""
        total = self.mrf.unary[node]
        for other in self.mrf.neighbors(node):
            total = total + self.messages[other, node]
        return total + self.forward[node] + self.backward[node] if self.mrf.transition else total

    def run_bp(self, maximum: bool, iterations: int, tolerance: float, done: int = 0) -> Tensor:
        """Update all messages until they converge; returns for which clips they did, (N,) bool.

        ``maximum`` selects max-product, otherwise sum-product. The nodes of a clip send in turn, the clips of a video
        all at once. Without a chain, clips that have not converged continue separately once a quarter of the batch has.
        ``done`` of the ``iterations`` have been run already.
        """
        mrf = self.mrf
        loopy, count = mrf.has_loops, mrf.num_nodes
        if mrf.transition and not loopy:  # a message passes one clip in a round
            iterations = max(iterations, len(mrf) + 1)
        schedule = (
            [(v, mrf.neighbors(v)) for v in range(count)] if loopy else two_pass_schedule(count, mrf.pairwise.keys())
        )
        factors = {(v, w): Factor(mrf.potentials(v, w), maximum) for v, w in self.messages}
        in_time = [(Factor(table, maximum), Factor(table.T, maximum)) for table in mrf.transition]
        change = torch.full((len(mrf),), math.inf if factors or in_time else 0.0, device=mrf.unary[0].device)
        for number in range(done, iterations):
            rows = (change > tolerance).nonzero()[:, 0]
            if len(rows) == 0:
                break
            if not in_time and 4 * len(rows) <= 3 * len(mrf):
                converged = change <= tolerance
                converged[rows] = self._continue_with(rows, maximum, iterations, tolerance, number)
                return converged
            damping = DAMPING if loopy and number >= UNDAMPED_ROUNDS else 0.0
            change = torch.zeros_like(change)
            for v, receivers in schedule:
                belief = self.belief(v)
                for w in receivers:
                    new = factors[v, w].message(belief - self.messages[w, v])
                    self.messages[v, w] = _update(self.messages[v, w], new, damping, change)
            if not (loopy or in_time):  # every message was computed from final messages
                return torch.ones_like(change, dtype=torch.bool)
            self._update_in_time(in_time, damping, change)
        return change <= tolerance

    def _update_in_time(self, factors: list[tuple[Factor, Factor]], damping: float, change: Tensor) -> None:
        """One round of messages between consecutive clips, both ways; ``change`` (N,) is raised to the largest one."""
        has_previous = self.mrf.has_previous[:, None]  # (N, 1)
        for v, (ahead, back) in enumerate(factors):
            belief = self.belief(v)
            to_next = ahead.message(belief - self.backward[v]).roll(1, 0).where(has_previous, 0.0)
            to_previous = back.message(belief - self.forward[v]).where(has_previous, 0.0).roll(-1, 0)
            self.forward[v] = _update(self.forward[v], to_next, damping, change)
            self.backward[v] = _update(self.backward[v], to_previous, damping, change)

    def _continue_with(self, rows: Tensor, maximum: bool, iterations: int, tolerance: float, done: int) -> Tensor:
        """``run_bp`` for the clips ``rows`` (M,) only; (M,) bool."""
        rest = BeliefPropagation(PairwiseMRF(tuple(values[rows] for values in self.mrf.unary), self.mrf.pairwise))
        rest.messages = {edge: message[rows] for edge, message in self.messages.items()}
        converged = rest.run_bp(maximum, iterations, tolerance, done)
        for edge, message in rest.messages.items():
            self.messages[edge] = self.messages[edge].index_copy(0, rows, message)
        return converged

    def decode(self) -> Tensor:
        """Labels (N, V) after max-product: each node's best label given those of the nodes before it.

        Conditioning along the edges avoids mixing the labels of assignments with equal scores.
        """
        chosen: dict[int, Tensor] = {}
        for v in depth_first(self.mrf.num_nodes, self.mrf.pairwise.keys()):
            belief = self.belief(v)
            for w in self.mrf.neighbors(v):
                if w in chosen:
                    belief = belief - self.messages[w, v] + self.mrf.potentials(w, v)[chosen[w]]
            chosen[v] = belief.argmax(1)
        return torch.stack([chosen[v] for v in sorted(chosen)], 1)

    def log_partition(self) -> Tensor:
        """The Bethe log partition function: pair terms minus the node terms that they count more than once."""
        mrf = self.mrf
        has_previous = mrf.has_previous
        has_next = has_previous.roll(-1)  # row 0 never has a previous clip, so the last row gets False
        beliefs = [self.belief(v) for v in range(mrf.num_nodes)]
        total = mrf.unary[0].new_zeros(())
        for v, w in mrf.pairwise:
            sent = Factor(mrf.potentials(v, w), False).message(beliefs[v] - self.messages[w, v])
            total = total + (sent + beliefs[w] - self.messages[v, w]).logsumexp(1).sum()
        for v, potentials in enumerate(mrf.transition):
            sent = Factor(potentials, False).message(beliefs[v] - self.backward[v]).roll(1, 0)
            total = total + (sent + beliefs[v] - self.forward[v]).logsumexp(1)[has_previous].sum()
        for v, belief in enumerate(beliefs):
            degree = len(mrf.neighbors(v)) + (has_previous.long() + has_next.long() if mrf.transition else 0)
            total = total + ((1 - degree) * belief.logsumexp(1)).sum()
        return total


class Factor:
    """Pairwise log potentials (K, L) that messages pass through, from the rows' node to the columns' node."""

    def __init__(self, table: Tensor, maximum: bool) -> None:
        self.maximum = maximum
        self.table = table
        self.top = table.detach().amax()
        self.span = self.top - table.detach().amin()
        self.as_matmul = not maximum and bool(self.span < MATMUL_RANGE)
        if self.as_matmul:
            self.exponentials = (table - self.top).exp()
        if maximum:
            self.distances = (self.top - table).T.contiguous()  # (L, K), all positive

    def message(self, log: Tensor) -> Tensor:
        """(N, K) to (N, L): log-sum-exp, or the maximum, over the rows."""
        if self.as_matmul:
            most = log.detach().amax(1, keepdim=True)
            return ((log - most).exp() @ self.exponentials).log() + (most + self.top)
        if not self.maximum:
            return (log[:, :, None] + self.table).logsumexp(1)
        # max_k(log + table) as a Chebyshev distance of positive vectors: torch.cdist needs no (N, K, L) tensor.
        # A row that is below the largest by more than the table's span cannot win, so clamping does not matter.
        most = log.amax(1, keepdim=True)
        rest = (log - most).clamp_min(-self.span - 1)  # plus the smallest entry of the table: at least -2 span - 1
        shift = 2 * self.span + 2
        return torch.cdist(rest + shift, self.distances, p=math.inf) + (most + self.top - shift)


def _update(old: Tensor, new: Tensor, damping: float, change: Tensor) -> Tensor:
    """The next message, shifted to a maximum of 0; ``change`` (N,) is raised to its largest change."""
    new = new - new.amax(1, keepdim=True)
    torch.maximum(change, (new - old).abs().amax(1), out=change)
    return damping * old + (1 - damping) * new if damping else new


def _conditional_scores(mrf: PairwiseMRF, labels: Tensor, node: int) -> Tensor:
    """Score of each label of a node given all other labels, up to a constant: (N, L_v)."""
    score = mrf.unary[node]
    for other in mrf.neighbors(node):
        score = score + mrf.potentials(other, node)[labels[:, other]]
    if mrf.transition:
        table, own, has_previous = mrf.transition[node], labels[:, node], mrf.has_previous[:, None]
        score = score + table[own.roll(1)].where(has_previous, 0.0)
        score = score + table.T[own.roll(-1)].where(has_previous.roll(-1, 0), 0.0)
    return score


def _higher_score(mrf: PairwiseMRF, one: Tensor, other: Tensor) -> Tensor:
    """For each video (without a chain, for each clip), the assignment (N, V) with the higher score."""
    gain = mrf.score(other) - mrf.score(one)  # (N,)
    video = (~mrf.has_previous).long().cumsum(0) - 1
    gain = gain.new_zeros(len(gain)).index_add(0, video, gain)[video]
    return torch.where((gain > 0)[:, None], other, one)


def _expand(table: Tensor, sizes: list[int], *axes: int, lead: int = 0) -> Tensor:
    """A table over some axes (ascending) of a tensor of ``sizes``, reshaped to broadcast over all of it."""
    shape = [size if axis in axes else 1 for axis, size in enumerate(sizes)]
    return table.reshape(*table.shape[:lead], *shape)


def _split_joint(joint: Tensor, sizes: list[int]) -> list[Tensor]:
    """Log marginals of each node from those of the joint assignments (N, S)."""
    joint = joint.reshape(-1, *sizes)  # (N, S) -> (N, L_1, ..., L_V)
    axes = range(1, len(sizes) + 1)
    return [joint.logsumexp([a for a in axes if a != axis]) if len(sizes) > 1 else joint for axis in axes]
