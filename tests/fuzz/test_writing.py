"""Files that captions are written into, pages, and answers of servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import DataError
from captioner.predictors.server import ServerCaptioner
from captioner.writing.alt import read_page
from captioner.writing.embed import Embedded
from captioner.writing.xmp import read_description, set_description
from tests.fuzz import VALUES, attempt, damaged, fuzz
from tests.fuzz.test_images import rewritten, with_segment
from tests.fuzz.worker import isolated
from tests.writing.test_alt import HTML, MARKDOWN
from tests.writing.test_embed import FILES, pixels
from tests.writing.test_xmp import LIGHTROOM

TEXT = "Two <dogs> & a cät"


def embed(path: Path) -> None:
    """Put a caption into a file: what is decoded from it stays, and a file that is refused is as it was."""
    before, place = path.read_bytes(), Embedded("me")
    try:
        place.write(path, TEXT)
    except Exception:
        assert path.read_bytes() == before
        raise
    assert place.read(path) == TEXT and pixels(path.read_bytes()) == pixels(before)


def damaged_file(name: str) -> st.SearchStrategy[bytes]:
    found = damaged(FILES[name])
    if name.endswith(".webp"):
        return found
    return found | (rewritten if name.endswith(".png") else with_segment)(FILES[name])


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@fuzz
def test_damaged_images_under_embed(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Would catch lengths that are believed, and a file that is lost in the attempt."""
    path = tmp_path / name
    path.write_bytes(data.draw(damaged_file(name)))
    isolated(embed, path)


@given(content=damaged(LIGHTROOM))
@fuzz
def test_damaged_xmp(content: bytes) -> None:
    """Would catch an exception of the parser's, and a packet that is none afterwards."""
    changed = attempt(set_description, content, TEXT, "me")
    if changed is not None:
        assert read_description(changed) == TEXT


@pytest.mark.parametrize(("name", "valid"), [("a.html", HTML), ("a.md", MARKDOWN)])
@given(data=st.data())
@fuzz
def test_damaged_pages(tmp_path: Path, name: str, valid: str, data: st.DataObject) -> None:
    """Would catch places that are computed wrongly: without the new texts a page is what it was."""
    (tmp_path / name).write_bytes(data.draw(damaged(valid.encode())))
    page = attempt(read_page, tmp_path / name)
    if page is not None:
        new = page.filled(dict.fromkeys((gap.source for gap in page.gaps), "NEWTEXT"))
        assert new.count("NEWTEXT") == len(page.gaps) + page.text.count("NEWTEXT")
        assert page.filled({}) == page.text
        shortened = "".join(sorted(new.replace(' alt="NEWTEXT"', "").replace("NEWTEXT", "").split()))
        assert len(shortened) <= len("".join(page.text.split()))


@given(
    answer=VALUES
    | st.builds(lambda text, logs: {"choices": [{"message": {"content": text}, "logprobs": logs}]}, VALUES, VALUES)
)
@fuzz
def test_answers_of_servers(answer: object) -> None:
    """Would catch a server that ends a run by what it says."""
    captioner = ServerCaptioner("http://localhost:1/v1#x")
    try:
        caption = captioner._parse(json.dumps(answer))
    except DataError:
        return
    assert caption.text and "\n" not in caption.text
