"""Batches of captions: nothing lost, little padding, an order that can be had again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.data.batching import CaptionBatches
from captioner.errors import DataError
from captioner.text.vocabulary import END, PAD, START


def captions(count, seed=0):
    """Random captions of 4 to 25 words, with their image's row."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.normal(11, 4, count).astype(int), 4, 25)
    return [generator.integers(4, 100, n).tolist() for n in lengths], [i // 5 for i in range(count)]


LISTS = st.lists(st.lists(st.integers(4, 9), max_size=12), min_size=1, max_size=40)


@given(LISTS, st.integers(1, 9), st.integers(0, 3), st.integers(1, 3), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_every_caption_comes_once_between_start_and_end(ids, size, seed, window, epoch):
    """Would catch a caption lost at the end of a window or epoch, shifted targets, and END given as an input."""
    batches = list(CaptionBatches(ids, range(len(ids)), size, seed=seed, window=window).epoch(epoch))
    found = {}
    for batch in batches:
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == batch.targets.shape
        columns = batch.rows.tolist(), batch.inputs.tolist(), batch.targets.tolist()
        for row, inputs, targets in zip(*columns, strict=True):
            end = targets.index(END)
            assert inputs[: end + 1] == [START, *targets[:end]]
            assert set(targets[end + 1 :]) <= {PAD} and set(inputs[end + 1 :]) <= {PAD}
            assert row not in found
            found[row] = targets[:end]
    assert found == dict(enumerate(ids))
    sizes = [len(batch.rows) for batch in batches]
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_alone():
    ids, rows = captions(200)

    def order(seed, epoch):
        return [b.tolist() for b in CaptionBatches(ids, rows, 16, seed=seed).order(epoch)]

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


def test_padding_is_little():
    """Without buckets a third of such a batch is padding."""
    ids, rows = captions(5000)
    batches = list(CaptionBatches(ids, rows, 64, seed=0).epoch(0))
    assert sum(b.tokens for b in batches) / sum(b.targets.numel() for b in batches) > 0.95
    assert {len(b.rows) for b in batches} <= {63, 64}


def test_a_caption_that_is_cut_does_not_end():
    """The end token in mid-sentence would teach the model to stop anywhere."""
    (batch,) = CaptionBatches([[4, 5, 6, 7], [8]], [0, 1], 2, seed=0, max_length=3).epoch(0)
    lines = {tuple(i): t for i, t in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)}
    assert lines == {(START, 4, 5): [4, 5, 6], (START, 8, PAD): [8, END, PAD]}


def test_impossible_batches_are_refused():
    with pytest.raises(DataError, match="2 captions but 1"):
        CaptionBatches([[4], [5]], [0], 2, seed=0)
    with pytest.raises(DataError, match="no captions"):
        CaptionBatches([], [], 2, seed=0)


def test_shards_are_needed_for_a_short_time_each():
    """Would catch an order that needs all shards at once, the same one in every epoch, and captions that it loses."""
    ids, rows = captions(3000)
    shards = np.arange(600) // 20  # 30 shards of 100 captions
    batches = CaptionBatches(ids, rows, 10, seed=0, window=4).by_shards(shards, 200)
    orders = [batches.order(epoch) for epoch in (0, 1)]
    assert all(sorted(np.concatenate(order).tolist()) == list(range(3000)) for order in orders)
    assert [order.tolist() for order in orders[0]] != [order.tolist() for order in orders[1]]
    needed = [set(shards[np.asarray(rows)[batch]].tolist()) for batch in orders[0]]
    first, last = ({shard: n for n, some in numbered for shard in some} for numbered in both_ways(needed))
    assert 2 <= max(sum(first[s] <= n <= last[s] for s in first) for n in range(300)) <= 5
    assert len(batches) == len(orders[0]) == len(orders[1])


def both_ways(items):
    """Numbered items from the last to the first, and from the first to the last."""
    numbered = list(enumerate(items))
    return numbered[::-1], numbered
