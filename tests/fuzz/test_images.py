"""Image files."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from captioner.data.images import MIN_SHORT_SIDE, SUFFIXES, open_image
from tests.fuzz import EXTREMES, NASTY, corrupted, fuzz
from tests.fuzz.worker import isolated

PNG = b"\x89PNG\r\n\x1a\n"
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 24, 3), np.uint8))
GRAY = np.arange(18 * 24).reshape(18, 24)
MODES = {
    "1": RGB.convert("1"), "L": RGB.convert("L"), "P": RGB.quantize(16), "RGB": RGB, "LA": RGB.convert("LA"),
    "RGBA": RGB.convert("RGBA"), "CMYK": RGB.convert("CMYK"), 
    "I;16": Image.fromarray((GRAY * 150).astype(np.uint16)), "I": Image.fromarray((GRAY * 4_000_000).astype(np.int32)),
    "F": Image.fromarray((GRAY / 7).astype(np.float32)),
}  # fmt: skip
EXIF = Image.Exif()
EXIF.update({274: 6, 271: "maker", 306: "2024:01:02 03:04:05"})
ALL = {"save_all": True, "append_images": [ImageOps.flip(RGB)]}
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [("RGB", {"exif": EXIF}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {"icc_profile": b"x" * 50})],
    "PNG": [("RGB", {"exif": EXIF}), ("P", {"transparency": 3}), ("I;16", {}), ("LA", {}), ("1", {}), ("RGB", ALL)],
    "WEBP": [("RGB", {"exif": EXIF}), ("RGBA", {"lossless": True}), ("RGB", ALL)],
    "GIF": [("P", {"transparency": 1, "comment": b"c"}), ("L", {}), ("RGB", ALL)],
    "BMP": [("RGB", {}), ("P", {}), ("1", {}), ("RGBA", {})],
    "TIFF": [
        *((mode, {}) for mode in ("L", "RGB", "RGBA", "P", "CMYK", "I;16", "I", "F")),
        *(("RGB", {"compression": name, "exif": EXIF}) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")),
        *((mode, {"compression": "packbits"}) for mode in ("LA", "I;16")), ("1", {"compression": "group4"}),
        ("F", {"compression": "tiff_lzw"}), ("RGB", {"big_tiff": True}), ("RGB", ALL),
    ],
    "PPM": [("RGB", {}), ("L", {}), ("1", {}), ("I", {}), ("F", {})],
    "AVIF": [("RGB", {"exif": EXIF}), ("RGBA", {}), ("RGB", ALL)],
}  # fmt: skip
PLAIN = [
    b"P1\n# c\n3 2\n1 0 1\n0 1 0\n",
    b"P2 3 2 15\n1 2 3 4 5 6\n",
    b"P3\n1 2 255 1 2 3 4 5 6",
    b"P5 2 2 65535 abcdefgh",
]


def saved(kind: str) -> list[bytes]:
    """A small image in each variant of a format."""
    found = list(PLAIN if kind == "PPM" else [])
    for mode, options in VARIANTS[kind]:
        stream = io.BytesIO()
        MODES[mode].save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


Image.init()
VALID = {kind: saved(kind) for kind in VARIANTS if kind in Image.SAVE}


def opened(path: Path) -> None:
    """Open a file as every command does; an image is RGB and has pixels, and not many more than it needs."""
    image = open_image(path)
    assert image.mode == "RGB" and min(image.size) > 0
    assert min(image.size) < 2 * MIN_SHORT_SIDE
    assert np.asarray(image).shape == (image.height, image.width, 3)


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a PNG's chunks."""
    found, at = [], len(PNG)
    while len(content) >= at + 8:
        length = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    return found


@st.composite
def rewritten(draw: st.DrawFn, valid: bytes) -> bytes:
    """A PNG whose chunks are damaged, but have the right lengths and checksums; others may be put between them."""
    parts = chunks(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(parts) - 1))
        name, body = parts[at]
        if draw(st.booleans()):
            parts[at] = name, draw(corrupted(body))
        else:
            names = [b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"gAMA"]
            size = draw(st.sampled_from(EXTREMES)) % 5000
            texts = [b"k\0\0" + zlib.compress(b"a" * size), b"k\0" + b"a" * size, EXIF.tobytes(), *NASTY]
            parts.insert(at, (draw(st.sampled_from([*names, name])), draw(st.sampled_from([*texts, body]))))
    sealed = [name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in parts]
    return PNG + b"".join((len(one) - 8).to_bytes(4, "big") + one for one in sealed)


@st.composite
def with_segment(draw: st.DrawFn, valid: bytes) -> bytes:
    """A JPEG with another segment at its beginning, such as damaged EXIF data."""
    start = draw(
        st.sampled_from([b"Exif\0\0", b"JFIF\0", b"Adobe", b"ICC_PROFILE\0\1\1", b"MPF\0", b"Photoshop 3.0\0", b""])
    )
    body = start + draw(corrupted(EXIF.tobytes()[6:]))
    marker = draw(st.sampled_from([0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDB, 0xC4, 0xDD, 0xC0, 0xC2]))
    return valid[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + valid[2:]


def damaged_image(kind: str) -> st.SearchStrategy[bytes]:
    valid = st.sampled_from(VALID[kind])
    found = valid.flatmap(corrupted)
    if kind in ("PNG", "JPEG"):
        found |= valid.flatmap(rewritten if kind == "PNG" else with_segment)
    return found


@pytest.mark.parametrize("kind", [*VALID])
@given(data=st.data())
@fuzz
def test_damaged_images(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Would catch an exception or crash of a decoder's, sizes believed before memory is taken, a name that decides."""
    path = tmp_path / f"a{data.draw(st.sampled_from(['', '.eps', '.h5', *sorted(SUFFIXES)]))}"
    path.write_bytes(data.draw(damaged_image(kind)))
    isolated(opened, path)
    path.unlink()


@pytest.mark.parametrize("kind", [*VALID])
def test_the_images_that_are_damaged_are_valid(tmp_path: Path, kind: str) -> None:
    """Would catch a suite that damages what is not opened anyway."""
    for index, content in enumerate(VALID[kind]):
        path = tmp_path / str(index)
        path.write_bytes(content)
        open_image(path)
