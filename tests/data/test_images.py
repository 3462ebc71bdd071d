"""Images are opened upright in RGB; everything else is refused in one line."""

from __future__ import annotations

import ast
import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from captioner.data import images
from captioner.data.images import find_images, find_named, open_image
from captioner.errors import ImageError
from tests.fuzz.worker import isolated

RED, BLUE = (200, 30, 40), (20, 60, 190)


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def corner_colors(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Color near the top left and near the bottom right corner."""
    values = np.asarray(image).astype(int)
    return values[2, 2], values[-3, -3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_as_exif_says(tmp_path: Path, orientation: int) -> None:
    """Would catch a swapped rotation: every one of the eight orientations shows the same upright image."""
    undo: dict[int, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = halves() if orientation == 1 else halves().transpose(undo[orientation])
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    opened = open_image(tmp_path / "a.jpg")
    assert opened.size == (40, 20)
    for seen, meant in zip(corner_colors(opened), (RED, BLUE), strict=True):
        assert np.abs(seen - meant).max() < 12


CONVERSIONS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "grayscale": ("a.jpg", lambda image: image.convert("L")),
    "one bit": ("a.png", lambda image: image.convert("1", dither=Image.Dither.NONE)),
    "cmyk": ("a.jpg", lambda image: image.convert("CMYK")),
    "palette": ("a.png", lambda image: image.convert("P")),
    "webp": ("a.webp", lambda image: image),
    "tiff": ("a.tif", lambda image: image),
    "alpha": ("a.png", lambda image: image.convert("RGBA")),
    "gray and alpha": ("a.png", lambda image: image.convert("LA")),
}


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_every_mode_becomes_rgb(tmp_path: Path, kind: str) -> None:
    """Would catch inverted CMYK and lost channels."""
    name, convert = CONVERSIONS[kind]
    stored = convert(halves())
    stored.save(tmp_path / name)
    opened = open_image(tmp_path / name)
    assert (opened.mode, opened.size) == ("RGB", (40, 20))
    expected = stored.convert("RGB") if kind != "cmyk" else halves()
    for seen, meant in zip(corner_colors(opened), corner_colors(expected), strict=True):
        assert np.abs(seen - meant).max() < 25


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path: Path, mode: str) -> None:
    """Would catch the black that lies behind transparent pixels, palette transparency included."""
    image = halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    if mode == "P":
        palette = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
        palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    else:
        image.convert(mode).save(tmp_path / "a.png")
    left, right = corner_colors(open_image(tmp_path / "a.png"))
    assert left.tolist() == [255, 255, 255] and right.max() < 250


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257 * 100, 65535]], np.uint16), [0, 100, 255]),
        (np.array([[0, 257 * 100, 65535]], np.int32), [0, 100, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
    ],
)
def test_deep_gray_is_scaled(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    """Would catch clipping: 16-bit images opened by Pillow's own conversion are almost white."""
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == expected
    if values.dtype == np.uint16:
        Image.fromarray(values).save(tmp_path / "a.png")
        assert np.asarray(open_image(tmp_path / "a.png"))[0, :, 2].tolist() == expected


def ramp(top: float, dtype: type, size: int = 64) -> np.ndarray:
    """Values from 0 to ``top``, (size, size)."""
    return np.linspace(0, top, size * size).reshape(size, size).astype(dtype)


DEEP = {
    "12 bits": (ramp(4095, np.uint16), None),
    "14 bits": (ramp(16383, np.uint16), None),
    "16 bits": (ramp(65535, np.uint16), None),
    "32 bits": (ramp(2**32 - 1, np.uint32), None),
    "floats of 0..1": (ramp(1, np.float32), None),
    "any floats": (ramp(1e6, np.float32), None),
    "one infinite": (ramp(1, np.float32), np.inf),
    "one far outside": (ramp(255, np.float32), 1e30),
    "one no number": (ramp(255, np.float32), np.nan),
    "12 bits, one dead pixel": (ramp(4095, np.uint16), 65535),
}


def save_tiff(path: Path, values: np.ndarray, tags: dict[int, Any]) -> None:
    """Gray values as an uncompressed TIFF, also in kinds that Pillow does not write."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    high, wide = values.shape
    entries = {256: wide, 257: high, 258: values.itemsize * 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: high}
    entries = dict(sorted({**entries, 279: values.nbytes, 339: kind, **tags}.items()))
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    lines = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + lines + bytes(4) + values.tobytes())


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("kind", DEEP)
def test_ranges_of_deep_gray(tmp_path: Path, kind: str, white_is_zero: bool) -> None:
    """Would catch a range taken from the type or from outliers, values that wrap, and negatives."""
    values, outlier = DEEP[kind]
    if white_is_zero and values.dtype == np.uint32:
        pytest.skip("Pillow refuses such a file")
    values = values.copy()
    if outlier is not None:
        values[5, 5] = outlier
    save_tiff(tmp_path / "a.tif", values, {262: 0 if white_is_zero else 1})
    expected = np.rint(ramp(255, np.float64)) if not white_is_zero else 255 - np.rint(ramp(255, np.float64))
    seen = np.asarray(open_image(tmp_path / "a.tif"))[..., 0].astype(int)
    difference = np.abs(seen - expected)
    difference[5, 5] = 0
    assert difference.max() <= 1


def save_deep_colors(path: Path, values: np.ndarray) -> None:
    """Values (H, W, 3) or (H, W, 4) of 16 bits as a PNG whose rows are differences, or as a TIFF."""
    high, wide, bands = values.shape
    if path.suffix == ".png":
        rows = values.astype(">u2").view(np.uint8).reshape(high, wide, 2 * bands)
        rows = np.concatenate([rows[:, :1], rows[:, 1:] - rows[:, :-1]], 1).reshape(high, -1)
        data = zlib.compress(np.insert(rows, 0, 1, axis=1).tobytes())  # filter 1 of each row: Sub
        header = struct.pack(">IIBBBBB", wide, high, 16, 2 if bands == 3 else 6, 0, 0, 0)
        png = with_chunk(b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IEND\xaeB`\x82", b"IHDR", header, before=b"IEND")
        path.write_bytes(with_chunk(png, b"IDAT", data, before=b"IEND"))
        return
    order = "<" if path.stem == "little" else ">"
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if path.stem == "packed" else data
    entries = {
        256: (wide,),
        257: (high,),
        258: (16,) * bands,
        259: (8 if path.stem == "packed" else 1,),
        262: (2,),
        273: (8,),
        277: (bands,),
    }
    entries |= {278: (high,), 279: (len(data),), **({338: (2,)} if bands == 4 else {})}
    after, lines, more = 8 + len(data), [], b""
    for tag, numbers in entries.items():
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, more = struct.pack(f"{order}I", after + len(more)), more + packed
        lines.append(struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, after + len(more))
    table = struct.pack(f"{order}H", len(lines)) + b"".join(lines) + bytes(4)
    path.write_bytes(start + data + more + table)


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "little.tif", "big.tif", "packed.tif"])
def test_deep_colors_keep_their_range(tmp_path: Path, name: str, bits: int, bands: int) -> None:
    """Would catch colors of 12 bits, as cameras and microscopes have them, that are nearly black in files of 16."""
    top = 2**bits - 1
    values = np.stack([ramp(top, np.uint16), ramp(top, np.uint16).T, np.full((64, 64), top // 2, np.uint16)], 2)
    expected = np.rint(values / top * 255)
    if bands == 4:
        values = np.dstack([values, np.full((64, 64), 65535, np.uint16)])
    save_deep_colors(tmp_path / name, values)
    assert np.abs(np.asarray(open_image(tmp_path / name)) - expected).max() <= 1


def test_first_frame_and_single_pixel(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (40, 20), BLUE)])
    assert np.abs(corner_colors(open_image(tmp_path / "a.gif"))[0] - RED).max() < 12
    Image.new("RGB", (1, 1), RED).save(tmp_path / "b.png")
    assert open_image(tmp_path / "b.png").getpixel((0, 0)) == RED


def test_pil_images_are_taken_as_they_are() -> None:
    given = halves().convert("RGBA")
    assert np.array_equal(np.asarray(open_image(given)), np.asarray(halves()))
    assert given.mode == "RGBA"


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_images_are_shrunk_while_read(tmp_path: Path, suffix: str) -> None:
    halves(4800, 2400).save(tmp_path / f"a.{suffix}")
    opened = open_image(tmp_path / f"a.{suffix}")
    assert opened.size == (2400, 1200)
    assert np.abs(np.array(opened.getpixel((2000, 600))) - BLUE).max() < 12


def test_one_hundred_megapixels_open_without_a_warning(tmp_path: Path) -> None:
    """A telephone's image: Pillow warns from 89 million pixels on, and warnings are errors here."""
    filters = list(warnings.filters)
    Image.new("L", (12000, 9000), 90).save(tmp_path / "a.jpg", quality=20)
    assert open_image(tmp_path / "a.jpg").size == (1500, 1125)
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == (filters, 89478485)  # nothing global was changed


def bomb() -> bytes:
    """A PNG header that announces 60,000 x 60,000 pixels."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "png")
    raw = bytearray(small.getvalue())
    raw[16:24] = (60000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "jpeg")
    return stream.getvalue()


BROKEN = {
    "truncated": (jpeg_bytes()[:900], "truncated"),
    "empty": (b"", "empty"),
    "text": (b"this is not an image\n" * 9, "not an image"),
    "bomb": (bomb(), "pixels"),
    "header only": (jpeg_bytes()[:20], "truncated|damaged"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_with_a_reason(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN[kind]
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        open_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    copy = pickle.loads(pickle.dumps(caught.value))  # as it comes back from a worker process
    assert (copy.path, copy.reason, str(copy)) == (path, caught.value.reason, message)


def test_only_known_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a door to another plugin of Pillow, whatever the file is called: EPS is run as a program."""
    Image.init()
    opened: list[str] = []
    for name in set(Image.OPEN) - {*images.FORMATS, "AVIF", "HEIF"}:
        monkeypatch.setitem(Image.OPEN, name, (lambda *_, name=name: opened.append(name), None))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
    for start in (program, b"\x89HDF\r\n\x1a\n", b"BUFR" + bytes(9), b"GRIB" + bytes(3) + b"\1", b"\xd7\xcd\xc6\x9a"):
        for name in ("a.jpg", "a.eps", "a.h5", "a"):
            (tmp_path / name).write_bytes(start + bytes(99))
            with pytest.raises(ImageError, match="JPEG, PNG"):
                open_image(tmp_path / name)
    assert not opened


def test_the_content_decides_about_the_format(tmp_path: Path) -> None:
    """Would catch trust in suffixes: a PNG may be called .jpg or .eps."""
    halves().save(tmp_path / "a", "PNG")
    for name in ("a.jpg", "a.eps", "a.txt"):
        assert open_image((tmp_path / "a").rename(tmp_path / name)).size == (40, 20)
        (tmp_path / name).rename(tmp_path / "a")


def test_every_image_open_names_its_formats() -> None:
    """Would catch a second door to all plugins of Pillow."""
    root = Path(__file__).parents[2]
    packages = ("captioner", "preprocess", "eval", "scripts", "benchmarks")
    for path in (path for package in packages for path in (root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                assert any(keyword.arg == "formats" for keyword in node.keywords), f"{path}, line {node.lineno}"


@pytest.mark.parametrize(
    ("name", "mode", "options", "needed"),
    [
        ("a.png", "P", {}, 1 + 4),
        ("a.png", "I;16", {}, 2 + 4),
        ("a.png", "RGB", {}, 4 + 4),
        ("a.webp", "RGB", {}, 4 + 12.2),
        ("a.jpg", "RGB", {"progressive": True, "subsampling": 0}, 4 + 6),
        ("a.jpg", "RGB", {"progressive": True, "subsampling": 2}, 4 + 4),
        ("a.tif", "RGB", {"compression": "tiff_lzw", "tiffinfo": {278: 20, 274: 6}}, 4 + 3 + 4),
    ],
)
def test_memory_limit_counts_mode_and_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str, options: dict[str, Any], needed: float
) -> None:
    """Would catch a limit in pixels, which take from 1 to 16 bytes each."""
    image = Image.new("I;16", (40, 20)) if mode == "I;16" else halves().convert(mode)
    image.save(tmp_path / name, **options)
    monkeypatch.setattr(images, "MAX_BYTES", int(needed * 800))
    open_image(tmp_path / name)
    monkeypatch.setattr(images, "MAX_BYTES", int(needed * 800) - 1)
    with pytest.raises(ImageError, match=r"\d+ x \d+ pixels take .* make it smaller"):
        open_image(tmp_path / name)


def test_memory_stays_within_the_limit(tmp_path: Path) -> None:
    """Would catch copies of a whole image in a wider mode: 16 bits were turned into floats of 64."""
    Image.new("I;16", (6000, 4000), 9).save(tmp_path / "a.png")
    Image.new("P", (6000, 4000), 9).save(tmp_path / "b.png", transparency=1)
    code = """if True:
        import resource, sys
        from captioner.data.images import open_image
        open_image(sys.argv[2])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        open_image(sys.argv[1])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    halves().convert("RGBA").save(tmp_path / "small.png")
    for name in ("a.png", "b.png"):
        command = [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / "small.png")]
        kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert kilobytes * 1024 < 5 * 6000 * 4000


def test_strips_make_the_same_image_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch seams and lost edges between strips, with sizes that the factor does not divide."""
    noise = np.random.default_rng(0).integers(0, 256, (75, 83, 4), dtype=np.uint8)
    monkeypatch.setattr(images, "MIN_SHORT_SIDE", 20)
    for mode in ("RGB", "RGBA", "P", "L", "LA", "CMYK", "1", "I", "F"):
        image = Image.fromarray(noise).convert("RGB" if mode == "P" else "RGBA").convert(mode)
        whole = open_image(image)
        assert whole.size == (28, 25)
        with monkeypatch.context() as strips:
            strips.setattr(images, "_STRIP", 400)
            assert np.array_equal(np.asarray(open_image(image)), np.asarray(whole)), mode


def test_draft_reduces_jpegs_of_telephones(tmp_path: Path) -> None:
    """Would catch JPEGs with a second image (MPO) that are decoded in full."""
    halves(4800, 2400).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[halves()])
    with images._open(tmp_path / "a.jpg", tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert open_image(tmp_path / "a.jpg").size == (2400, 1200)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "missing.jpg")
    halves().save(tmp_path / "A.JPG")
    with pytest.raises(ImageError, match=r"no such file; did you mean A\.JPG\?"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    with pytest.raises(ImageError, match="not a regular file"):
        open_image(tmp_path / "pipe.jpg")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "sub/c.webp", ".hidden.jpg", ".git/d.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "bare").mkdir()
    return tmp_path


def names(found: object, album: Path) -> list[str]:
    assert isinstance(found, list)
    return [os.path.relpath(item, album) if isinstance(item, Path) else f"error: {item.reason}" for item in found]


def test_finds_files_folders_patterns_and_lines(album: Path) -> None:
    """Would catch hidden files, unsorted folders, unexpanded patterns and arguments that vanish silently."""

    def found(*arguments: str, stdin: str = "") -> list[str]:
        paths = [argument if argument == "-" else str(album / argument) for argument in arguments]
        return names(list(find_images(paths, stdin.splitlines())), album)

    assert found(".") == ["a.PNG", "b.jpg", "sub/c.webp"]
    assert found("b.jpg", "b.jpg") == ["b.jpg", "b.jpg"]
    assert found("*.jpg", "**/*.webp") == ["b.jpg", "sub/c.webp"]
    assert found("**") == ["a.PNG", "b.jpg", "sub/c.webp", "notes.txt"]
    assert found("missing.jpg") == ["missing.jpg"]  # refused when opened
    assert found("bare") == ["error: no images in this folder"]
    assert found("*.bmp") == ["error: no file matches this pattern"]
    assert found("-", stdin=f"{album}/b.jpg\n\n{album}/sub\n") == ["b.jpg", "sub/c.webp"]
    (album / "[x].jpg").write_bytes(b"x")
    assert found("[x].jpg") == ["[x].jpg"]  # a name that looks like a pattern


def test_ids_are_paths_below_the_folder(album: Path) -> None:
    ids = [item.id for item in find_named([str(album), str(album / "sub/c.webp")]) if not isinstance(item, ImageError)]
    assert ids == ["a.PNG", "b.jpg", "sub/c.webp", "c.webp"]


def exif_of(orientation: int, *, cut: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Software] = "a camera's own program"
    return exif.tobytes()[:cut]


@pytest.mark.parametrize("cut", [7, 14, 20, 40])
def test_damaged_exif_data_does_not_break_an_image(tmp_path: Path, cut: int) -> None:
    """Would catch an error, or a warning, for a sound image whose EXIF data is cut off."""
    halves().save(tmp_path / "a.jpg", exif=exif_of(6, cut=cut), quality=95)
    opened = open_image(tmp_path / "a.jpg")
    assert sorted(opened.size) == [20, 40]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, while it reads the header
        image = Image.open(tmp_path / "a.jpg")
    with image:
        assert open_image(image).size == opened.size


@pytest.mark.parametrize("orientation", [1, 6])
def test_damaged_exif_data_does_not_break_an_avif(tmp_path: Path, orientation: int) -> None:
    """Would catch a sound AVIF that is refused for its EXIF data; its orientation is stored beside them, too."""
    Image.init()
    if "AVIF" not in Image.OPEN:
        pytest.skip("this Pillow reads no AVIF")
    halves(80, 40).save(tmp_path / "a.avif", exif=exif_of(orientation), quality=95)
    whole = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "b.avif").write_bytes(whole.replace(exif_of(1)[6:10], b"junk"))
    assert (tmp_path / "b.avif").read_bytes() != whole
    one, other = (open_image(tmp_path / name) for name in ("a.avif", "b.avif"))
    assert one.size == other.size == ((80, 40) if orientation == 1 else (40, 80))
    assert np.array_equal(np.asarray(one), np.asarray(other))


def test_a_pil_image_is_turned_but_not_changed(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.jpg", exif=exif_of(6), quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert open_image(image).size == (20, 40)
        assert image.size == (40, 20) and image.getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.parametrize(
    "address", ["https://example.org/a.jpg", "http://example.org/a.jpg?width=100", "file:///a.jpg"]
)
def test_an_address_is_to_be_downloaded_first(address: str) -> None:
    """Would catch "no such file", or "no file matches this pattern", for what everybody sees is no file."""
    [found] = find_images([address])
    assert isinstance(found, ImageError) and str(found) == f"{address}: {images.URL_REASON}"
    with pytest.raises(ImageError, match="download the image first"):
        images.open_image(address)


def with_chunk(png: bytes, kind: bytes, content: bytes, crc: bytes = b"", before: bytes = b"IDAT") -> bytes:
    """``png`` with one more chunk, in front of its first chunk ``before``."""
    crc = crc or zlib.crc32(kind + content).to_bytes(4, "big")
    place = png.index(before) - 4
    return png[:place] + len(content).to_bytes(4, "big") + kind + content + crc + png[place:]


METADATA = {
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2_000_000)), b""),
    "color profile": (b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_000_000)), b""),
    "text": (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)), b""),
    "cut off": (b"pHYs", b"\0", b""),
    "wrong checksum": (b"tEXt", b"Comment\0x", b"\0\0\0\1"),
}


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("kind", METADATA)
def test_metadata_does_not_break_a_png(tmp_path: Path, kind: str, before: bytes) -> None:
    """Would catch sound pixels that are refused because of large or damaged texts and profiles beside them."""
    stream = io.BytesIO()
    halves().save(stream, "PNG", exif=exif_of(6))
    (tmp_path / "a.png").write_bytes(with_chunk(stream.getvalue(), *METADATA[kind], before=before))
    opened = open_image(tmp_path / "a.png")
    assert opened.size == (20, 40) and opened.getpixel((2, 2)) == RED


