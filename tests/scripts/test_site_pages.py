"""The site: generated pages, links that leave docs/, and what a reader's browser and search find."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import CHECKOUT

pytest.importorskip("mkdocs", reason="needs the extra docs")
site_pages = pytest.importorskip("scripts.site_pages")


def link(text: str, source: str) -> str:
    files = SimpleNamespace(src_uris={"tree.md", "contributing.md", "changelog.md", "architecture.md"})
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    return site_pages.on_page_markdown(text, page, None, files)


def test_links_lead_to_pages_of_the_site() -> None:
    """Would catch links into the checkout, which the site does not have, and anchors that are lost."""
    assert link("[a](../CONTRIBUTING.md#where)", "tree.md") == "[a](contributing.md#where)"
    assert link("[a](../../CHANGELOG.md)", "tree/tests.md") == "[a](../changelog.md)"
    assert link("see [a\nb](../LICENSE).", "provenance.md") == "see a\nb."
    assert link("[a](docs/tree.md)", "contributing.md") == "[a](tree.md)"
    assert link("[a](tests/tiny.py)", "contributing.md") == "a"
    assert link("[a](https://semver.org/)", "changelog.md") == "[a](https://semver.org/)"
    assert link("[a](notebooks/photos.ipynb)", "index.md") == "[a](notebooks/photos.md)"
    assert link("[a](architecture.md#x) [b](#y)", "tree.md") == "[a](architecture.md#x) [b](#y)"


def test_every_module_has_a_place_in_the_api_reference() -> None:
    """Would catch a package without a page, and a private or missing module with a place."""
    shown = re.findall(r"^::: ([\w.]+)$", "\n".join(site_pages.api_pages().values()), re.MULTILINE)
    assert len(shown) == len(set(shown)) and {"captioner", "captioner.decoding.beam"} <= set(shown)
    for name in shown:
        path = CHECKOUT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_notebooks_become_pages(tmp_path: Path) -> None:
    """Would catch magic of notebooks on a page, and cells that run together."""
    cells = [("markdown", ["# Title\n", "text"]), ("code", ["%%bash -e\n", "captioner doctor"]), ("code", ["x = 1"])]
    written = {"cells": [{"cell_type": kind, "source": source} for kind, source in cells]}
    (tmp_path / "a.ipynb").write_text(json.dumps(written))
    assert site_pages.as_markdown(tmp_path / "a.ipynb") == (
        "# Title\ntext\n\n```sh\ncaptioner doctor\n```\n\n```python\nx = 1\n```\n"
    )
    assert {"notebooks/photos.md", "notebooks/own-data.md", "notebooks/research.md"} <= set(site_pages.tutorials())


@pytest.mark.slow
def test_the_site_is_whole(tmp_path: Path) -> None:
    """Would catch warnings, pages that fetch from elsewhere, and commands and terms that the search does not find."""
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", page.read_text())
        assert not fetched, (page, fetched)
    index = json.loads((tmp_path / "site/search/search_index.json").read_text())
    titles = " ".join(entry["title"] for entry in index["docs"])
    words = " ".join(entry["text"] for entry in index["docs"])
    for path in (CHECKOUT / "docs/commands").glob("*.md"):
        for heading in re.findall(r"^#+ (captioner .*)", path.read_text(), re.MULTILINE):
            assert heading in titles, heading
    for term in re.findall(r"^\*\*(.+)\*\*$", (CHECKOUT / "docs/glossary.md").read_text(), re.MULTILINE):
        assert term in words, term
