"""Inference in pairwise MRFs against enumeration of all assignments."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import crf as benchmark
from captioner.crf.graph import Edge, all_pairs
from captioner.crf.inference import Factor, PairwiseMRF, icm, log_partition, map_assignment, marginals
from tests.oracles.crf import enumerate_video

SIZES = (3, 2, 4)
COMPLETE = all_pairs(3)
GRAPHS_BY_NAME: dict[str, tuple[tuple[int, ...], list[Edge], bool]] = {
    "none": (SIZES, [], False),
    "tree": (SIZES, [(0, 2), (1, 2)], False),
    "forest": (SIZES, [(0, 2)], False),
    "complete": (SIZES, COMPLETE, False),
    "five nodes": ((3, 2, 2, 3, 2), all_pairs(5), False),
    "one node": ((5,), [], False),
    "none, chain": ((3, 2), [], True),
    "tree, chain": ((2, 2, 2), [(0, 1), (1, 2)], True),
    "complete, chain": ((2, 2, 2), COMPLETE, True),
}
VIDEOS = (1, 3, 2)  # clips in each
ALL = 10**6  # entries of a joint table: more than any here has


def random_mrf(kind: str, scale: float = 1.0, seed: int = 0) -> PairwiseMRF:
    sizes, edges, chain = GRAPHS_BY_NAME[kind]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first = torch.tensor([place == 0 for count in VIDEOS for place in range(count)])
    unary = tuple(1.5 * draw(sum(VIDEOS), size) for size in sizes)
    pairwise = {(v, w): scale * draw(sizes[v], sizes[w]) for v, w in edges}
    return PairwiseMRF(unary, pairwise, tuple(scale * draw(size, size) for size in sizes if chain), first)


def enumerated(mrf: PairwiseMRF) -> tuple[float, list[Tensor], Tensor]:
    """Log partition function, marginals of each node and MAP assignment of all clips, by enumeration of each video."""
    pairwise = {edge: table.tolist() for edge, table in mrf.pairwise.items()}
    results, at = [], 0
    assert mrf.starts_video is not None
    starts = [*mrf.starts_video.nonzero()[:, 0].tolist(), len(mrf)]
    videos = [end - start for start, end in itertools.pairwise(starts)]
    for count in videos if mrf.transition else (1,) * len(mrf):
        unary = [one[at : at + count].tolist() for one in mrf.unary]
        results.append(enumerate_video(unary, pairwise, [table.tolist() for table in mrf.transition]))
        at += count
    total = sum(one[0] for one in results)
    nodes = [
        torch.tensor([row for one in results for row in one[1][v]], dtype=torch.float64) for v in range(mrf.num_nodes)
    ]
    return total, nodes, torch.tensor([row for one in results for row in one[2]])


@pytest.mark.parametrize("kind", GRAPHS_BY_NAME)
def test_inference_is_enumeration(kind: str) -> None:
    """Would catch a message sent along a transposed table, across two videos, or back to where it came from."""
    mrf = random_mrf(kind)
    total, probabilities, top = enumerated(mrf)
    found = marginals(mrf, ALL)
    for mine, theirs in zip(found.log_marginals, probabilities, strict=True):
        assert torch.allclose(mine.exp(), theirs.to(mine), atol=1e-9)
    assert found.converged.all()
    assert torch.equal(map_assignment(mrf, ALL).labels, top)
    assert map_assignment(mrf, ALL).converged.all()
    assert float(log_partition(mrf, None, ALL)) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("kind", ["complete", "five nodes", "tree, chain", "complete, chain"])
def test_loopy_propagation_is_near_enumeration(kind: str) -> None:
    """Would catch an edge counted twice, or left out, in graphs with loops; weak tables are nearly a tree."""
    mrf = random_mrf(kind, scale=0.3)
    total, probabilities, top = enumerated(mrf)
    found = marginals(mrf)
    for mine, theirs in zip(found.log_marginals, probabilities, strict=True):
        assert torch.allclose(mine.exp(), theirs.to(mine), atol=0.01)
    assert found.converged.all()
    assert torch.equal(map_assignment(mrf).labels, top)
    assert float(log_partition(mrf)) == pytest.approx(total, abs=0.03)


@pytest.mark.parametrize("kind", GRAPHS_BY_NAME)
@pytest.mark.parametrize("states", [0, ALL])
def test_the_gradient_of_the_partition_function_is_the_marginals(kind: str, states: int) -> None:
    """Would catch messages that need a gradient of their own, and wrong counts of a node's edges."""
    mrf = random_mrf(kind, scale=0.3)
    unary = tuple(one.requires_grad_() for one in mrf.unary)
    log_partition(mrf, None, states, iterations=100).backward()
    for mine, wanted in zip(unary, marginals(mrf, states).log_marginals, strict=True):
        assert mine.grad is not None
        assert torch.allclose(mine.grad, wanted.exp(), atol=2e-3)


