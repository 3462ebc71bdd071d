"""Tokens and the vocabulary."""

import pytest

from captioner.errors import ConfigError, DataError
from captioner.text.tokenizers import TOKENIZERS, join_pairs, tokenize, tokenizer
from captioner.text.vocabulary import END, PAD, SPECIALS, START, UNK, Vocabulary


def test_plain_cuts_as_the_paper_s_code():
    """The paper's vocabulary has commas and single letters after apostrophes as words, and no last full stop."""
    assert tokenize("A man's T-shirt, really?!", "plain") == [
        "a",
        "man",
        "'",
        "s",
        "t",
        "-",
        "shirt",
        ",",
        "really",
        "?!",
    ]
    assert tokenize("Two dogs.  ", "plain") == ["two", "dogs"]
    assert tokenize("...", "plain") == ["..."]
    assert tokenize("", "plain") == tokenize(" ", "plain") == tokenize(".", "plain") == []


def test_default_is_coco_caption_s():
    """Training, dev scores and scores must cut captions alike."""
    assert tokenize("A man's T-shirt, isn't it?") == tokenizer("ptb-lite")(["a man 's t-shirt is n't it"])[0] != []


def test_every_tokenizer_loads():
    for name in TOKENIZERS.keys() - {"ptb-java"}:
        assert tokenizer(name)(["a dog", ""]) == [["a", "dog"], []]
        assert tokenizer(name)([]) == []
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


def test_names_of_two_words_are_joined_from_the_left() -> None:
    """Would catch a pair that is joined twice, and one at the end that is missed."""
    words = "a hot dog cat dog cat with a hot dog".split()
    joined = ["a", "hot dog", "cat", "dog cat", "with", "a", "hot dog"]
    assert join_pairs(words, {"hot dog", "dog cat"}) == joined
    assert join_pairs([], {"hot dog"}) == []
