"""coco-caption's own tokenizer, by way of its Java program."""

from __future__ import annotations

import pytest

from captioner.errors import MissingDependency
from captioner.java import find_jar
from captioner.metrics import score_captions
from captioner.text.ptb_java import JAR, ptb_java


@pytest.mark.java
def test_one_row_for_each_text() -> None:
    """Would catch captions that move up by one, as they do in coco-caption where a text holds a form feed or U+2028."""
    try:
        find_jar("ptb-java", JAR)
    except MissingDependency as error:
        pytest.skip(str(error))
    odd = "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029"
    texts = ["", "A dog.", *(f"b{sign}c" for sign in odd), "", "the end", " "]
    found = ptb_java(texts)
    assert len(found) == len(texts)
    assert found[:2] == [[], ["a", "dog"]] and found[-3:] == [[], ["the", "end"], []]
    assert all("".join(tokens) == "bc" for tokens in found[2:-3])
    assert ptb_java([]) == []


@pytest.mark.java
def test_scores_say_which_tokenizer_it_was() -> None:
    """Would catch scores of two tokenizers that look comparable."""
    try:
        find_jar("ptb-java", JAR)
    except MissingDependency as error:
        pytest.skip(str(error))
    references = {"1": ["A dog runs on the grass.", "The dog's toys"], "2": ["Two men."]}
    found = {
        name: score_captions({"1": "a dog runs on it.", "2": "two men"}, references, ["bleu"], name)["BLEU-1"]
        for name in ("ptb-java", "ptb-lite")
    }
    assert found["ptb-java"].value == found["ptb-lite"].value
    assert "|tok:ptb-java-3.4.1|" in found["ptb-java"].signature
    assert "|tok:ptb-lite-1|" in found["ptb-lite"].signature


def test_without_java_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a traceback, or our own tokens under the program's name."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependency, match=r"^ptb-java: needs a Java runtime"):
        ptb_java(["a dog"])
