"""Properties of every tokenizer, over any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioner.text.tokenizers import TOKENIZERS, tokenize


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=60) | st.text("aA.,'’\"-()[]$%&/\\0123456789 \t\n\u00a0…—", max_size=40))
@example("")
@example("A man's T-shirt.")
@settings(max_examples=300, deadline=None)
def test_any_text_has_tokens(name: str, text: str) -> None:
    """Never an exception; lower case, no empty token; the same each time."""
    tokens = tokenize(text, name)
    assert tokens == tokenize(text, name)
    for token in tokens:
        assert token and token == token.lower()
        # plain keeps a run of signs with the blanks among them, as the paper's code does
        assert name == "plain" or not set(token) & set(" \t\n\r")
