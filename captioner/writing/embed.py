"""Captions inside JPEG, PNG and WebP files: only metadata change, never the decoded image."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from PIL import Image, ImageSequence

from captioner.data.images import MAX_BYTES, ImageFile, no_warnings
from captioner.errors import DataError, ImageError
from captioner.files import atomic_path, check_writable
from captioner.writing import jpeg, png, webp
from captioner.writing.base import check_target

FORMATS: dict[str, tuple[bytes, ModuleType]] = {
    "JPEG": (b"\xff\xd8\xff", jpeg),
    "PNG": (png.SIGNATURE, png),
    "WEBP": (b"RIFF", webp),
}
"""First bytes of the file and module, by Pillow's name of the format."""
_NOT_XML = re.compile("[^\\t\\n\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""A character that XML 1.0 cannot hold (section 2.2), once the ends of lines are its own."""


@dataclass(frozen=True)
class Embedded:
    """Writes into the images themselves: into XMP, and into IPTC and EXIF if an image has those."""

    writer: str
    """The writer to record: this program and the model."""

    def target(self, image: ImageFile) -> Path:
        return image.path

    def read(self, path: Path) -> str:
        check_target(path)
        try:
            data, _, module = _open(path)
            found = module.read_captions(data)
        except (DataError, struct.error) as error:
            raise _failure(path, error) from error
        return _for_xml(found[0]) if found else ""

    def write(self, path: Path, text: str) -> None:
        """As ``Destination.write``; the new file is decoded and compared with the old one before it replaces it."""
        check_target(path)
        check_writable(path)
        try:
            data, kind, module = _open(path)
            changed = module.set_captions(data, text, self.writer)
            if set(module.read_captions(changed)) != {text}:
                raise DataError("its captions could not be made to agree; use --xmp")
            if _pixels(changed, kind) != _pixels(data, kind):
                raise DataError("its pixels would change; use --xmp")
        except (DataError, struct.error) as error:
            raise _failure(path, error) from error
        with atomic_path(path) as temporary:
            temporary.write_bytes(changed)


def _for_xml(text: str) -> str:
    """A caption of IPTC, EXIF or PNG, which may hold any character, as XMP can hold it next to a new one."""
    return _NOT_XML.sub(" ", re.sub("\r\n?", "\n", text)).strip()


def _failure(path: Path, error: Exception) -> ImageError:
    return ImageError(path, "its metadata are damaged" if isinstance(error, struct.error) else str(error))


def _open(path: Path) -> tuple[bytes, str, ModuleType]:
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"has more than {MAX_BYTES} bytes")
    for kind, (start, module) in FORMATS.items():
        if data.startswith(start):
            return data, kind, module
    raise DataError("captions go into JPEG, PNG and WebP files only; use --xmp")


def _pixels(data: bytes, kind: str) -> str:
    """A digest of the decoded image: size, mode, palette and pixels of each frame, and the orientation."""
    digest = hashlib.sha256()
    try:
        with no_warnings(), Image.open(io.BytesIO(data), formats=[kind]) as image:
            digest.update(repr(image.getexif().get(0x0112)).encode())
            for frame in ImageSequence.Iterator(image):
                digest.update(
                    repr((frame.size, frame.mode, frame.info.get("icc_profile"), frame.getpalette())).encode()
                )
                digest.update(frame.tobytes())
    except Exception as error:  # decoders may raise any error for damaged files
        raise DataError(f"cannot be decoded: {error}") from error
    return digest.hexdigest()
