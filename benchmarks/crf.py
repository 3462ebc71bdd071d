"""Inference in pairwise MRFs for many clips at once, compared with a plain loop over clips.

Both find the marginals and the MAP assignment of the same clips by belief propagation over the same graph, with the
same number of rounds. The loop is the obvious implementation: dictionaries of NumPy vectors, clip by clip, with a
stable log-sum-exp for each message. Results are compared before anything is timed.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from benchmarks.measure import Measurement, compare, rate
from captioner.crf.inference import PairwiseMRF, map_assignment, marginals
from captioner.crf.predictor import BATCH_CLIPS
from captioner.errors import CaptionerError
from tests.oracles.crf import propagate

SIZES = (30, 8, 60, 19, 22)  # labels of each node of TACoS as preprocess.tacos prepares it
OVER_LOOP = 20.0  # target


def measure(count: int = 512, few: int = 8, rounds: int = 5, sizes: tuple[int, ...] = SIZES) -> list[Measurement]:
    """Clips per second of batched inference for ``count`` clips, over those of the loop, which gets ``few``."""
    results = []
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    for name, edges in (("complete graph", pairs), ("tree", [(0, w) for w in range(1, len(sizes))])):
        mrf = random_mrf(count, sizes, edges)
        check(mrf, few)

        def ours(mrf: PairwiseMRF = mrf) -> None:
            for start in range(0, count, BATCH_CLIPS):
                part = PairwiseMRF(tuple(one[start : start + BATCH_CLIPS] for one in mrf.unary), mrf.pairwise)
                marginals(part)
                map_assignment(part)

        def loop(mrf: PairwiseMRF = mrf) -> None:
            for clip in range(few):
                both(mrf, clip)

        title = f"CRF inference over a loop, {name}"
        results.append(compare(title, "clips/s", rate(count, ours), rate(few, loop), rounds=rounds, target=OVER_LOOP))
    return results


def both(mrf: PairwiseMRF, clip: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Beliefs of the loop for one clip, with sums and with maxima."""
    unary = [one[clip].numpy() for one in mrf.unary]
    pairwise = {edge: table.numpy() for edge, table in mrf.pairwise.items()}
    return propagate(unary, pairwise, maximum=False), propagate(unary, pairwise, maximum=True)


def check(mrf: PairwiseMRF, few: int) -> None:
    """Raise ``CaptionerError`` unless loop and batch agree."""
    found = marginals(mrf)
    for clip in range(few):
        for mine, theirs in zip(found.log_marginals, both(mrf, clip)[0], strict=True):
            if not np.allclose(mine[clip].exp().numpy(), np.exp(theirs), atol=1e-3):
                raise CaptionerError("batched inference and the plain loop differ; the ratio would mean nothing")


def random_mrf(count: int, sizes: tuple[int, ...], edges: list[tuple[int, int]]) -> PairwiseMRF:
    """Random potentials: unary ones with one favored label, about as strong as learned ones."""
    generator = torch.Generator().manual_seed(0)
    unary = []
    for size in sizes:
        favorite = torch.randint(size, (count, 1), generator=generator)
        unary.append(
            (2 * torch.randn(count, size, generator=generator)).scatter_add_(
                1, favorite, torch.tensor(3.0).expand(count, 1)
            )
        )
    return PairwiseMRF(
        tuple(unary), {(v, w): 0.2 * torch.randn(sizes[v], sizes[w], generator=generator) for v, w in edges}
    )
