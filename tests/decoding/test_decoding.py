"""Searching, over decoders that are nothing but a table of odds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from captioner.decoding import SEARCHES, How, Hypothesis, search
from captioner.decoding.beam import beam_search
from captioner.decoding.greedy import greedy
from captioner.decoding.ngram_blocking import forbid_repeats
from captioner.decoding.sampling import draw, sample
from captioner.errors import UsageError
from captioner.models.lrcn import LRCN, LRCNConfig
from tests.oracles.exhaustive import exhaustive_search
from tests.oracles.naive_beam import naive_beam_search, run_again

START, END = 0, 1
State = tuple[Tensor, Tensor]


@dataclass
class Markov:
    """The next token depends on the last two and on the image: log odds (images, V, V, V).

    The state is (image (N,), last token but one (N,)), so that a state that goes to a wrong hypothesis shows.
    """

    table: Tensor
    stepped: list[int] = field(default_factory=list)

    def begin(self, images: Sequence[int] | None = None) -> State:
        image = torch.tensor(range(len(self.table)) if images is None else images, dtype=torch.int64)
        return image, torch.full_like(image, START)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        image, before = state
        self.stepped.append(len(tokens))
        return self.table[image, before, tokens], (image, tokens)

    def select(self, state: State, rows: Tensor) -> State:
        return state[0][rows], state[1][rows]

    def after(self, image: int, prefix: Sequence[int]) -> list[float]:
        before = prefix[-2] if len(prefix) > 1 else START
        return self.table[image, before, prefix[-1]].tolist()


def markov(images: int, vocabulary: int, seed: int = 0, spread: float = 1.5) -> Markov:
    """Random odds; the start token never comes again."""
    scores = spread * torch.randn(images, *[vocabulary] * 3, generator=torch.Generator().manual_seed(seed))
    scores[..., START] = -math.inf
    return Markov(scores.log_softmax(-1))


def same(found: Sequence[Hypothesis], expected: Sequence[tuple[tuple[int, ...], float]]) -> None:
    assert [one.ids for one in found] == [ids for ids, _ in expected]
    assert [one.log_prob for one in found] == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_wide_enough_beam_is_exhaustive_search(penalty: float) -> None:
    """Would catch: lost continuations, early stopping too early, wrong ranking, a cut sentence scored as finished."""
    decoder = markov(images=4, vocabulary=4)
    limits = {"start": START, "end": END, "max_length": 5, "length_penalty": penalty, "best": 6}
    found = beam_search(decoder, decoder.begin(), 4, How(**limits, width=100))
    for image in range(4):
        same(found[image], exhaustive_search(lambda prefix, image=image: decoder.after(image, prefix), **limits))


@pytest.mark.parametrize(("width", "best"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (9, 1), (9, 4)])
@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_beam_equals_plain_loops(width: int, best: int, penalty: float) -> None:
    """Would catch: states or scores that reach a neighbor's hypothesis; width 9 is more than there are words."""
    decoder = markov(images=12, vocabulary=6, seed=width)
    limits = {"start": START, "end": END, "max_length": 7, "width": width, "length_penalty": penalty, "best": best}
    found = beam_search(decoder, decoder.begin(), 12, How(**limits))
    for image in range(12):

        def following(prefixes: list[tuple[int, ...]], image: int = image) -> list[list[float]]:
            return [decoder.after(image, prefix) for prefix in prefixes]

        same(found[image], naive_beam_search(following, **limits))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beam_of_one_is_greedy(penalty: float) -> None:
    decoder = markov(images=20, vocabulary=7)
    how = How(START, END, max_length=8, width=1, length_penalty=penalty)
    wide, narrow = (find(decoder, decoder.begin(), 20, how) for find in (beam_search, greedy))
    same([one for (one,) in wide], [one for (one,) in narrow])


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_keeps_the_contract(name: str) -> None:
    """Images do not touch each other, sentences are as long as allowed and report what the decoder gives them."""
    decoder = markov(images=9, vocabulary=6)
    how = How(START, END, name, max_length=8, width=4, number=5)
    found = search(decoder, decoder.begin(), 9, how)
    assert [len(ranked) for ranked in found] == [1] * 9
    for image, (one,) in enumerate(found):
        assert search(decoder, decoder.begin([image]), 1, how) == [[one]]
        tokens = (START, *one.ids, END)[: 1 + how.max_length]
        assert START not in one.ids and END not in one.ids and len(one.ids) <= how.max_length
        steps = [decoder.after(image, tokens[: place + 1])[tokens[place + 1]] for place in range(len(tokens) - 1)]
        assert one.log_prob == pytest.approx(sum(steps), abs=1e-5)
    assert search(decoder, decoder.begin([]), 0, how) == []


