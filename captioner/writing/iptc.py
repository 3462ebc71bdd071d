"""IPTC-IIM 4.2 in Photoshop's image resources: an older field for captions, which some programs prefer to XMP."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from captioner.errors import DataError

SIGNATURE = b"Photoshop 3.0\0"
IIM, DIGEST = 0x0404, 0x0425
"""Ids of the resources with IPTC data and with their MD5, which tells programs that the data were changed."""
CAPTION, WRITER, CHARSET = (2, 120), (2, 122), (1, 90)
"""(Record, number) of the data sets Caption-Abstract, Writer-Editor and Coded Character Set."""
UTF8 = b"\x1b%G"
LONGEST = {CAPTION: 2000, WRITER: 32}
"""Largest data sets in bytes."""

DataSet = tuple[tuple[int, int], bytes]


def read_caption(resources: bytes) -> str:
    """The caption in image resources; empty if there is none. Raises ``DataError`` for damaged resources."""
    for number, _, data in _resources(resources):
        if number == IIM:
            sets = list(_data_sets(data))
            found = next((value for key, value in sets if key == CAPTION), b"")
            return found.decode("utf-8" if (CHARSET, UTF8) in sets else "latin-1", "replace").strip()
    return ""


def set_caption(resources: bytes, text: str, writer: str) -> bytes:
    """``resources`` with the caption ``text``, if they have IPTC data; everything else stays.

    Raises ``DataError`` if the text is too long, or if other texts are in an unknown encoding.
    """
    parts = []
    digest = None
    for number, head, data in _resources(resources):
        if number == IIM:
            data = _set(list(_data_sets(data)), text, writer)
            digest = hashlib.md5(data, usedforsecurity=False).digest()
        parts.append((number, head, data))
    if digest is None:
        return resources
    return b"".join(_pack(head, digest if number == DIGEST else data) for number, head, data in parts)


def _set(sets: list[DataSet], text: str, writer: str) -> bytes:
    caption = text.encode()
    if len(caption) > LONGEST[CAPTION]:
        raise DataError(f"the caption is longer than the {LONGEST[CAPTION]} bytes that IPTC allows")
    kept = [(key, value) for key, value in sets if key not in (CAPTION, WRITER)]
    if (CHARSET, UTF8) not in kept and not text.isascii():
        if any(key == CHARSET or (key[0] == 2 and key[1] != 0 and not value.isascii()) for key, value in kept):
            raise DataError("its IPTC texts are in an encoding that is not known; use --xmp")
        kept.insert(0, (CHARSET, UTF8))
    kept += [(CAPTION, caption), (WRITER, writer.encode("ascii", "replace")[: LONGEST[WRITER]])]
    kept.sort(key=lambda one: one[0][0])  # by record; the order within a record stays
    return b"".join(struct.pack(">BBBH", 0x1C, *key, len(value)) + value for key, value in kept)


def _data_sets(data: bytes) -> Iterator[DataSet]:
    at = 0
    while at + 5 <= len(data) and data[at] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", data, at + 1)
        at += 5
        if length & 0x8000 or at + length > len(data):
            raise DataError("its IPTC data are damaged or longer than is written here")
        yield (record, number), data[at : at + length]
        at += length
    if data[at:].strip(b"\0"):
        raise DataError("its IPTC data are damaged")


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Id, head (signature, id and name) and data of each resource."""
    at = 0
    while at < len(data):
        if data[at : at + 4] != b"8BIM" or at + 12 > len(data):
            if not data[at:].strip(b"\0"):
                return
            raise DataError("its Photoshop resources are damaged")
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = 1 + data[at + 6]
        begin = at + 6 + name + name % 2
        if begin + 4 > len(data):
            raise DataError("its Photoshop resources are damaged")
        (size,) = struct.unpack_from(">I", data, begin)
        if begin + 4 + size > len(data):
            raise DataError("its Photoshop resources are damaged")
        yield number, data[at:begin], data[begin + 4 : begin + 4 + size]
        at = begin + 4 + size + size % 2


def _pack(head: bytes, data: bytes) -> bytes:
    return head + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
