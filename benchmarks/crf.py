"""Inference of the CRF for many clips at once against a plain loop over clips.

Both find marginals and the best assignment of the same clips by belief propagation over the same graph and for the same
number of rounds. The loop is what one would write first: dictionaries of NumPy vectors, one clip after the other, with
a stable log of a sum for each message. Before anything is timed, both must find the same.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from benchmarks.measure import Measurement, compare, rate
from captioner.crf.inference import Field, best, marginals
from captioner.crf.training import PREDICT_CLIPS
from captioner.errors import CaptionerError
from tests.oracles.crf import propagate

SIZES = (30, 8, 60, 19, 22)  # labels of each node of TACoS as preprocess.tacos prepares it
BATCH = PREDICT_CLIPS
OVER_LOOP = 20.0  # target


def measure(count: int = 512, few: int = 8, rounds: int = 5, sizes: tuple[int, ...] = SIZES) -> list[Measurement]:
    """Clips a second of batched inference over those of the loop, which gets ``few`` clips."""
    results = []
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    for name, edges in (("complete graph", pairs), ("tree", [(0, w) for w in range(1, len(sizes))])):
        field = random_field(count, sizes, edges)
        check(field, few)

        def ours(field: Field = field) -> None:
            for rows in torch.arange(count).split(BATCH):
                part = Field(tuple(one[rows] for one in field.unary), field.pairwise)
                marginals(part)
                best(part)

        def loop(field: Field = field) -> None:
            for clip in range(few):
                both(field, clip)

        title = f"CRF inference over a loop, {name}"
        results.append(compare(title, "clips/s", rate(count, ours), rate(few, loop), rounds=rounds, target=OVER_LOOP))
    return results


def both(field: Field, clip: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Beliefs of the loop for one clip, with sums and with maxima."""
    unary = [one[clip].numpy() for one in field.unary]
    pairwise = {edge: table.numpy() for edge, table in field.pairwise.items()}
    return propagate(unary, pairwise, maximum=False), propagate(unary, pairwise, maximum=True)


def check(field: Field, few: int) -> None:
    """Raise ``CaptionerError`` unless loop and batch agree."""
    found = marginals(field)
    for clip in range(few):
        for mine, theirs in zip(found.log_prob, both(field, clip)[0], strict=True):
            if not np.allclose(mine[clip].exp().numpy(), np.exp(theirs), atol=1e-3):
                raise CaptionerError("batched inference and the plain loop differ; the ratio would mean nothing")


def random_field(count: int, sizes: tuple[int, ...], edges: list[tuple[int, int]]) -> Field:
    """Potentials drawn at random: unary ones with a favorite, as strong as learned ones, and tables stronger."""
    generator = torch.Generator().manual_seed(0)
    unary = []
    for size in sizes:
        favorite = torch.randint(size, (count, 1), generator=generator)
        unary.append(
            (2 * torch.randn(count, size, generator=generator)).scatter_add_(
                1, favorite, torch.tensor(3.0).expand(count, 1)
            )
        )
    return Field(tuple(unary), {(v, w): 0.2 * torch.randn(sizes[v], sizes[w], generator=generator) for v, w in edges})
