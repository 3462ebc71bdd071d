"""Make the text to write from a model's caption: replacements, a template, prefix, suffix and a trigger word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captioner.errors import UsageError, shorten

FIELDS = ("caption", "labels", "name", "folder")
"""Fields of a template: the caption, the image's most probable classes, its file name without suffix, its folder."""
EXISTING = ("skip", "overwrite", "append", "prepend")
SEPARATOR = ", "
"""Separators: between an existing caption and an added one, and after a trigger word."""
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Composer:
    """Makes the text to write. Raises ``UsageError`` for an invalid template or pattern."""

    replace: Sequence[tuple[str, str]] = ()
    """(Regular expression, replacement) pairs that are applied to the model's caption in turn."""
    template: str = "{caption}"
    """Text with fields of ``FIELDS`` in braces; ``{{`` stands for a brace."""
    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    """A word that the text starts with, unless the text already contains it."""
    _patterns: list[tuple[re.Pattern[str], str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for text in (self.template, self.prefix, self.suffix, self.trigger):
            if _clean(text) != text:
                raise UsageError(f"{shorten(text)}: holds a line break or another control character; leave it out")
        for pattern, become in self.replace:
            try:
                found = re.compile(pattern)
                re.compile(f"{pattern}|").sub(become, "")  # always matches, so that the replacement is checked
            except (re.error, IndexError) as error:
                raise UsageError(f"--replace {shorten(pattern)} {shorten(become)}: {error}") from None
            self._patterns.append((found, become))
        for match in _TOKEN.finditer(self.template):
            if match[0] not in ("{{", "}}") and match[1] not in FIELDS:
                known = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise UsageError(f"--template: {match[0]} is not one of {known}; write {{{{ and }}}} for braces")

    @property
    def needs_labels(self) -> bool:
        """Whether the template uses the image's classes."""
        return any(match[1] == "labels" for match in _TOKEN.finditer(self.template))

    def compose(self, caption: str, image: Path, labels: Callable[[], Sequence[str]] = lambda: ()) -> str:
        """The text for ``image``, on one line; ``labels`` gives its classes and is called only if they are needed."""
        for pattern, become in self._patterns:
            caption = pattern.sub(become, caption)
        values = {"caption": caption, "name": image.stem, "folder": image.absolute().parent.name}
        if self.needs_labels:
            values["labels"] = SEPARATOR.join(labels())
        text = _TOKEN.sub(lambda match: values[match[1]] if match[1] else match[0][0], self.template)
        text = f"{self.prefix}{text}{self.suffix}"
        if self.trigger and not re.search(rf"(?<!\w){re.escape(self.trigger)}(?!\w)", text):
            text = f"{self.trigger}{SEPARATOR}{text}" if text else self.trigger
        return _clean(text).strip()


def combine(old: str, new: str, existing: str) -> str | None:
    """The new text in place of the caption ``old``, by one of ``EXISTING``; None if the old one stays.

    A text is never added twice, so that a command can be repeated.
    """
    kept = old.strip()
    if not kept or existing == "overwrite":
        return new if kept != new else None
    if existing == "append":
        return None if kept.endswith(new) else f"{kept}{SEPARATOR}{new}"
    if existing == "prepend":
        return None if kept.startswith(new) else f"{new}{SEPARATOR}{kept}"
    return None


def _clean(text: str) -> str:
    """``text`` without control characters and lone surrogates, which neither XML nor UTF-8 can hold."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
