"""The text that is written: replacements, templates, trigger words, and what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import UsageError
from captioner.writing.text import EXISTING, Composer, combine

IMAGE = Path("/photos/summer/beach.day.jpg")


def test_the_order_of_changes() -> None:
    """Would catch replacements that touch the template, and a trigger behind the prefix."""
    composer = Composer(
        [(r"\bman\b", "person"), (r"(red) (\w+)", r"\2 in \1")], "{folder}/{name}: {caption}", "<", ">", "zwx"
    )
    assert composer.compose("a man with a red ball", IMAGE) == "zwx, <summer/beach.day: a person with a ball in red>"
    assert Composer(trigger="zwx").compose("the zwx dog", IMAGE) == "the zwx dog"
    assert Composer(trigger="zw").compose("the zwx dog", IMAGE) == "zw, the zwx dog"
    assert Composer(template="{{{caption}}}").compose("a", IMAGE) == "{a}"


def test_captions_cannot_be_templates() -> None:
    """Would catch a caption whose braces are filled in, or str.format, which opens the program's insides."""
    assert (
        Composer(template="{caption}").compose("{folder} {caption.__class__}", IMAGE) == "{folder} {caption.__class__}"
    )


def test_labels_are_asked_for_only_where_they_are_named() -> None:
    asked: list[int] = []

    def labels() -> list[str]:
        asked.append(1)
        return ["tabby", "cat"]

    assert not Composer().needs_labels
    assert Composer().compose("a", IMAGE, labels) == "a" and not asked
    assert Composer(template="{caption} [{labels}]").compose("a", IMAGE, labels) == "a [tabby, cat]"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"template": "{captions}"}, "not one of {caption}, {labels}"),
        ({"template": "{caption"}, "write {{ and }} for braces"),
        ({"template": "{caption.__class__}"}, "not one of"),
        ({"replace": [("(", "x")]}, r"--replace '\(' 'x'"),
        ({"replace": [("a", r"\2")]}, "--replace"),
        ({"replace": [("a", r"\g<name>")]}, "--replace"),
        ({"prefix": "a\nb"}, "line break"),
    ],
)
def test_what_is_no_template_or_pattern(settings: dict[str, object], reason: str) -> None:
    """Would catch an error at the first image, after minutes of loading, instead of at once."""
    with pytest.raises(UsageError, match=reason.replace("{", r"\{")):
        Composer(**settings)  # type: ignore[arg-type]


def test_control_characters_are_left_out() -> None:
    assert Composer().compose("a\x00b\x1b[2J\u2028c", IMAGE) == "a b [2J c"
    assert Composer(template="{name}").compose("", Path("/x/\udcff.jpg")) == "\ufffd"


@pytest.mark.parametrize("existing", EXISTING)
def test_captions_that_are_there(existing: str) -> None:
    """Would catch a text that is added again by each run, and a person's caption that is lost."""
    assert combine("", "new", existing) == combine(" \n", "new", existing) == "new"
    once = combine("old\n", "new", existing)
    assert once == {"skip": None, "overwrite": "new", "append": "old, new", "prepend": "new, old"}[existing]
    assert combine(once or "old", "new", existing) is None