def test_some_labels_summed_over() -> None:
    """Would catch the likelihood of a clip with unknown labels: known ones fixed, the others summed over."""
    mrf = random_mrf("complete")
    allowed = tuple(torch.ones_like(one, dtype=torch.bool) for one in mrf.unary)
    allowed[1][:, 0] = False
    scores = [mrf.score(torch.tensor([[a, 1, c]] * len(mrf))) for a, c in itertools.product(range(3), range(4))]
    wanted = float(torch.stack(scores).logsumexp(0).sum())
    assert float(log_partition(mrf, allowed, ALL)) == pytest.approx(wanted, abs=1e-9)
    assert float(log_partition(mrf, allowed)) == pytest.approx(wanted, abs=0.2)  # one loop less: Bethe's is close


def test_wide_tables_do_not_underflow() -> None:
    """A matrix product of exponentials loses what lies 100 nats below the rest, and then has nothing left."""
    table = torch.tensor([[0.0, -200.0], [-200.0, 0.0]])
    mrf = PairwiseMRF((torch.tensor([[0.0, -500.0]]), torch.tensor([[-150.0, 0.0]])), {(0, 1): table})
    wanted = torch.tensor([-150.0, -200.0]).log_softmax(0)
    assert torch.allclose(marginals(mrf).log_marginals[1][0], wanted)


def test_equally_good_assignments_are_not_mixed() -> None:
    """Each node's best for itself would be 0, 0: the only assignments that are wrong are those of equal labels."""
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    mrf = PairwiseMRF((torch.zeros(1, 2),) * 3, {(0, 2): table, (1, 2): table})
    labels = map_assignment(mrf).labels[0].tolist()
    assert labels[0] != labels[2] != labels[1]


def test_what_does_not_converge_is_marked() -> None:
    """Strong factors that contradict each other around a loop oscillate; an easy clip in the same batch converges."""
    strong = 6 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    unary = tuple(torch.tensor([[0.1 * (v + 1), 0.0], [90.0, 0.0]]) for v in range(3))
    mrf = PairwiseMRF(unary, {(0, 1): strong, (1, 2): strong, (0, 2): -strong})
    assert marginals(mrf, iterations=5).converged.tolist() == [False, True]
    assert map_assignment(mrf, iterations=5).converged.tolist() == [False, True]
    assert marginals(mrf, ALL).converged.all()


@pytest.mark.parametrize("kind", ["complete", "complete, chain"])
def test_icm_stops_where_no_single_change_helps(kind: str) -> None:
    """Would catch a node judged without its neighbors in time, or two neighbors changed at once."""
    mrf = random_mrf(kind)
    start = torch.zeros(len(mrf), len(mrf.unary), dtype=torch.int64)
    labels = icm(mrf, start, rounds=50)
    assert mrf.score(labels).sum() >= mrf.score(start).sum()
    for row, v in itertools.product(range(len(mrf)), range(len(mrf.unary))):
        for label in range(mrf.sizes[v]):
            other = labels.clone()
            other[row, v] = label
            assert mrf.score(other).sum() <= mrf.score(labels).sum() + 1e-9


