"""eval.ngram: the language model against its definition, and as a decoder."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch

from captioner.decoding import DecodingConfig, decode
from captioner.text.vocabulary import END as END_ID
from captioner.text.vocabulary import PAD, START, UNK
from eval.ngram import KneserNey, train_ngram
from tests.oracles.kneser_ney import END
from tests.oracles.kneser_ney import KneserNey as SlowKneserNey

SENTENCES = [
    text.split()
    for text in (
        "the person cuts the plum",
        "the person washes a plum",
        "a knife",
        "the plum",
        "a b b b a",
        "the person",
    )
]
IDS = [[4, 5, 6], [4, 5, 7, 5], [6, 5, 6], [4, 4, 5], [8], [7, 8, 6, 6], [UNK, 5, 6]]


def train(order: int) -> KneserNey[str]:
    return KneserNey(SENTENCES, order, "<s>", END)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_equal_their_definition(order: int) -> None:
    """Would catch a wrong back-off weight, discount or continuation count, and a state that is too short."""
    model, slow = train(order), SlowKneserNey(SENTENCES, order)
    for sentence in [*SENTENCES, "a b knife the the person b".split()]:
        state = model.start
        for place, word in enumerate([*sentence, END]):
            log_prob, following = model.step(state, word)
            assert log_prob == pytest.approx(math.log(slow.probability(sentence[:place], word)), rel=1e-9)
            state = following


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_distribution_is_that_of_single_words_and_sums_to_one(order: int) -> None:
    """Would catch mass that discounting loses or makes, also after words never seen together."""
    model = train(order)
    for text in ("", "the", "the person washes", "plum plum", "never seen"):
        _, state = model.score(model.start, text.split())
        found = model.log_probs(state)
        assert found == pytest.approx([model.step(state, word)[0] for word in model.tokens])
        assert math.exp(model.step(state, "unknown")[0]) + sum(map(math.exp, found)) == pytest.approx(1)


def test_the_score_of_a_phrase_is_the_sum_of_its_words() -> None:
    model = train(3)
    words = ["the", "person", "eats"]
    log_probs = []
    state = model.start
    for word in words:
        log_prob, state = model.step(state, word)
        log_probs.append(log_prob)
    assert model.score(model.start, words) == (pytest.approx(sum(log_probs)), state)


def test_a_decoder_follows_the_model_and_never_says_unknown_words() -> None:
    """Would catch a state that loses the words before the newest, rows exchanged by select, and <unk> in a caption."""
    decoder = train_ngram(IDS, 9, 3)
    state = decoder.select([(), ()], torch.tensor([1, 0, 0]))
    first, state = decoder.step(torch.tensor([START, START, START]), state)
    log_probs, state = decoder.step(torch.tensor([4, 5, 4]), state)
    assert log_probs.shape == (3, 9) and torch.isinf(log_probs[:, [PAD, START, UNK]]).all()
    for token in (END_ID, 4, 5, 8):
        expected, after = decoder.model.step(decoder.model.start, 4)
        assert float(first[0, 4]) == pytest.approx(expected, rel=1e-6)
        assert float(log_probs[0, token]) == pytest.approx(decoder.model.step(after, token)[0], rel=1e-6)
    torch.testing.assert_close(log_probs[0], log_probs[2])
    kept = decoder.select(state, torch.tensor([1]))
    torch.testing.assert_close(
        decoder.step(torch.tensor([6]), kept)[0][0], decoder.step(torch.tensor([5, 6, 6]), state)[0][1]
    )


def test_the_likeliest_sentence_is_that_of_enumeration() -> None:
    """Would catch a beam that ranks by other numbers than the model's."""
    decoder = train_ngram([[4], [4], [4, 5], [5]], 6, 2)
    config = DecodingConfig(beam_size=10, max_length=4)
    [[best]] = decode(decoder, [()], 1, config, start=START, end=END_ID)
    model = decoder.model
    texts = list(islice(([], [4], [5], [4, 4], [4, 5], [5, 4], [5, 5]), 7))
    scores = {tuple(text): model.score(model.start, [*text, END_ID])[0] for text in texts}
    assert best.ids == max(scores, key=lambda ids: scores[ids])
    assert best.log_prob == pytest.approx(max(scores.values()), rel=1e-6)