def test_a_png_without_its_pixels_stays_an_error(tmp_path: Path) -> None:
    """Would catch a gray image in place of an error: only the metadata may be left out."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    kind, content, crc = METADATA["XMP"]
    (tmp_path / "a.png").write_bytes(with_chunk(stream.getvalue(), kind, content, crc)[:-900])
    with pytest.raises(ImageError, match="truncated|damaged"):
        open_image(tmp_path / "a.png")


HEIC_HEAD = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf"


def test_heic_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a HEIC image that is called damaged, or left out of its folder without a word."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.HEIC").write_bytes(HEIC_HEAD + bytes(99))
    assert names(list(find_images([str(tmp_path)])), tmp_path) == ["a.HEIC"]
    with pytest.raises(ImageError, match=r"captioner\[heif\]"):
        open_image(tmp_path / "a.HEIC")


def test_heic_is_read(tmp_path: Path) -> None:
    """Would catch a HEIC image that is lost, turned twice or of other colors."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    halves(80, 40).save(tmp_path / "a.heic", "HEIF", quality=95, exif=exif_of(6))
    opened = open_image(tmp_path / "a.heic")
    assert opened.size == (40, 80)
    assert np.abs(np.asarray(opened)[10, 20].astype(int) - RED).max() < 12
    (tmp_path / "b.jpg").write_bytes(HEIC_HEAD + bytes(99))
    with pytest.raises(ImageError, match="not an image|damaged"):
        open_image(tmp_path / "b.jpg")


