"""``captioner alt`` as people call it."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from captioner import load
from captioner.writing.alt import sentence
from captioner.writing.text import Composer
from tests import tiny
from tests.conftest import Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def run(tmp_path: Path, model: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``captioner alt`` by a tiny model, in a folder with a site of two pages and three images."""
    monkeypatch.chdir(tmp_path)
    tiny.save_images(tmp_path / "site" / "images", 3)
    Path("site/posts").mkdir()
    Path("site/index.html").write_bytes(b"<p>\r\n<img src='images/00.png'>\r\n<img src='/images/01.png' alt=''>")
    Path("site/posts/one.md").write_text("![](../images/00.png)\n![](../images/02.png)\n![](https://x.org/a.jpg)\n")
    Path("site/other.txt").write_text("![](images/00.png)")
    return partial(cli, "alt", f"--model={model}")


def test_a_site(run: Run, model: Path) -> None:
    """The diff is what --write does. Would catch one that patch refuses, and changes where nothing is missing."""
    before = {path: path.read_bytes() for path in Path("site").rglob("*.*")}
    status, diff, err = run("site")
    assert (status, err) == (0, ["3 texts missing; --write adds them"])
    assert {path: path.read_bytes() for path in Path("site").rglob("*.*")} == before
    texts = [sentence(load(model).caption(f"site/images/0{number}.png")) for number in (0, 2)]
    assert run("site", "--write")[::2] == (0, ["3 texts written"])
    assert Path("site/index.html").read_bytes() == before[Path("site/index.html")].replace(
        b"<img src='images/00", f'<img alt="{texts[0]}" src=\'images/00'.encode()
    )
    assert (
        Path("site/posts/one.md").read_text().startswith(f"![{texts[0]}](../images/00.png)\n![{texts[1]}](../images/02")
    )
    written = {path: path.read_bytes() for path in Path("site").rglob("*.*")}
    for path, data in before.items():
        path.write_bytes(data)
    subprocess.run(["patch", "-p1", "--binary", "-s"], input="".join(f"{line}\n" for line in diff).encode(), check=True)
    assert {path: path.read_bytes() for path in Path("site").rglob("*.*")} == written
    assert run("site") == (0, [], ["0 texts missing; --write adds them"])


def test_what_is_wrong_with_one_image(run: Run) -> None:
    """Would catch a site whose other images wait for one that is gone, and a run that looks as if all were well."""
    Path("site/bad.png").write_text("no image")
    Path("site/posts/two.md").write_text("\n![](gone.png)\n![](../bad.png)\n![](../images/01.png)\n![](../../x.png)\n")
    Path("x.png").write_bytes(Path("site/images/00.png").read_bytes())
    status, _, err = run("site", "--write", "missing.html")
    assert status == 1 and err[-1] == "4 texts written"
    assert [line for line in err if "two.md, line 2: gone.png: no such file" in line]
    assert [line for line in err if "bad.png" in line] and [line for line in err if "x.png is outside of site" in line]
    assert [line for line in err if line.startswith("error: missing.html")]
    assert "![](gone.png)\n![](../bad.png)\n![" in Path("site/posts/two.md").read_text()


def test_a_page_that_changes_meanwhile(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a page that is written as it was before hours of captioning, and one that is shown twice."""
    page, compose = Path("site/index.html"), Composer.compose

    def edit(*arguments: Any) -> str:
        page.write_text("<p>new text<img src='images/00.png'>")
        return compose(*arguments)

    monkeypatch.setattr(Composer, "compose", edit)
    status, _, err = run("site", "site/posts/one.md", "--write")
    assert status == 1 and page.read_text() == "<p>new text<img src='images/00.png'>"
    assert err == ["error: site/index.html: was changed in the meantime; run the command again", "2 texts written"]


def test_one_page(run: Run) -> None:
    """The folder of a single page is its site, unless --root says otherwise."""
    status, diff, err = run("site/posts/one.md")
    assert (status, diff) == (1, []) and "name the site's folder with --root" in err[0]
    assert run("site/posts/one.md", "--root", "site")[0] == 0
    assert run("site/posts/one.md", "--root", "nowhere")[0] == 2
    Path("link.md").symlink_to("site/posts/one.md")
    assert run("link.md", "--root", ".", "--write")[0] == 1