def test_a_search_that_is_not_there() -> None:
    decoder = markov(images=1, vocabulary=4)
    with pytest.raises(UsageError, match="no search 'widest'; there are: beam, greedy, sample"):
        search(decoder, decoder.begin(), 1, How(START, END, "widest"))


def test_finished_hypotheses_are_not_stepped_on() -> None:
    """The end has odds of 0.9 from the second word on: after it nothing else can win, and nothing else is computed."""
    table = torch.full((2, 4, 4, 4), 0.05)
    table[..., START] = 0.0
    table[..., END] = 0.9
    table[:, START, START] = torch.tensor([0.0, 0.0, 0.6, 0.4])  # the first word: 2 or 3
    decoder = Markov(table.log())
    found = beam_search(decoder, decoder.begin(), 2, How(START, END, width=2))
    assert [one.ids for (one,) in found] == [(2,), (2,)]
    assert found[0][0].log_prob == pytest.approx(math.log(0.6 * 0.9), abs=1e-5)
    assert decoder.stepped == [2, 4]

    decoder.table[1, START, START] = torch.tensor([0.0, 1.0, 0.0, 0.0]).log()  # image 1 ends at once
    decoder.stepped.clear()
    assert [one.ids for (one,) in greedy(decoder, decoder.begin(), 2, How(START, END))] == [(2,), ()]
    assert decoder.stepped == [2, 1]


def test_longest_length_cuts_without_an_end() -> None:
    """Would catch: log probabilities that count an end token which nobody emitted."""
    table = torch.zeros(1, 3, 3, 3)
    table[..., END], table[..., 2] = 0.2, 0.8
    decoder = Markov(table.log())
    how = How(START, END, max_length=3, width=4)
    expected = Hypothesis((2, 2, 2), pytest.approx(3 * math.log(0.8), abs=1e-5))
    for find in (greedy, beam_search):
        assert find(decoder, decoder.begin(), 1, how) == [[expected]]


def test_nothing_allowed() -> None:
    nothing = Markov(torch.full((1, 3, 3, 3), -math.inf))
    assert beam_search(nothing, nothing.begin(), 1, How(START, END, width=2)) == [[Hypothesis((), -math.inf)]]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_odds(temperature: float) -> None:
    """4,000 draws; four standard deviations of room. The log probability stays that of temperature 1."""
    odds = torch.tensor([0.0, 0.2, 0.5, 0.3])
    table = odds.expand(1, 4, 4, 4).clone()
    decoder, draws = Markov(table.log()), 4000
    how = How(START, END, max_length=2, number=draws, temperature=temperature, seed=3)
    [found] = draw(decoder, decoder.begin(), 1, how)
    seen = Counter(one.ids for one in found)
    powered = odds ** (1 / temperature)
    chances = (powered / powered.sum()).tolist()
    for ids, chance in [((), chances[1]), ((2, 3), chances[2] * chances[3]), ((3,), chances[3] * chances[1])]:
        assert seen[ids] / draws == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / draws))
    for one in found:
        tokens = (*one.ids, END)[:2]
        assert one.log_prob == pytest.approx(sum(math.log(odds[t]) for t in tokens), abs=1e-5)


def test_best_of_many_samples_is_the_best_sentence() -> None:
    """Would catch: ranking by the tempered score, repeated sentences among the best, images mixed up."""
    decoder = markov(images=3, vocabulary=4, spread=2.0)
    limits = {"start": START, "end": END, "max_length": 4, "best": 3}
    found = sample(decoder, decoder.begin(), 3, How(**limits, number=3000, temperature=2.0))
    for image in range(3):
        same(found[image], exhaustive_search(lambda prefix, image=image: decoder.after(image, prefix), **limits))


