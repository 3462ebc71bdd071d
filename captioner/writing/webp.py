"""Captions in the chunks of a WebP (RFC 9649); compressed image data are copied unchanged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from captioner.errors import DataError
from captioner.writing import exif, xmp

XMP, EXIF, EXTENDED = b"XMP ", b"EXIF", b"VP8X"
HAS_XMP, HAS_ALPHA = 0x04, 0x10
"""Flag bits of the header ``VP8X``."""

Chunk = tuple[bytes, bytes]


def read_captions(data: bytes) -> list[str]:
    """The captions in XMP and EXIF, as far as they exist; raises ``DataError`` for damaged metadata."""
    chunks = list(_chunks(data))
    found = [xmp.read_description(body) for kind, body in chunks if kind == XMP]
    found += [exif.read_description(_tiff(body)) for kind, body in chunks if kind == EXIF]
    return [text for text in found if text]


def set_captions(data: bytes, text: str, writer: str) -> bytes:
    """``data`` with the caption in XMP, and in EXIF if it has it."""
    chunks = list(_chunks(data))
    packet = next((body for kind, body in chunks if kind == XMP), xmp.EMPTY)
    changed = [(kind, body) for kind, body in chunks if kind != XMP]
    if not changed or changed[0][0] != EXTENDED:
        changed.insert(0, (EXTENDED, _header(changed)))
    kind, header = changed[0]
    changed[0] = kind, bytes([header[0] | HAS_XMP]) + header[1:]
    for place, (kind, body) in enumerate(changed):
        if kind == EXIF:
            start = body[: len(body) - len(_tiff(body))]
            changed[place] = kind, start + exif.set_description(_tiff(body), text)
    changed.append((XMP, xmp.set_description(packet, text, writer)))
    body = b"WEBP" + b"".join(_pack(*one) for one in changed)
    (size,) = struct.unpack_from("<I", data, 4)
    return b"RIFF" + struct.pack("<I", len(body)) + body + data[8 + size + size % 2 :]


def _tiff(body: bytes) -> bytes:
    return body.removeprefix(b"Exif\0\0")  # some programs write JPEG's prefix


def _header(chunks: list[Chunk]) -> bytes:
    """An extended header for an image without one: its size, and whether it is transparent."""
    kind, body = chunks[0] if chunks else (b"", b"")
    if kind == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
        alpha = False
    elif kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        (bits,) = struct.unpack_from("<I", body, 1)
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    else:
        raise DataError("its header is damaged")
    sizes = b"".join(struct.pack("<I", side - 1)[:3] for side in (width, height))
    return bytes([HAS_ALPHA * alpha, 0, 0, 0]) + sizes


def _chunks(data: bytes) -> Iterator[Chunk]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise DataError("is not a WebP")
    (size,) = struct.unpack_from("<I", data, 4)
    end = 8 + size
    if end > len(data):
        raise DataError("is cut off")
    at = 12
    while at + 8 <= end:
        (length,) = struct.unpack_from("<I", data, at + 4)
        if at + 8 + length > end:
            raise DataError("its chunks are damaged")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _pack(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
