"""What is printed about errors."""

from __future__ import annotations

import pytest

from captioner.errors import LONGEST_LINE, print_error
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
