"""Captions for the images of a shard, by any model of ``captioner.load``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from captioner.errors import ImageError
from captioner.predictors import load
from captioner.scale.outputs import Fields
from captioner.scale.rows import Row, Spool


class Captions:
    """Captions the images of rows. The captions equal those of ``captioner caption`` for the same files."""

    columns = {"caption": "string", "log_prob": "float64"}  # noqa: RUF012

    def __init__(self, model: str, device: str, prompt: str | None, options: Mapping[str, Any]) -> None:
        self._captioner = load(model, device, prompt=prompt)
        self._options, self._prompt = options, prompt

    def settings(self) -> dict[str, Any]:
        """The model's digest, the decoding options and the prompt. Not the batch size: it changes no caption."""
        options = {name: value for name, value in self._options.items() if name != "batch_size"}
        return {"model": self._captioner.digest, "options": options, "prompt": self._prompt}

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        """Yield each row with its captions, best first, and their log probabilities (nats), or with an error."""
        waiting: deque[tuple[Row, Path | ImageError]] = deque()
        with Spool() as spool:

            def images() -> Iterator[Path | ImageError]:
                for row in rows:
                    image = spool.place(row)
                    waiting.append((Row(row.key), image))  # without its bytes
                    yield image

            with closing(self._captioner.results(images(), **self._options)) as results:
                for result in results:
                    row, image = waiting.popleft()
                    spool.remove(image)
                    found = [{"caption": one.text, "log_prob": one.log_prob} for one in result.captions]
                    yield row, found, result.error.reason if result.error else ""
