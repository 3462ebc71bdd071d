"""Captions inside images: pixels and all other metadata stay, and XMP, IPTC and EXIF agree."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import PIL
import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from captioner.errors import ImageError, UsageError
from captioner.writing import iptc, jpeg
from captioner.writing.embed import Embedded
from captioner.writing.xmp import EMPTY, set_description
from tests.tiny import make_image

PLACE = Embedded("captioner (test)")
TEXT = "Zwei Hündchen <on> a beach & more"
ICC = b"profile " * 100


def exif(description: str = "old words", order: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = order
    data[0x010E], data[0x0110], data[0x0112] = description, "Camera", 6
    data.get_ifd(0x8769)[0x927C] = b"maker's note " * 5
    return data.tobytes()


def resources(*sets: tuple[tuple[int, int], bytes]) -> bytes:
    data = b"".join(struct.pack(">BBBH", 0x1C, *key, len(value)) + value for key, value in sets)
    digest = b"8BIM" + struct.pack(">HHI", 0x0425, 0, 16) + b"d" * 16
    return b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(data)) + data + b"\0" * (len(data) % 2) + digest


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image or make_image(1)).save(stream, kind, **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", set_description(EMPTY, "old", "Ann").decode(), zip=True)
    text.add_text("Description", "old", zip=True)
    text.add_text("Author", "Ann")
    plain = saved("JPEG")
    old = resources(((2, 0), b"\0\4"), ((2, 25), b"dog"), ((2, 120), b"old"))
    photoshop = with_segment(plain, 0xED, iptc.SIGNATURE + old)
    frames = {"save_all": True, "append_images": [make_image(2)], "duration": 50}
    return {
        "plain.jpg": plain,
        "full.jpg": with_segment(saved("JPEG", exif=exif(), icc_profile=ICC, comment=b"kept", progressive=True), 0xED,
                                 iptc.SIGNATURE + old) + b"trailer",
        "big-endian.jpg": saved("JPEG", exif=exif("x" * 200, ">")),
        "iptc.jpg": photoshop,
        "cmyk.jpg": saved("JPEG", make_image(1).convert("CMYK")),
        "xmp.jpg": with_segment(plain, 0xE1, jpeg.XMP + set_description(EMPTY, "old", "Ann")),
        "plain.png": saved("PNG"),
        "full.png": saved("PNG", make_image(1).convert("P"), pnginfo=text, exif=exif(), icc_profile=ICC),
        "moving.png": saved("PNG", **frames),
        "lossy.webp": saved("WEBP"),
        "lossless.webp": saved("WEBP", make_image(1).convert("RGBA"), lossless=True, exact=True),
        "full.webp": saved("WEBP", exif=exif(), icc_profile=ICC, xmp=set_description(EMPTY, "old", "Ann")),
        "moving.webp": saved("WEBP", **frames),
    }  # fmt: skip


FILES = files()


def pixels(data: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return [frame.tobytes() for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize("name", FILES)
def test_pixels_and_other_metadata_stay(name: str, tmp_path: Path) -> None:
    """Would catch an image that is compressed again, and what a saver of images forgets."""
    path = tmp_path / name
    path.write_bytes(FILES[name])
    old = PLACE.read(path)
    assert old == ("" if not any(word in name for word in ("full", "big", "iptc", "xmp")) else old)
    for text in (TEXT, "short", "a longer text " * 20):
        PLACE.write(path, text.strip())
        assert PLACE.read(path) == text.strip()
    changed = path.read_bytes()
    assert pixels(changed) == pixels(FILES[name])
    with Image.open(io.BytesIO(changed)) as image, Image.open(io.BytesIO(FILES[name])) as before:
        assert image.info.get("icc_profile") == before.info.get("icc_profile")
        assert image.getexif().get_ifd(0x8769) == before.getexif().get_ifd(0x8769)
        assert {k: v for k, v in image.getexif().items() if k not in (0x010E, 0x8769)} == {
            k: v for k, v in before.getexif().items() if k not in (0x010E, 0x8769)
        }
        assert image.info.get("comment") == before.info.get("comment")
        assert image.info.get("Author") == before.info.get("Author")
    assert changed.endswith(b"trailer") == FILES[name].endswith(b"trailer")
    before_run = path.read_bytes()
    PLACE.write(path, text.strip())
    assert path.read_bytes() == before_run, "the same caption again changes nothing"


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
@pytest.mark.parametrize("name", FILES)
def test_exiftool_reads_what_is_written(name: str, tmp_path: Path) -> None:
    """ExifTool finds no fault, the same caption everywhere, an IPTC digest that fits, and the rest as it was."""
    path = tmp_path / name
    path.write_bytes(FILES[name])

    def read() -> dict[str, Any]:
        command = ["exiftool", "-j", "-G1", "-a", "-validate", "-warning", "-error", "-all", str(path)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]  # type: ignore[no-any-return]

    before = read()
    PLACE.write(path, TEXT)
    after = read()
    found = {
        key: value
        for key, value in after.items()
        if key.endswith((":Description", "Caption-Abstract", "ImageDescription"))
    }
    assert "XMP-dc:Description" in found and set(found.values()) == {TEXT}
    assert after["XMP-photoshop:CaptionWriter"] == "captioner (test)"
    assert not [key for key in after if key.endswith(":Error")]
    if "Photoshop:IPTCDigest" in after:
        assert after["Photoshop:IPTCDigest"] == after.get("File:CurrentIPTCDigest", after["Photoshop:IPTCDigest"])
    ours = "Description Caption Writer CodedCharacterSet Digest FileType MIME XMP RIFF: Photoshop: ExifTool: System:"
    kept = {key: value for key, value in before.items() if not any(word in key for word in ours.split())}
    assert {key: after.get(key) for key in kept} == kept


def test_iptc() -> None:
    """Would catch a digest of the old data, by which programs take IPTC for newer, and a second caption."""
    import hashlib

    changed = iptc.set_caption(resources(((2, 0), b"\0\4"), ((2, 120), b"old"), ((3, 10), b"x")), "neu ü", "me")
    assert iptc.read_caption(changed) == "neu ü"
    parts = {number: data for number, _, data in iptc._resources(changed)}
    assert parts[iptc.DIGEST] == hashlib.md5(parts[iptc.IIM]).digest()
    keys = [key for key, _ in iptc._data_sets(parts[iptc.IIM])]
    assert keys == [(1, 90), (2, 0), (2, 120), (2, 122), (3, 10)]
    assert iptc.set_caption(b"8BIM\x04\x25\0\0\0\0\0\0", "x", "me") == b"8BIM\x04\x25\0\0\0\0\0\0"


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 11, reason="Pillow 10 cannot read the MPO that it writes")
def test_several_images_in_a_jpeg(tmp_path: Path) -> None:
    """Would catch the second image of a phone's photo that is not found any more."""
    frames = {"save_all": True, "append_images": [make_image(2), make_image(3)]}
    path = tmp_path / "many.jpg"
    path.write_bytes(saved("MPO", **frames))
    before = pixels(path.read_bytes())
    assert len(before) == 3
    PLACE.write(path, TEXT)
    assert pixels(path.read_bytes()) == before and PLACE.read(path) == TEXT
    with Image.open(path) as image:
        first = image.mpinfo[0xB002][0]  # type: ignore[attr-defined]
    data = path.read_bytes()
    assert data[first["Size"] - 2 : first["Size"] + 2] == b"\xff\xd9\xff\xd8"


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_left_alone(name: str, tmp_path: Path) -> None:
    """Would catch a traceback, and a half-written image in the place of one that could still be rescued."""
    path = tmp_path / name
    for cut in (0, 3, 9, 30, len(FILES[name]) // 2):
        damaged = FILES[name][:cut]
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            PLACE.write(path, TEXT)
        assert path.read_bytes() == damaged
    for at in range(0, min(700, len(FILES[name])), 7):
        damaged = FILES[name][:at] + bytes([FILES[name][at] ^ 0x55]) + FILES[name][at + 1 :]
        path.write_bytes(damaged)
        try:
            PLACE.write(path, TEXT)
        except ImageError:
            assert path.read_bytes() == damaged


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    make_image(1).save(path)
    with pytest.raises(ImageError, match="JPEG, PNG and WebP files only; use --xmp"):
        PLACE.read(path)
    path = tmp_path / "a.png"
    make_image(1).save(path)
    (tmp_path / "link.png").symlink_to(path)
    with pytest.raises(ImageError, match="is a link"):
        PLACE.write(tmp_path / "link.png", TEXT)
    path.chmod(0o444)
    with pytest.raises(UsageError, match="write-protected"):
        PLACE.write(path, TEXT)


def test_names_of_cameras_are_no_captions(tmp_path: Path) -> None:
    """Would catch photos of some cameras that are never captioned."""
    path = tmp_path / "a.jpg"
    path.write_bytes(saved("JPEG", exif=exif("OLYMPUS DIGITAL CAMERA         ")))
    assert PLACE.read(path) == ""
    PLACE.write(path, TEXT)
    assert PLACE.read(path) == TEXT
