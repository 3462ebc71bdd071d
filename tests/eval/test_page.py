"""eval.page: blocks as HTML and Markdown."""

from __future__ import annotations

from eval.page import Card, Cards, Code, Figure, Heading, Table, Text, to_html, to_markdown
from tests.eval.html_reader import Reader


def test_text_of_captions_is_text_in_the_page() -> None:
    """Would catch a caption that becomes markup, and a bar that breaks a Markdown table in two."""
    odd = '<b onclick="x">&| '
    blocks = [Heading(odd), Text(odd), Table([odd], [[odd]]), Code(odd), Cards([Card(b"", odd, [(odd, odd)], odd)])]
    page = Reader(to_html(odd, blocks))
    assert "b" in [tag for tag, attributes in page.seen if not attributes] and not any(
        "onclick" in attributes for _, attributes in page.seen
    )
    assert page.text.count(odd) == 10
    row = to_markdown("t", [Table(["a", "b"], [[odd, "x\nsmall"]])]).splitlines()[-1]
    assert row.count(" | ") == 1 and "x small" in row


def test_figures_are_drawn_in_the_page_and_linked_in_markdown() -> None:
    """Would catch an SVG that is escaped, and images and small print that are not in the page."""
    blocks = [
        Figure("name", "<svg><path /></svg>", "A & b"),
        Table(["system", "BLEU"], [["a", "1.0\n[0.9, 1.1]"]], strong=frozenset({0})),
        Cards([Card(b"jpeg", "title", [("model", "a dog"), ("", "a cat")], "1.jpg")]),
    ]
    html = to_html("t", blocks)
    read = Reader(html)
    assert "<svg><path /></svg>" in html and "A &amp; b" in html
    assert "<small>[0.9, 1.1]</small>" in html and '<tr class="strong">' in html
    assert [attributes["src"] for tag, attributes in read.seen if tag == "img"] == ["data:image/jpeg;base64,anBlZw=="]
    assert [tag for tag, _ in read.seen].count("dt") == 1 and [tag for tag, _ in read.seen].count("dd") == 2
    markdown = to_markdown("t", blocks)
    assert "![A & b](name.svg)" in markdown and "* 1.jpg, title. *model*: a dog; a cat" in markdown
