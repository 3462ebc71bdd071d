"""``captioner index`` and ``captioner search``: what is printed, written, and exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captioner import load
from captioner.errors import SearchIndexError
from captioner.search import vectors
from captioner.search.index import Index
from captioner.search.indexing import open_writer
from tests import tiny
from tests.conftest import CHECKOUT, Run

EXAMPLES = CHECKOUT / "examples"


@pytest.fixture
def command(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``captioner``, with an index in ``tmp_path``."""
    monkeypatch.setenv("CAPTIONER_INDEX", str(tmp_path / "index"))
    return cli


def test_from_a_folder_to_an_image(command: Run, tmp_path: Path) -> None:
    """Would catch commands that do not fit together, and a line without score, path, caption or reason."""
    status, (line,), _ = command("index", EXAMPLES)
    assert (status, line) == (0, f"7 added; 7 images in {tmp_path / 'index'}")
    status, lines, _ = command("search", EXAMPLES / "dog.jpg", "--top", 3)
    rows = [line.split("\t") for line in lines]
    assert status == 0 and len(rows) == 3 and all(len(row) == 4 for row in rows)
    assert str(EXAMPLES / "dog.jpg") not in [row[1] for row in rows], "the query is no answer"
    sheet = tmp_path / "sheet.html"
    status, lines, err = command("search", "a dog on the grass", "--json", "-o", sheet)
    found = [json.loads(line) for line in lines]
    assert status == 0 and found[0]["image"] == str(EXAMPLES / "dog.jpg") and "grass" in found[0]["why"]
    assert set(found[0]) == {"image", "score", "why", "caption", "log_prob", "classes"}
    page = sheet.read_text()
    assert page.count('src="data:image/jpeg;base64,') == len(found) and found[0]["caption"] in page
    assert "http" not in page and f"written to {sheet}" in err[-1]


def test_a_copy_elsewhere_is_found_and_is_a_duplicate(command: Run, tmp_path: Path) -> None:
    """Would catch an image outside the index that is searched by another vector than the one inside."""
    paths = tiny.save_images(tmp_path / "photos", 4)
    command("index", tmp_path / "photos")
    other = tmp_path / "elsewhere.png"
    other.write_bytes(paths[2].read_bytes())
    _, lines, _ = command("search", other, "--min-score", 0.999)
    assert [line.split("\t")[1] for line in lines] == [str(paths[2])]
    (tmp_path / "photos" / "copy.png").write_bytes(paths[1].read_bytes())
    command("index")
    _, lines, _ = command("search", "--duplicates", "--min-score", 0.9999, "--json")
    found = [json.loads(line) for line in lines]
    assert [(Path(one["image"]).name, one["group"], one["why"]) for one in found] == [
        ("01.png", 1, "the same file"),
        ("copy.png", 1, "the same file"),
    ]


def test_what_is_wrong_is_said(command: Run, tmp_path: Path) -> None:
    """Would catch a wrong exit status, and a missing image that is taken for a sentence."""
    (tmp_path / "photos").mkdir()
    paths = tiny.save_images(tmp_path / "photos", 2)
    assert "make one with: captioner index" in command("search", "dog")[2][0]
    assert command("index")[::2] == (2, ["error: nothing to index; give folders or images"])
    paths[0].write_bytes(b"no image")
    status, lines, err = command("index", tmp_path / "photos")
    assert status == 1 and lines[0].startswith("1 added, 1 failed; 1 image in") and str(paths[0]) in "\n".join(err)
    assert command("search", tmp_path / "no.jpg")[::2] == (1, [f"error: {tmp_path / 'no.jpg'}: no such file"])
    assert command("search")[0] == command("search", "dog", "--duplicates")[0] == 2
    for top in (-1, 0, 10_001):
        found = command("search", "--duplicates", "--top", top)
        assert found[::2] == (2, [f"error: top must be between 1 and 10000, not {top}"])
    assert command("search", "dog", "-o", paths[1])[0] == 2
    assert command("search", paths[1])[::2] == (1, ["nothing found"])
    assert command("index", "--forget", tmp_path / "photos")[0] == 0
    with Index(tmp_path / "index") as index:
        assert len(index) == 0 and index.folders() == []


def test_another_model_is_named(command: Run, tmp_path: Path) -> None:
    """Would catch sentences that are ranked by a model which did not make the index."""
    paths = tiny.save_images(tmp_path / "photos", 2)
    other = tiny.save_tiny(tmp_path / "other.safetensors")
    command("index", tmp_path / "photos", "--model", other)
    status, _, err = command("search", "dog", "--model", "default")
    assert status == 1 and f"made by {other}" in err[0] and "not by default" in err[0]
    assert command("search", "dog", "--min-score", 0)[0] == 0
    assert command("search", paths[0], "--model", "default")[0] == 0, "its vector is in the index"


def test_a_graph_is_built_and_its_recall_printed(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a graph that is built and never used, or used although images were added since."""
    pytest.importorskip("usearch")
    tiny.save_images(tmp_path / "photos", 30)
    _, lines, _ = command("index", tmp_path / "photos", "--nearest", "usearch")
    assert lines[1] == "usearch finds 100.0% of the 10 nearest images that exact search finds"
    with Index(tmp_path / "index") as index:
        assert isinstance(index.nearest, vectors.Approximate)
        exact = index.exact.search(index.exact.vectors[3], 5)[0]
        assert index.nearest.search(index.exact.vectors[3], 5)[0].tolist() == exact.tolist()
    tiny.make_image(99).save(tmp_path / "photos" / "new.png")
    with open_writer(tmp_path / "index", load()) as writer:  # and killed before the graph is extended
        assert "added" in [change.kind for change in writer.update(writer.folders())]
    with Index(tmp_path / "index") as index:
        last = index.exact.search(index.exact.vectors[30], 5)[0].tolist()
        assert last[0] == 30 and index.nearest.search(index.exact.vectors[30], 5)[0].tolist() == last
    command("index", "--nearest", "exact")
    with Index(tmp_path / "index") as index:
        assert isinstance(index.nearest, vectors.Exact) and len(index) == 31
    command("index", "--nearest", "usearch")
    with Index(tmp_path / "index") as index:
        assert isinstance(index.nearest, vectors.Approximate) and len(index.nearest.graph) == len(index) == 31
    (tmp_path / "index" / "graph-0.usearch").write_bytes(b"")
    with Index(tmp_path / "index") as index, pytest.raises(SearchIndexError, match="is damaged"):
        index.nearest  # noqa: B018


def test_neither_command_needs_torch(tmp_path: Path) -> None:
    """Would catch an import of torch, h5py or usearch on the way from photos to search."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('torch', 'h5py', 'yaml', 'filelock', 'jinja2', 'usearch', 'starlette'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "from captioner.cli.app import main\n"
        "main()\n"
    )
    for arguments in (["index", str(EXAMPLES)], ["search", "a dog"]):
        command = [sys.executable, "-c", code, *arguments, "--index", str(tmp_path / "index")]
        assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout
