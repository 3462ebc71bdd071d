"""Captions in the chunks of a PNG; compressed image data are copied unchanged."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from captioner.errors import DataError
from captioner.writing import exif, xmp

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP = b"XML:com.adobe.xmp\0"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")

Chunk = tuple[bytes, bytes]


def read_captions(data: bytes) -> list[str]:
    """The captions in XMP, EXIF and PNG's own text, as far as they exist; raises ``DataError`` for damaged metadata."""
    found = []
    for kind, body in _chunks(data):
        if _is_xmp(kind, body):
            found.append(xmp.read_description(_packet(body)))
        elif kind == b"eXIf":
            found.append(exif.read_description(body))
        elif kind in TEXTS and body.startswith(b"Description\0"):
            found.append(_text(kind, body))
    return [text for text in found if text]


def set_captions(data: bytes, text: str, writer: str) -> bytes:
    """``data`` with the caption in XMP, and in EXIF and PNG's own text if it has them."""
    chunks = list(_chunks(data))
    packet = next((_packet(body) for kind, body in chunks if _is_xmp(kind, body)), xmp.EMPTY)
    new_xmp = XMP + b"\0\0\0\0" + xmp.set_description(packet, text, writer)
    changed: list[Chunk] = []
    for kind, body in chunks:
        if kind in TEXTS and body.startswith((b"Raw profile type iptc\0", b"Raw profile type xmp\0")):
            raise DataError("it holds IPTC or XMP data in an old form that is not written here; use --xmp")
        if _is_xmp(kind, body):
            kind, body = b"iTXt", new_xmp
        elif kind == b"eXIf":
            body = exif.set_description(body, text)
        elif kind in TEXTS and body.startswith(b"Description\0"):
            kind, body = b"iTXt", b"Description\0\0\0\0\0" + text.encode()
        changed.append((kind, body))
    if not any(_is_xmp(kind, body) for kind, body in chunks):
        changed.insert(1, (b"iTXt", new_xmp))  # after the header
    end = len(SIGNATURE) + sum(12 + len(body) for _, body in chunks)
    return SIGNATURE + b"".join(map(_pack, changed)) + data[end:]


def _is_xmp(kind: bytes, body: bytes) -> bool:
    return kind in TEXTS and body.startswith(XMP)


def _packet(body: bytes) -> bytes:
    """The XMP packet of an iTXt chunk."""
    flag, method = body[len(XMP) : len(XMP) + 1], body[len(XMP) + 1 : len(XMP) + 2]
    parts = body[len(XMP) + 2 :].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) != 3 or flag not in (b"\0", b"\1") or method != b"\0":
        raise DataError("its XMP is damaged")
    return _inflate(parts[2]) if flag == b"\1" else parts[2]


def _text(kind: bytes, body: bytes) -> str:
    value = body.partition(b"\0")[2]
    if kind == b"tEXt":
        return value.decode("latin-1").strip()
    if kind == b"zTXt":
        return _inflate(value[1:]).decode("latin-1").strip()
    parts = value[2:].split(b"\0", 2)
    if len(parts) != 3:
        raise DataError("its text is damaged")
    return (_inflate(parts[2]) if value[:1] == b"\1" else parts[2]).decode("utf-8", "replace").strip()


def _inflate(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, xmp.LARGEST)
    except zlib.error:
        raise DataError("its compressed text is damaged") from None
    if not reader.eof:
        raise DataError(f"its compressed text is cut off or has more than {xmp.LARGEST} bytes")
    return text


def _chunks(data: bytes) -> Iterator[Chunk]:
    if not data.startswith(SIGNATURE):
        raise DataError("is not a PNG")
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(kind + body)):
            raise DataError("a chunk of it is damaged")
        yield kind, body
        if kind == b"IEND":
            return
        at += 12 + length
    raise DataError("is cut off")


def _pack(chunk: Chunk) -> bytes:
    kind, body = chunk
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
