"""Make the written text from a model's caption: replacements, a template, prefix, suffix and a trigger word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captioner.errors import UsageError, shorten

FIELDS = ("caption", "labels", "name", "folder")
"""What a template may name: the caption, the image's likeliest classes, its file name without suffix, its folder."""
EXISTING = ("skip", "overwrite", "append", "prepend")
SEPARATOR = ", "
"""Text between an existing caption and an added one, and after a trigger word."""
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Composer:
    """Makes the written text. Raises ``UsageError`` for an invalid template or pattern."""

    replace: Sequence[tuple[str, str]] = ()
    """Regular expressions and what they become in the model's caption, one after the other."""
    template: str = "{caption}"
    """Text with the fields of ``FIELDS`` in braces; ``{{`` is a brace."""
    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    """A word that the text begins with, unless it holds it already."""
    _patterns: list[tuple[re.Pattern[str], str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for text in (self.template, self.prefix, self.suffix, self.trigger):
            if _clean(text) != text:
                raise UsageError(f"{shorten(text)}: holds a line break or another control character; leave it out")
        for pattern, become in self.replace:
            try:
                found = re.compile(pattern)
                re.compile(f"{pattern}|").sub(become, "")  # matches, so that what it becomes is looked at
            except (re.error, IndexError) as error:
                raise UsageError(f"--replace {shorten(pattern)} {shorten(become)}: {error}") from None
            self._patterns.append((found, become))
        for match in _TOKEN.finditer(self.template):
            if match[0] not in ("{{", "}}") and match[1] not in FIELDS:
                known = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise UsageError(f"--template: {match[0]} is not one of {known}; write {{{{ and }}}} for braces")

    @property
    def needs_labels(self) -> bool:
        """Whether the template names the image's classes."""
        return any(match[1] == "labels" for match in _TOKEN.finditer(self.template))

    def compose(self, caption: str, image: Path, labels: Callable[[], Sequence[str]] = lambda: ()) -> str:
        """The text for ``image`` on one line; ``labels`` gives its classes, where they are needed."""
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
    """What replaces the caption ``old``, by one of ``EXISTING``; None where it stays as it is.

    A text that is added twice is there once, so that a command can be run again.
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
    """``text`` without control characters and halves of characters, which neither XML nor UTF-8 can hold."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
