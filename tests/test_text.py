"""Tokens and the vocabulary."""

import pytest

from captioner.errors import ConfigError, DataError
from captioner.text.tokenize import TOKENIZERS, tokenize, tokenizer
from captioner.text.vocab import END, PAD, SPECIALS, START, UNK, Vocabulary


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Seen from Stanford's PTBTokenizer 3.4.1 -preserveLines -lowerCase (pycocoevalcap 1.2), punctuation removed.
        ("don't can't won't it's", "do n't ca n't wo n't it 's"),
        ("cannot gonna wanna", "can not gon na wan na"),
        ("3/4 of $5.00 & 50% #1", "3/4 of $ 5.00 & 50 % # 1"),
        ("10:30pm", "10:30 pm"),
        ("a man's hat", "a man 's hat"),
        ("a man\u2019s hat", "a man 's hat"),
        ("A U.S. flag near 12th Ave.", "a u.s. flag near 12th ave."),
        ("Mr. Smith, at 5 o'clock -- with the dogs' toys...", "mr. smith at 5 o'clock with the dogs toys"),
        ("A man on a T-shirt; an 18-wheeler!", "a man on a t-shirt an 18-wheeler"),
        ("AT&amp;T's logo", "at&t 's logo"),
        ("He said: \u201cHello\u201d \u2014 twice.", "he said hello twice"),
    ],
)
def test_plain_agrees_with_the_penn_treebank_tool(text, tokens):
    assert tokenize(text) == tokens.split()


def test_plain_drops_what_is_no_word_and_ignores_case():
    assert tokenize(" ( ?! ) [ ... ] \u2026 ") == []
    assert tokenize("") == []
    assert tokenize("A DOG'S BALL") == tokenize("a dog's ball")
    assert tokenize("un caf\u00e9") == tokenize("un cafe\u0301") == ["un", "caf\u00e9"]


def test_tokens_stay_tokens():
    """Captions that were tokenised once (Flickr8k's are) and our own output must not change when scored."""
    text = "a man 's t-shirt is n't at 10:30 pm"
    assert " ".join(tokenize(text)) == text


def test_every_tokenizer_loads():
    for name in TOKENIZERS:
        assert tokenizer(name)("a dog") == ["a", "dog"]
    with pytest.raises(ConfigError, match="plain"):
        tokenize("a", "unheard-of")


def test_vocabulary_counts_and_orders():
    vocabulary = Vocabulary.build([["b", "a", "a"], ["c", "b", "rare"], ["c", "<end>"]], min_count=2)
    assert vocabulary.words == (*SPECIALS, "a", "b", "c")
    assert vocabulary.encode(["c", "rare", "a"]) == [6, UNK, 4]
    assert Vocabulary.from_list(vocabulary.to_list()) == vocabulary


def test_decode_stops_at_the_end():
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1)
    assert vocabulary.decode([START, 4, 5, END, 4, PAD]) == "a dog"


def test_special_names_in_captions_are_no_commands():
    """A caption with the text ``<end>`` must not teach the model to stop there."""
    assert Vocabulary.build([["a"]], 1).encode(["<end>", "<pad>"]) == [UNK, UNK]


def test_damaged_vocabularies_are_refused():
    with pytest.raises(DataError, match="starts with"):
        Vocabulary(("a", "b"))
    with pytest.raises(DataError, match="'a' more than once"):
        Vocabulary((*SPECIALS, "a", "a"))
