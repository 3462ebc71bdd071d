"""Missing alternative texts of HTML and Markdown: which they are, and pages in which only those change."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from captioner.errors import DataError
from captioner.writing.alt import LARGEST, find_image, read_page, sentence

HTML = """\ufeff<!doctype html>\r
<IMG SRC='a.jpg' title="x > y"><img src="b.jpg" alt=""><img src=c.jpg alt="there">
<!-- <img src="comment.jpg"> --><script>"<img src='script.jpg'>"</script>
<p>ü <img
  src="d &amp; e.jpg"/> <img src="line.gif" role="presentation"><img data-src="lazy.jpg"></p>
<img srcset="s.webp 2x"> <img src="https://example.org/x.jpg">"""
MARKDOWN = """# Title

![](a.jpg) ![there](b.jpg) ![ ](<c d.jpg> "title") [![](e.jpg)](link.html) text `![](code.jpg)` ``![](x.jpg) ` ``
```md
![](fenced.jpg)
```
See <!-- ![](comment.jpg) --> ![][Ref  One] <img src="f.jpg" width=3>
![](g(1).jpg) ![](<h (2).jpg>) ![](i.jpg 'a (title)') ![](j\\_1.jpg) \\![](escaped.jpg) ![][] ![]

    ![](indented.jpg)

| ![](k.jpg) | `![](cell.jpg)` |
|---|---|
> * ![](l.jpg
>   "two lines") <b>![](m.jpg)</b> `<img src="n.jpg">`

<div><img src="o.jpg"
alt=""> <img src="p.jpg">
<!-- <img src="q.jpg"> --></div>

[ref one]: h.jpg
~~~
![](open.jpg)
"""

LATER = ("g(1)", "<h", "i.jpg", "j\\_1", "k.jpg", "(l.jpg", "m.jpg", "p.jpg")


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_html(tmp_path: Path) -> None:
    """Would catch scripts and comments that are changed, decoration that is described, and line ends that are lost."""
    page = read_page(write(tmp_path / "page.html", HTML))
    assert [(gap.source, gap.line) for gap in page.gaps] == [
        ("a.jpg", 2),
        ("d & e.jpg", 4),
        ("https://example.org/x.jpg", 6),
    ]
    new = page.filled({"a.jpg": 'A "dog" & <cat>.', "d & e.jpg": "E"})
    assert new == HTML.replace("<IMG ", '<IMG alt="A &quot;dog&quot; &amp; &lt;cat&gt;." ').replace(
        "<img\n  src", '<img alt="E"\n  src'
    )
    found = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.setdefault(dict(attrs).get("src"), dict(attrs).get("alt"))

    Reader().feed(new)
    assert found["a.jpg"] == 'A "dog" & <cat>.' and found["d & e.jpg"] == "E"
    assert page.filled({}) == HTML


def test_markdown(tmp_path: Path) -> None:
    """Would catch code that is changed, and links around images that break."""
    page = read_page(write(tmp_path / "page.md", MARKDOWN))
    assert [gap.source for gap in page.gaps] == (
        "a.jpg,c d.jpg,e.jpg,h.jpg,f.jpg,g(1).jpg,h (2).jpg,i.jpg,j_1.jpg,k.jpg,l.jpg,m.jpg,p.jpg".split(",")
    )
    assert [gap.line for gap in page.gaps[5:]] == [MARKDOWN[: MARKDOWN.index(name)].count("\n") + 1 for name in LATER]
    new = page.filled({"a.jpg": "An [odd] one.", "e.jpg": "E", "h.jpg": "H", "c d.jpg": "C"})
    expected = (
        MARKDOWN.replace("![](a", r"![An \[odd\] one.](a").replace("[![](e", "[![E](e").replace("![][R", "![H][R")
    )
    assert new == expected.replace("![ ](", "![C](")
    assert page.filled({"g(1).jpg": "G", "p.jpg": "P"}) == MARKDOWN.replace("![](g", "![G](g").replace(
        '<img src="p', '<img alt="P" src="p'
    )


def test_images_of_pages(tmp_path: Path) -> None:
    """Would catch a page that makes the program read files outside of the site."""
    site = tmp_path / "site"
    (site / "a").mkdir(parents=True)
    for path in (site / "top.jpg", site / "a" / "b c.jpg", tmp_path / "secret.jpg"):
        path.write_bytes(b"x")
    (site / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    page = site / "a" / "page.html"
    assert find_image(page, "b%20c.jpg?v=1#x", site) == site / "a" / "b c.jpg"
    assert find_image(page, "/top.jpg", site) == site / "top.jpg"
    assert find_image(page, "../top.jpg", site) == site / "a" / ".." / "top.jpg"
    for elsewhere in ("https://x.org/a.jpg", "//x.org/a.jpg", "data:image/png;base64,AA", "file:///etc/passwd", "#x"):
        assert find_image(page, elsewhere, site) is None
    for outside in ("../../secret.jpg", "/../secret.jpg", "../link.jpg", "%2e%2e/%2e%2e/secret.jpg"):
        with pytest.raises(DataError, match="is outside of"):
            find_image(page, outside, site)
    for missing in ("none.jpg", "a%00b.jpg", "http://[x", "."):
        with pytest.raises(DataError, match="no such file|not an address"):
            find_image(page, missing, site)


def test_pages_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.html").write_bytes("ü".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_page(tmp_path / "latin.html")
    (tmp_path / "large.md").write_bytes(b" " * (LARGEST + 1))
    with pytest.raises(DataError, match="more than"):
        read_page(tmp_path / "large.md")


def test_sentences() -> None:
    assert [sentence(text) for text in ("a dog", "A dog.", "éa!", "")] == ["A dog.", "A dog.", "Éa!", ""]