def test_maxima_of_every_size() -> None:
    """Would catch a row that is cut off although it wins, in tables that span much and rows that lie far apart."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.0, 0.01, 1.0, 30.0, 1000.0):
        log = spread * torch.randn(7, 5, generator=generator, dtype=torch.float64)
        table = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        for factor in (0.0, 1.0, 50.0):
            wanted = (log[:, :, None] + factor * table).amax(1)
            assert torch.allclose(Factor(factor * table, maximum=True).message(log), wanted, atol=1e-9)


def test_long_videos_are_exact() -> None:
    """Against the forward and Viterbi algorithms: would catch messages stopped before they cross a video."""
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(150, 4, generator=generator, dtype=torch.float64)
    table = 6 * torch.eye(4, dtype=torch.float64)
    mrf = PairwiseMRF((unary,), {}, (table,), torch.arange(150) == 0)
    total, best = unary[0], unary[0]
    for row in unary[1:]:
        total = (total[:, None] + table).logsumexp(0) + row
        best = (best[:, None] + table).amax(0) + row
    assert float(log_partition(mrf)) == pytest.approx(float(total.logsumexp(0)), abs=1e-6)
    labels = map_assignment(mrf).labels[:, 0]
    score = unary[torch.arange(150), labels].sum() + table[labels[:-1], labels[1:]].sum()
    assert float(score) == pytest.approx(float(best.max()), abs=1e-6)
    assert bool(marginals(mrf).converged.all())


def test_settled_clips_do_not_wait_for_others() -> None:
    """Would catch messages written back to other clips when the unsettled ones go on alone."""
    calm, wild = random_mrf("five nodes", scale=0.1), random_mrf("five nodes", scale=0.1, seed=1)
    unary = tuple(torch.cat([20 * one, other]) for one, other in zip(calm.unary, wild.unary, strict=True))
    both, alone = PairwiseMRF(unary, wild.pairwise), PairwiseMRF(wild.unary, wild.pairwise)
    for mine, theirs in zip(marginals(both).log_marginals, marginals(alone).log_marginals, strict=True):
        assert torch.allclose(mine[6:], theirs, atol=1e-4)


def test_the_initial_assignment_is_used_when_it_is_better() -> None:
    """Would catch a worse assignment kept for a video."""
    for seed in range(5):
        mrf = random_mrf("five nodes", scale=3.0, seed=seed)
        _, _, top = enumerated(mrf)
        assert torch.equal(map_assignment(mrf, initial=top).labels, top)


def test_a_batch_of_one_is_a_row_of_a_batch() -> None:
    mrf = random_mrf("five nodes")
    alone = PairwiseMRF(tuple(one[2:3] for one in mrf.unary), mrf.pairwise)
    for mine, all_of_them in zip(marginals(alone).log_marginals, marginals(mrf).log_marginals, strict=True):
        assert torch.allclose(mine[0], all_of_them[2], atol=1e-3)


def test_the_benchmark_compares_equals() -> None:
    """Would catch a plain loop that finds something else, which would make the ratio worthless."""
    for row in benchmark.measure(count=6, few=2, rounds=1, sizes=(3, 2, 4, 2)):
        assert row.ratio > 0 and row.target == 20


@st.composite
def small_mrfs(draw: st.DrawFn) -> PairwiseMRF:
    """Up to four nodes of up to three labels, any graph, videos of up to three clips, potentials in -3 to 3."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    chain = len(sizes) <= 2 and draw(st.booleans())  # the enumeration of a video has to stay small
    pairs = all_pairs(len(sizes))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    videos = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))

    def potentials(*shape: int) -> Tensor:
        count = math.prod(shape)
        values = st.lists(st.floats(-3, 3, width=32), min_size=count, max_size=count)
        return torch.tensor(draw(values), dtype=torch.float64).reshape(shape)

    return PairwiseMRF(
        tuple(potentials(sum(videos), size) for size in sizes),
        {(v, w): potentials(sizes[v], sizes[w]) for v, w in edges},
        tuple(potentials(size, size) for size in sizes if chain),
        torch.tensor([place == 0 for count in videos for place in range(count)]),
    )


@settings(max_examples=60)
@given(small_mrfs())
def test_any_small_mrf_is_enumerated(mrf: PairwiseMRF) -> None:
    """Marginals, partition function and MAP score of any graph, with and without a chain, against enumeration."""
    total, probabilities, top = enumerated(mrf)
    found, best = marginals(mrf, ALL), map_assignment(mrf, ALL)
    assert found.converged.all() and best.converged.all()
    for mine, theirs in zip(found.log_marginals, probabilities, strict=True):
        torch.testing.assert_close(mine.exp(), theirs.to(mine), atol=1e-9, rtol=0)
    assert float(log_partition(mrf, None, ALL)) == pytest.approx(total, abs=1e-9)
    torch.testing.assert_close(mrf.score(best.labels).sum(), mrf.score(top).sum())  # there may be several


@settings(max_examples=40)
@given(small_mrfs())
def test_loopy_results_are_consistent(mrf: PairwiseMRF) -> None:
    """Without the joint table: normalized marginals, and an assignment that no single change of a label improves."""
    for values in marginals(mrf).log_marginals:
        torch.testing.assert_close(values.exp().sum(1), torch.ones(len(mrf), dtype=values.dtype))
    labels = map_assignment(mrf).labels
    torch.testing.assert_close(mrf.score(icm(mrf, labels)).sum(), mrf.score(labels).sum())
