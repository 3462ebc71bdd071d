"""Write captions of a stream of images to all destinations, with regard to existing captions."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from captioner.data.images import ImageFile
from captioner.errors import CaptionerError, ImageError
from captioner.writing.base import Destination, Written, check_inside
from captioner.writing.text import Composer, combine


@dataclass
class CaptionFiles:
    """The destinations of captions. ``pending`` and ``write`` report the error of a single image as ``ImageError``."""

    destinations: Sequence[Destination] = ()
    composer: Composer = field(default_factory=Composer)
    existing: str = "skip"
    """How existing captions are treated: one of ``EXISTING``."""
    dry_run: bool = False
    labels: Callable[[Path], Sequence[str]] = lambda path: ()
    """Gives the classes of an image, for templates that use them."""
    complete: bool = False
    """Whether images that have all their captions are captioned too, because a file of results needs them."""
    skipped: int = 0
    """Number of images that already had captions."""
    written: int = 0
    """Number of files that were written, or would be in a dry run."""
    _waiting: deque[ImageFile | None] = field(default_factory=deque)
    _owners: dict[Path, Path] = field(default_factory=dict)

    def pending(self, images: Iterable[ImageFile | ImageError]) -> Iterator[Path | ImageError]:
        """The images that lack a caption in some destination; ``next_image`` gives them again, in the same order.

        ``images`` come from ``checked``.
        """
        for image in images:
            if isinstance(image, ImageError):
                self._waiting.append(None)
                yield image
                continue
            try:
                wanted = self._wants(image)
            except ImageError as error:
                self._waiting.append(None)
                yield error
                continue
            if wanted:
                self._waiting.append(image)
                yield image.path
            else:
                self.skipped += 1

    def next_image(self) -> ImageFile | None:
        """The image of the next result of ``pending``; None for an error."""
        return self._waiting.popleft()

    def compose(self, caption: str, image: Path) -> str:
        """The text to write for a model's caption."""
        return self.composer.compose(caption, image, lambda: self.labels(image))

    def write(self, image: ImageFile, text: str) -> list[Written]:
        """Write ``text`` to all destinations of ``image``, except where an existing caption is kept."""
        return [done for place in self.destinations if (done := self._write(place, image, text))]

    def _write(self, place: Destination, image: ImageFile, text: str) -> Written | None:
        target = place.target(image)
        try:
            new = combine(place.read(target), text, self.existing)
            if new is None:
                return None
            if not self.dry_run:
                place.write(target, new)
        except ImageError:
            raise
        except CaptionerError as error:  # such as a write-protected file
            raise ImageError(target, str(error).removeprefix(f"{target}: ")) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ImageError(target, error.strerror or str(error)) from error
        self.written += 1
        return Written(target, new)

    def checked(self, images: Iterable[ImageFile | ImageError]) -> Iterator[ImageFile | ImageError]:
        """``images``, with an error in place of each one whose caption cannot be stored.

        To be called before the images are divided, because an image in another part may have the same file.
        """
        for image in images:
            try:
                if not isinstance(image, ImageError):
                    self._check(image)
                yield image
            except ImageError as error:
                yield error

    def _check(self, image: ImageFile) -> None:
        """Raise ``ImageError`` if the caption of an image cannot be stored."""
        for place in self.destinations:
            target = place.target(image)
            check_inside(image, target)
            owner = self._owners.setdefault(target, image.path)
            if owner != image.path:
                raise ImageError(image.path, f"its caption would go into {target}, like that of {owner}; rename one")

    def _wants(self, image: ImageFile) -> bool:
        """Whether an image needs a caption; raises ``ImageError`` if an existing one cannot be read."""
        if not self.destinations or self.existing != "skip" or self.complete:
            return True
        try:
            return not all([place.read(place.target(image)) for place in self.destinations])
        except OSError as error:
            raise ImageError(image.path, error.strerror or str(error)) from error
