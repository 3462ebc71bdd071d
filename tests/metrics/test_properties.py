"""Properties of every metric, over generated captions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.metrics import References, Scored, score_captions
from captioner.metrics.base import FAST
from captioner.metrics.significance import compare_systems

SENTENCE = st.lists(st.sampled_from("a the dog man ball runs red on grass with".split()), max_size=8).map(" ".join)
SYSTEM = st.lists(st.tuples(SENTENCE, st.lists(SENTENCE, min_size=1, max_size=4)), min_size=2, max_size=6)
QUICK = settings(max_examples=40, deadline=None)

Pairs = list[tuple[str, list[str]]]


def scored(pairs: Pairs, name: str) -> Scored:
    return score_captions(dict(enumerate(h for h, _ in pairs)), dict(enumerate(refs for _, refs in pairs)), [name])


def values(pairs: Pairs, name: str) -> list[float]:
    return [score.value for score in scored(pairs, name).scores.values()]


@pytest.mark.parametrize("name", FAST)
@given(pairs=SYSTEM, data=st.data())
@QUICK
def test_order_does_not_matter(name: str, pairs: Pairs, data: st.DataObject) -> None:
    """Neither of references nor of images."""
    shuffled = [(caption, data.draw(st.permutations(refs))) for caption, refs in data.draw(st.permutations(pairs))]
    assert values(shuffled, name) == pytest.approx(values(pairs, name), abs=1e-9)


@pytest.mark.parametrize("name", FAST)
@given(pairs=SYSTEM)
@QUICK
def test_scores_are_finite_percentages(name: str, pairs: Pairs) -> None:
    result = scored(pairs, name)
    highest = 1000 if name == "cider" else 100
    for score, numbers in result.per_image().items():
        for number in [result[score].value, *numbers]:
            assert math.isfinite(number) and -1e-9 <= number <= highest + 1e-9


@pytest.mark.parametrize("name", ["bleu", "rouge"])
@given(pairs=SYSTEM)
@QUICK
def test_a_caption_that_is_a_reference_is_perfect(name: str, pairs: Pairs) -> None:
    """As far as it has n-grams: BLEU-n of a caption of fewer than n words is 0."""
    equal = [(refs[0], refs) for _, refs in pairs if len(refs[0].split()) >= 4]
    if len(equal) >= 2:
        assert values(equal, name) == pytest.approx([100.0] * len(values(equal, name)))


@pytest.mark.parametrize("name", ["bleu", "rouge"])
@given(pairs=SYSTEM, extra=SENTENCE)
@QUICK
def test_another_reference_never_lowers_the_score_of_an_image(name: str, pairs: Pairs, extra: str) -> None:
    """ROUGE-L and BLEU's matches; its brevity penalty may change with the closest length."""
    more = [(caption, [*refs, extra]) for caption, refs in pairs]
    before, after = scored(pairs, name), scored(more, name)
    if name == "rouge":
        assert (after.per_image()["ROUGE-L"] >= before.per_image()["ROUGE-L"] - 1e-9).all()
    else:
        assert (after.statistics[0][:, 2:] >= before.statistics[0][:, 2:]).all()


@pytest.mark.parametrize("name", FAST)
@given(pairs=SYSTEM)
@QUICK
def test_unit_weights_are_the_score_and_single_weights_those_of_images(name: str, pairs: Pairs) -> None:
    result = scored(pairs, name)
    everything = result.reweighted(np.ones((1, len(pairs))))
    alone = result.reweighted(np.eye(len(pairs)))
    for score in result.scores:
        assert everything[score][0] == pytest.approx(result[score].value, abs=1e-9)
        assert alone[score] == pytest.approx(result.per_image()[score], abs=1e-9)


@given(pairs=SYSTEM)
@QUICK
def test_a_system_does_not_differ_from_itself(pairs: Pairs) -> None:
    references = References(dict(enumerate(refs for _, refs in pairs)))
    one = references.score(dict(enumerate(caption for caption, _ in pairs)))
    found = compare_systems({"one": one, "two": one}, resamples=40, trials=20)
    for score, estimate in found["two"].items():
        assert (estimate.p_bootstrap, estimate.p_randomization) == (1, 1)
        assert estimate.low <= estimate.high and estimate.score == found["one"][score].score
