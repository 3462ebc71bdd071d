"""Messages of errors."""

from __future__ import annotations

import pickle

from captioner.errors import LONGEST, DataError, ImageError


def test_a_message_is_one_short_printable_line() -> None:
    """Would catch text of a file that fills or steers the terminal, or a lost end, which says what to do."""
    assert str(DataError("a\nb\x1b[2J\u2028c")) == "a\\nb\\x1b[2J\\u2028c"
    text = str(DataError(f"start{'x' * 5000} do this"))
    assert len(text) == LONGEST and text.startswith("start") and text.endswith(" do this") and " ... " in text
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is damaged")))
    assert str(error) == "a.jpg: is damaged"
