"""Captions in the segments of a JPEG; compressed data are copied unchanged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from captioner.errors import DataError
from captioner.writing import exif, iptc, xmp

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXIF = b"Exif\0\0"
LARGEST = 65533
"""Most bytes of a segment's content."""
APP0, APP1, APP2, APP13 = 0xE0, 0xE1, 0xE2, 0xED

Segment = tuple[int, bytes]
"""A marker and its content."""


def read_captions(data: bytes) -> list[str]:
    """The captions in XMP, IPTC and EXIF, as far as they exist; raises ``DataError`` for damaged metadata."""
    segments, _ = _split(data)
    found = [xmp.read_description(body[len(XMP) :]) for marker, body in segments if _is(marker, body, APP1, XMP)]
    found.append(iptc.read_caption(_resources(segments)))
    found += [exif.read_description(body[len(EXIF) :]) for marker, body in segments if _is(marker, body, APP1, EXIF)]
    return [text for text in found if text]


def set_captions(data: bytes, text: str, writer: str) -> bytes:
    """``data`` with the caption in XMP, and in IPTC and EXIF if it has them; raises ``DataError`` if that fails."""
    segments, rest = _split(data)
    resources = _resources(segments)
    packet = next((body[len(XMP) :] for marker, body in segments if _is(marker, body, APP1, XMP)), xmp.EMPTY)
    new_xmp = XMP + xmp.set_description(packet, text, writer)
    new_resources = iptc.SIGNATURE + iptc.set_caption(resources, text, writer)
    changed: list[Segment] = []
    has_xmp = has_resources = False
    for marker, body in segments:
        if _is(marker, body, APP1, EXIF):
            body = EXIF + exif.set_description(body[len(EXIF) :], text)
        elif _is(marker, body, APP1, XMP):
            body, has_xmp = new_xmp, True
        elif _is(marker, body, APP13, iptc.SIGNATURE):
            if has_resources:
                continue  # all resources were joined
            body, has_resources = new_resources, True
        changed.append((marker, body))
    if not has_xmp:
        first = next((n for n, (marker, body) in enumerate(changed) if not _goes_first(marker, body)), len(changed))
        changed.insert(first, (APP1, new_xmp))
    return _keep_others(segments, changed, len(rest)) + rest


def _keep_others(segments: list[Segment], changed: list[Segment], rest: int) -> bytes:
    """The new head of the file, with MPF (CIPA DC-007) corrected: it lists further images, after the first one, by
    their distance from its own segment, and the size of the first image, which has changed."""
    head = b"\xff\xd8" + b"".join(map(_pack, changed))
    if not any(_is(marker, body, APP2, b"MPF\0") for marker, body in segments):
        return head
    before, after = ([_is(*one, APP2, b"MPF\0") for one in some].index(True) for some in (segments, changed))
    if segments[before:] != changed[after:]:
        raise DataError("it holds several images (MPF) before its other data; use --xmp")
    old = 2 + sum(len(_pack(one)) for one in segments)
    changed[after] = (APP2, _first_size(changed[after][1], len(head) - old))
    return b"\xff\xd8" + b"".join(map(_pack, changed))


def _first_size(body: bytes, more: int) -> bytes:
    """An MPF segment with the size of its first image increased by ``more`` bytes."""
    block = bytearray(body)
    order = "<" if block[4:6] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 8)
        (count,) = struct.unpack_from(f"{order}H", block, 4 + directory)
        for at in range(4 + directory + 2, 4 + directory + 2 + 12 * count, 12):
            tag, _, length, begin = struct.unpack_from(f"{order}HHII", block, at)
            if tag == 0xB002 and length >= 16:
                (size,) = struct.unpack_from(f"{order}I", block, 4 + begin + 4)
                struct.pack_into(f"{order}I", block, 4 + begin + 4, size + more)
                return bytes(block)
    except struct.error:
        pass
    raise DataError("its list of images (MPF) is damaged; use --xmp")


def _goes_first(marker: int, body: bytes) -> bool:
    return marker == APP0 or _is(marker, body, APP1, EXIF)


def _is(marker: int, body: bytes, wanted: int, start: bytes) -> bool:
    return marker == wanted and body.startswith(start)


def _resources(segments: list[Segment]) -> bytes:
    own = (body[len(iptc.SIGNATURE) :] for marker, body in segments if _is(marker, body, APP13, iptc.SIGNATURE))
    return b"".join(own)


def _split(data: bytes) -> tuple[list[Segment], bytes]:
    """The segments before the first one of the compressed image, and all bytes from there on."""
    return (found := list(_segments(data))), data[2 + sum(4 + len(body) for _, body in found) :]


def _segments(data: bytes) -> Iterator[Segment]:
    if data[:2] != b"\xff\xd8":
        raise DataError("is not a JPEG")
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if not (APP0 <= marker <= 0xEF or marker == 0xFE):
            return
        if length < 2 or at + 2 + length > len(data):
            raise DataError("its segments are damaged")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _pack(segment: Segment) -> bytes:
    marker, body = segment
    if len(body) > LARGEST:
        raise DataError("its metadata leave no room for the caption; use --xmp")
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
