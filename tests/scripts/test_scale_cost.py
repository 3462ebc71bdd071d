from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli.program import run
from scripts.scale_cost import app
from tests.conftest import CHECKOUT


def test_the_page_has_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a table in docs/scale.md that nobody can reproduce, and hours that are seconds."""
    assert run(app, ["--rate", "27.0", "--cores", "2", "--price", "0.04"]) == 0
    printed = capsys.readouterr().out.strip()
    page = Path(CHECKOUT, "docs", "scale.md").read_text()
    assert printed in page and "scale_cost --rate 27.0 --cores 2 --price 0.04" in page
    assert run(app, ["--rate", "1", "--cores", "1", "--price", "1"]) == 0
    assert "278 |" in capsys.readouterr().out  # 10^6 seconds are 277.8 hours