def test_equal_seeds_draw_equal_sentences() -> None:
    decoder = markov(images=3, vocabulary=9)
    first, second, other = (
        draw(decoder, decoder.begin(), 3, How(START, END, max_length=9, seed=seed)) for seed in (5, 5, 6)
    )
    assert first == second != other


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (How(START, END, "beam", width=2, best=3), "beam of at least 3, not 2"),
        (How(START, END, "greedy", best=2), "1 caption, not 2"),
        (How(START, END, "sample", number=2, best=3), "best 3 of 2"),
        (How(START, END, "sample", number=2, temperature=0), "above 0, not 0"),
    ],
)
def test_impossible_wishes_are_refused(how: How, reason: str) -> None:
    decoder = markov(images=1, vocabulary=4)
    with pytest.raises(UsageError, match=reason):
        search(decoder, decoder.begin(), 1, how)


@torch.inference_mode()
def test_carried_state_finds_what_running_the_prefix_again_finds() -> None:
    """The whole way with a real model: state carried by ``step`` and ``select`` against ``forward`` on every prefix."""
    torch.manual_seed(0)
    model = LRCN(LRCNConfig(embedding_dim=12, hidden_dim=16, image_dim=8), vocabulary_size=15, feature_size=10).eval()
    for parameter in model.parameters():
        parameter.mul_(2.5)  # so that images differ in their captions
    features = torch.randn(5, 10)
    limits = {"start": 1, "end": 2, "width": 3, "max_length": 8, "best": 2}
    found = beam_search(model, model.start(features), 5, How(**limits))
    for feature, hypotheses in zip(features, found, strict=True):
        same(hypotheses, naive_beam_search(run_again(model, feature), **limits))
    assert len({one.ids for one, _ in found}) > 1


def test_no_phrase_comes_twice() -> None:
    """Would catch a loop, a ban on phrases that came once only, and a reported probability that the ban has changed."""
    ids = torch.tensor([[4, 5, 6, 4, 5], [4, 5, 6, 7, 5]])
    allowed = forbid_repeats(torch.zeros(2, 9), ids, 3)
    assert allowed[0, 6] == -math.inf and allowed[0].isfinite().sum() == 8
    assert allowed[1].isfinite().all()
    assert forbid_repeats(torch.zeros(2, 9), ids, 0).isfinite().all()
    assert forbid_repeats(torch.zeros(2, 9), ids, 1)[1].isfinite().tolist() == [True] * 4 + [False] * 4 + [True]


def test_a_sentence_that_can_only_repeat_itself_may() -> None:
    """Would catch a search with nothing left to say, and a rule that spoils its caller's numbers."""
    log_probs = torch.full((2, 4), -math.inf)
    log_probs[0, 3], log_probs[1, 2:] = -1.0, -2.0  # after 3 only 3 may come; after 2 both 2 and 3
    before = log_probs.clone()
    allowed = forbid_repeats(log_probs, torch.tensor([[3, 3], [2, 2]]), 2)
    assert allowed.tolist() == [before[0].tolist(), [-math.inf] * 3 + [-2.0]]
    assert torch.equal(log_probs, before)


@pytest.mark.parametrize("name", ["beam", "greedy"])
def test_searches_leave_a_loop(name: str) -> None:
    class Loop:
        """Token 2 follows 3 and 3 follows 2, nearly always; what else follows is token 4, and then the end."""

        def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
            odds = torch.full((len(tokens), 5), 1e-9)
            odds[:, 2], odds[:, 4] = 1e-3, 1e-2
            odds[tokens == 2, 3] = 1.0
            odds[tokens == 3, 2] = 1.0
            odds[tokens == 4, END] = 2.0
            odds[tokens == START, 2] = 1.0
            return (odds / odds.sum(-1, keepdim=True)).log(), state

        def select(self, state: None, rows: Tensor) -> None:
            return state

    (loop,), (left,) = (
        search(Loop(), None, 1, How(START, END, name, max_length=9, width=1, no_repeat=length))[0] for length in (0, 2)
    )
    assert len(loop.ids) == 9
    assert left.ids == (2, 3, 2, 4)