def test_avif_is_read_or_names_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an AVIF image that is left out, and an old Pillow that ends in a KeyError."""
    Image.init()
    if "AVIF" in Image.OPEN:
        halves().save(tmp_path / "a.avif", quality=95)
        assert names(list(find_images([str(tmp_path)])), tmp_path) == ["a.avif"]
        assert np.abs(corner_colors(open_image(tmp_path / "a.avif"))[0] - RED).max() < 12
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    (tmp_path / "b.avif").write_bytes(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(99))
    with pytest.raises(ImageError, match="newer Pillow"):
        open_image(tmp_path / "b.avif")


def test_a_folder_reports_what_it_leaves_out(album: Path) -> None:
    """Would catch camera files that vanish without an error; texts beside the images are no loss."""
    for name in ("x.CR2", "sub/y.cr2", "z.psd", "captions.tsv"):
        (album / name).write_bytes(b"x")
    for argument in (".", "**"):
        found = names(list(find_images([str(album / argument)])), album)
        assert found[0] == "error: images in formats that are not read (2 .cr2, 1 .psd); convert them to JPEG or PNG"
        assert found[1:4] == ["a.PNG", "b.jpg", "sub/c.webp"]


def test_links_to_folders_are_followed_once(album: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Would catch skipped links, circles, and an image with two ids; upward a link leads out of the folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "e.jpg").write_bytes(b"x")
    (elsewhere / "back").symlink_to(album)
    (album / "0-linked").symlink_to(elsewhere)
    (album / "0-sub").symlink_to("sub")
    (album / "sub" / "loop").symlink_to("..")
    (album / "sub" / "again").symlink_to(".")
    expected = ["0-linked/e.jpg", "a.PNG", "b.jpg", "sub/c.webp"]
    assert names(list(find_images([str(album)])), album) == expected
    found = names(list(find_images([str(album / "**/*.jpg"), str(album / "**" / "**" / "c.*")])), album)
    assert found == ["0-linked/e.jpg", "b.jpg", "sub/c.webp"]


def test_patterns_do_not_run_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch one image that is found 41 times, and, with several links, a search without end."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    for name in "bcdef":
        (tmp_path / "photos" / name).symlink_to(".")
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.jpg", "**", "photos/**", "photos/*", "./**/photos/**/a.jpg", f"{tmp_path}/**/*.jpg"):
        found = [Path(os.path.abspath(item)) for item in find_images([pattern]) if isinstance(item, Path)]
        assert found == [tmp_path / "photos" / "a.jpg"], pattern


def test_a_chunk_of_a_png_that_claims_gigabytes(tmp_path: Path) -> None:
    """Would catch "not enough memory", where Pillow reserves what a damaged length says."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, "PNG")
    content, at = png.getvalue(), png.getvalue().index(b"IDAT")
    (tmp_path / "a.png").write_bytes(content[: at - 4] + b"\x7f\xff\xff\xff" + content[at:])
    assert isolated(first_pixel, tmp_path / "a.png") == (255, 0, 0)


def first_pixel(path: Path) -> object:
    return open_image(path).getpixel((0, 0))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff", "ppm"])
def test_content_is_opened_like_its_file(tmp_path: Path, suffix: str) -> None:
    """Would catch an upload that is read otherwise than the file, damaged texts of a PNG included."""
    path = tmp_path / f"a.{suffix}"
    halves().save(path)
    if suffix == "png":
        content = path.read_bytes()
        path.write_bytes(content[:33] + struct.pack(">I", 5) + b"zTXt" + b"a\0\0xx" + b"\0\0\0\0" + content[33:])
    assert np.array_equal(np.asarray(open_image(path.read_bytes())), np.asarray(open_image(path)))


def test_content_has_limits_of_its_own() -> None:
    """Would catch a server that opens whatever a single user may open."""
    stream = io.BytesIO()
    halves(400, 300).save(stream, "PNG")
    assert open_image(stream.getvalue(), most=2**20).size == (400, 300)
    with pytest.raises(ImageError, match="more than the 0 that one image may take"):
        open_image(stream.getvalue(), most=2**10)
    with pytest.raises(ImageError, match="not an image"):
        open_image(b"GIF")
