"""What errors say, and what is printed of them."""

from __future__ import annotations

import pickle

import pytest

from captioner.errors import LONGEST, LONGEST_LINE, DataError, ImageError, print_error
from captioner.registry import resolve


def test_an_error_is_short_whatever_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a line of megabytes on a terminal, from a name in a file; its end says what to do."""
    print_error(f"error: no image called {'x' * 10**6}; choose another")
    printed = capsys.readouterr().err
    assert printed.startswith("error: no image") and printed.endswith("; choose another\n")
    assert len(printed) < LONGEST_LINE + 10
    with pytest.raises(Exception, match="no thing 'xxxx") as caught:
        resolve({}, "x" * 10**6, "thing")
    assert len(str(caught.value)) < 100


def test_a_message_is_one_short_printable_line() -> None:
    """Would catch text of a file that fills or steers the terminal, or a lost end, which says what to do."""
    assert str(DataError("a\nb\x1b[2J\u2028c")) == "a\\nb\\x1b[2J\\u2028c"
    text = str(DataError(f"start{'x' * 5000} do this"))
    assert len(text) == LONGEST and text.startswith("start") and text.endswith(" do this") and " ... " in text
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is damaged")))
    assert str(error) == "a.jpg: is damaged"
