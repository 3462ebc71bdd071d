"""EXIF's ImageDescription (tag 0x010E of the first directory of a TIFF block), changed without moving other data.

Makers' notes refer to positions of bytes in ways that only their makers know, so no data may move: a new text
overwrites the old one or is appended at the end.
"""

from __future__ import annotations

import struct

from captioner.errors import DataError

DESCRIPTION = 0x010E
ASCII = 2
LARGEST = 65527
"""Most bytes of an EXIF block in a JPEG."""
JUNK = frozenset(
    ("OLYMPUS DIGITAL CAMERA", "SONY DSC", "DIGITAL CAMERA", "MINOLTA DIGITAL CAMERA", "KONICA MINOLTA DIGITAL CAMERA")
)
"""Camera names that cameras write as a description."""


def read_description(block: bytes) -> str:
    """The description in a TIFF block; empty if there is none or a camera wrote it."""
    entry = _entry(block)
    if entry is None:
        return ""
    _, begin, length = entry
    text = block[begin : begin + length].split(b"\0")[0].decode("utf-8", "replace").strip()
    return "" if text.upper() in JUNK else text


def set_description(block: bytes, text: str) -> bytes:
    """``block`` with the description ``text``, if it has a description; raises ``DataError`` for a damaged block."""
    entry = _entry(block)
    if entry is None:
        return block
    at, begin, length = entry
    value = text.encode() + b"\0"
    order = _order(block)
    if len(value) <= max(length, 4):
        place = begin if length > 4 else at + 8
        changed = bytearray(block)
        changed[place : place + max(length, 4)] = value.ljust(max(length, 4), b"\0")
        struct.pack_into(f"{order}I", changed, at + 4, max(length, 4))
        return bytes(changed)
    changed = bytearray(block + b"\0" * (len(block) % 2))
    struct.pack_into(f"{order}II", changed, at + 4, len(value), len(changed))
    return bytes(changed) + value


def _entry(block: bytes) -> tuple[int, int, int] | None:
    """Position of the directory's entry, and position and length of its text; None if there is none."""
    order = _order(block)
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, directory)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, length, begin = struct.unpack_from(f"{order}HHII", block, at)
            if tag == DESCRIPTION:
                begin = begin if length > 4 else at + 8
                if kind != ASCII or begin + length > len(block):
                    raise DataError("its EXIF description is damaged")
                return at, begin, length
    except struct.error:
        raise DataError("its EXIF data are damaged") from None
    return None


def _order(block: bytes) -> str:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        raise DataError("its EXIF data are damaged")
    return order
