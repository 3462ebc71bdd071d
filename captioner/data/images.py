"""Find image files and open them upright in RGB; an unreadable file raises ``ImageError`` with a short reason."""

from __future__ import annotations

import glob
import io
import itertools
import os
import re
import stat
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile as PillowFile
from PIL.TiffImagePlugin import TiffImageFile

from captioner.data.records import in_other_capitals
from captioner.errors import ImageError, MissingDependency
from captioner.optional import require

NEIGHBORS = 10_000
"""Number of files in the folder of a missing file that are compared with its name, ignoring capitals."""
MAX_BYTES = 2**29
"""Most memory in bytes that reading an image may take, counted by mode and format: half a gigabyte."""
MIN_SHORT_SIDE = 1024
"""Fewest pixels of the shorter side when a large image is reduced by a whole factor on reading."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read, whatever a file is called. Its other plugins are never used: the one for
EPS runs the file as a program; those for HDF5, BUFR, GRIB and WMF call any registered handler."""
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF or HEIC"
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif .hif".split()
)
"""Suffixes of the files that are taken from a folder; a file that is named directly may have any."""
URL_REASON = "is an address, not a file; download the image first"
UNREAD_SUFFIXES = frozenset(
    ".arw .cr2 .cr3 .dng .emf .eps .exr .hdr .ico .j2k .jp2 .jpx .jxl .nef .orf .pcx .psd .raf .rw2 .svg .tga .wmf .xcf"
    "".split()
)
"""Suffixes of images that cannot be read; they are reported if a folder holds some."""
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
LOW_BYTES = {
    f"{colors};16{order}": f"{colors};16{other}"
    for colors in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
"""Pillow's names of 16-bit color modes by byte order, each with the name for the other order."""
TOPS = (255, 1023, 4095, 16383, 65535)
"""Largest values of integers with 8, 10, 12, 14 and 16 bits."""
OUTLIERS = (0.1, 99.9)
"""Percentiles of an image's values that bound its range."""
_STRIP = 1 << 20  # pixels that are converted at a time
_DECODERS: dict[str | None, float] = {"WEBP": 12.2, "AVIF": 5.4, "HEIF": 4.3}
"""Bytes per pixel that a decoder needs beside the image, measured on images of 24 megapixels with three bands."""
_warning_filters = threading.Lock()  # warning filters are global


@dataclass(frozen=True)
class FileKind:
    """A kind of file to collect from folders."""

    what: str
    """Name of the kind, in the plural."""
    suffixes: frozenset[str]
    """In lower case, with the dot; a file that is named directly may have any."""
    unread: frozenset[str] = frozenset()
    """Suffixes of files of this kind that cannot be read; they are reported if a folder holds some."""

    @property
    def none_here(self) -> str:
        """The error for a folder without any."""
        return f"no {self.what} in this folder"


IMAGES = FileKind("images", SUFFIXES, UNREAD_SUFFIXES)


@dataclass(frozen=True)
class ImageFile:
    """An image file, or a video, and its id in a feature store."""

    path: Path
    id: str
    """Path below the given folder, with ``/`` and suffix; the file's name if the file itself was given."""


def open_image(source: str | os.PathLike[str] | Image.Image | bytes, most: int | None = None) -> Image.Image:
    """Open an image upright and in RGB: transparency on white, the first frame of an animation.

    ``source`` is a path, an image of Pillow's, or the content of a file; reading it may take ``most`` bytes of memory
    (by default ``MAX_BYTES``). Raises ``ImageError`` with a short reason for anything that cannot be read as an image.
    """
    if _is_url(source):
        raise ImageError(str(source), URL_REASON)
    named = getattr(source, "filename", "") or "image" if isinstance(source, Image.Image | bytes) else source
    path = Path(named)
    try:
        if isinstance(source, Image.Image):
            source.load()
            return _upright(_to_rgb(source), source)
        if isinstance(source, bytes):
            file: Path | BinaryIO = io.BytesIO(source)
        else:
            _check_file(path)
            file = path
        try:
            return _read(path, file, most)
        except (ImageError, MissingDependency, Image.DecompressionBombError):
            raise
        except Exception:  # also MemoryError: Pillow allocates whatever a chunk's length says
            pixels = _without_metadata(file)
            if pixels is None:
                raise
            return _read(path, pixels, most)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error on damaged files
        raise ImageError(path, _reason(path, error)) from error


def find_images(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[Path | ImageError]:
    """Paths of the images that ``arguments`` name, in order, and an ``ImageError`` for each argument that names none.

    An argument is a file, a folder, a glob pattern, or ``-`` for one path per line of ``stdin``. A folder is searched
    with its subfolders and links to folders, sorted, without hidden files; images in formats that cannot be read give
    an error. An image named by two arguments is yielded twice.
    """
    for found in find_named(arguments, stdin):
        yield found if isinstance(found, ImageError) else found.path


def find_named(
    arguments: Iterable[str], stdin: Iterable[str] = (), kind: FileKind = IMAGES
) -> Iterator[ImageFile | ImageError]:
    """Like ``find_images``, with the id of each image in a feature store; ``kind`` may be videos instead."""
    for argument in arguments:
        if argument == "-":
            for line in stdin:
                if line.strip():
                    yield from _expand(line.rstrip("\r\n"), kind)
        else:
            yield from _expand(argument, kind)


def _expand(argument: str, kind: FileKind) -> Iterator[ImageFile | ImageError]:
    if _is_url(argument):
        yield ImageError(argument, URL_REASON)
        return
    if os.path.lexists(argument) or not glob.has_magic(argument):
        yield from _folder(Path(argument), kind) if os.path.isdir(argument) else [_file(Path(argument))]
        return
    matches = sorted(set(_glob(argument)))
    if not matches:
        yield ImageError(argument, "no file matches this pattern")
    seen: set[tuple[str, str]] = set()  # ** matches a folder as well as its files, and links match files elsewhere
    for match in matches:
        for found in _folder(Path(match), kind) if os.path.isdir(match) else [_file(Path(match))]:
            if isinstance(found, ImageError):
                key = (str(found.path), found.reason)
            else:
                key = (os.path.realpath(found.path.parent), found.path.name)
            if key not in seen and key[1] != kind.none_here:
                yield found
            seen.add(key)


def _glob(pattern: str) -> Iterator[str]:
    """``glob.glob``, except that ``**`` does not follow links in circles."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    place = parts.index("**")
    before, rest = parts[:place], parts[place + 1 :]
    while rest[:1] == ["**"]:
        rest = rest[1:]
    for base in glob.glob("/".join(before) or ("/" if before else os.curdir)):
        if not rest and os.path.isdir(base):
            yield base
        for root, files in _walk(base):
            if rest:
                yield from _glob(os.path.join(glob.escape(root), *rest))
            else:
                yield from (os.path.join(root, name) for name in files)


def _is_url(source: object) -> bool:
    """Whether an image is named by an address and not by an existing file."""
    return isinstance(source, str) and re.match(r"\w+://", source) is not None and not os.path.lexists(source)


def _file(path: Path) -> ImageFile:
    return ImageFile(path, path.name)


def _folder(folder: Path, kind: FileKind) -> Iterator[ImageFile | ImageError]:
    """Files of ``kind`` below ``folder``, sorted by their path in it."""
    problems: list[ImageError] = []

    def note(error: OSError) -> None:
        problems.append(ImageError(error.filename or folder, f"the folder cannot be read: {error.strerror}"))

    names = []
    unread: Counter[str] = Counter()
    for root, files in _walk(str(folder), note):
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in kind.suffixes:
                names.append(Path(root, name).relative_to(folder).as_posix())
            elif suffix in kind.unread:
                unread[suffix] += 1
    yield from problems
    if unread:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
        yield ImageError(folder, f"images in formats that are not read ({counts}); convert them to JPEG or PNG")
    elif not names and not problems:
        yield ImageError(folder, kind.none_here)
    for name in sorted(names):
        yield ImageFile(folder / name, name)


def _walk(folder: str, note: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, list[str]]]:
    """(Folder, its file names) for ``folder`` and all folders below it that are not hidden, each real folder once.

    Links to folders come last, so that a folder that can be reached without a link gets the path without it. Links to
    parent folders are skipped.
    """
    start = Path(os.path.realpath(folder))
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    for top in pending:
        for root, folders, files in os.walk(top, onerror=note):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = [path for name in folders if os.path.islink(path := os.path.join(root, name))]
            pending += [path for path in links if not start.is_relative_to(os.path.realpath(path))]
            yield root, [name for name in files if not name.startswith(".")]


def _check_file(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty")


@contextmanager
def _stream(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A file from its beginning."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            yield opened
    else:
        file.seek(0)
        yield file


def _read(path: Path, file: Path | BinaryIO, most: int | None = None) -> Image.Image:
    with _open(path, file) as image:
        size = image.size
        image.draft(None, (MIN_SHORT_SIDE, MIN_SHORT_SIDE))  # JPEG decodes at 1/2, 1/4 or 1/8, never below this
        _check_memory(path, image, size, MAX_BYTES if most is None else most)
        modes = [_raw_mode(tile) for tile in image.tile]
        image.load()
        low = _low_bytes(path, file, image) if modes and LOW_BYTES.keys() >= set(modes) else None
        return _upright(_to_rgb(image, low), image)


def _raw_mode(tile: Any) -> str:
    """How a part of an image is stored; known after ``Image.open``, before the image is loaded."""
    return str(tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3])


def _low_bytes(path: Path, file: Path | BinaryIO, image: Image.Image) -> Image.Image | None:
    """The lower bytes of 16-bit colors that use less than half of their range; Pillow reads only the upper ones.

    Pillow reads the lower ones if it is told that the byte order is the other one.
    """
    if np.percentile(np.asarray(_sample(image))[..., :3], OUTLIERS[1], method="nearest") > TOPS[-2] >> 8:
        return None
    with _open(path, file) as other:
        other.tile = [_swapped(tile) for tile in other.tile]
        other.load()
        return other


def _swapped(tile: Any) -> Any:
    """A part of an image with swapped bytes."""
    mode, arguments = LOW_BYTES[_raw_mode(tile)], tile[3]
    arguments = (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _open(path: Path, file: Path | BinaryIO) -> PillowFile:
    """Read the header only."""
    formats = _formats(path, file)
    with no_warnings():
        return Image.open(file, formats=formats)


def _formats(path: Path, content: Path | BinaryIO) -> tuple[str, ...]:
    """The formats that a file may have by its content; AVIF and HEIC share a container, which lists its brands."""
    with _stream(content) as file:
        head = file.read(64)
    brands = (
        {head[at : at + 4] for at in range(8, min(64, int.from_bytes(head[:4], "big")), 4)}
        if head[4:8] == b"ftyp"
        else ()
    )
    if HEIC_BRANDS.intersection(brands):
        require("pillow_heif", "heif").register_heif_opener()
        return ("HEIF",)
    if {b"avif", b"avis"}.intersection(brands):
        Image.init()
        if "AVIF" not in Image.OPEN:
            raise ImageError(path, "AVIF needs a newer Pillow; install it with: pip install 'pillow>=11.3'")
        return ("AVIF",)
    return FORMATS


def _without_metadata(content: Path | BinaryIO) -> BinaryIO | None:
    """A PNG, AVIF or HEIC with its pixels but without color profile, texts and EXIF data; None for other files.

    Pillow refuses a PNG with large or damaged texts or profiles, and an AVIF with damaged EXIF data. For the former,
    only a global setting would change this.
    """
    with _stream(content) as file:
        size = file.seek(0, os.SEEK_END)
        if size > MAX_BYTES:
            return None
        file.seek(0)
        start = file.read(8)
        if start[4:] == b"ftyp":
            rest = re.sub(rb"(infe[\x02\x03].{7,9})Exif", rb"\1skip", file.read(), flags=re.DOTALL)
            return io.BytesIO(start + rest)  # items of unknown type are left alone
        if start != b"\x89PNG\r\n\x1a\n":
            return None
        kept = io.BytesIO()
        kept.write(start)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big") + 4  # with the checksum
            if head[4:] in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"):
                kept.write(head + file.read(min(length, size)))
            else:
                file.seek(length, os.SEEK_CUR)
    return kept


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about large images, which are allowed here, and damaged EXIF data, which is ignored."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_memory(path: Path, image: PillowFile, size: tuple[int, int], most: int) -> None:
    """Refuse the image if reading it takes more memory; ``size`` is that of the file, ``image`` may be drafted."""
    pixels = image.width * image.height
    own = pixels * (1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4)
    own *= 1 + any(_raw_mode(tile) in LOW_BYTES for tile in image.tile)
    result = 4 * pixels / _factor(image) ** 2
    needed = own + max(result, size[0] * size[1] * _decoder_bytes(image))
    if needed > most:
        raise ImageError(
            path,
            f"{size[0]} x {size[1]} pixels take {needed / 1e6:,.0f} MB of memory, more than the {most / 1e6:,.0f} "
            "that one image may take; make it smaller",
        )


def _decoder_bytes(image: Image.Image) -> float:
    """Bytes per pixel that the decoder needs beside the image."""
    if image.info.get("progressive"):  # libjpeg keeps all coefficients, even with a draft
        parts: list[int] = [high * wide for _, high, wide, _ in image.layer]  # type: ignore[attr-defined]
        return 2 * sum(parts) / max(parts)
    if isinstance(image, TiffImageFile):
        height: int = image.tag_v2[ExifTags.Base.ImageLength]
        rows: int = image.tag_v2.get(ExifTags.Base.RowsPerStrip, height)
        bits: int = sum(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
        turned: bool = image.tag_v2.get(ExifTags.Base.Orientation, 1) != 1  # Pillow copies it
        return min(1.0, rows / height) * bits / 8 + 4 * turned
    return _DECODERS.get(image.format, 0)


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """``image`` turned as the EXIF orientation of ``source`` says, or as it is if that is damaged."""
    with suppress(Exception), no_warnings():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = source.getexif().get(ExifTags.Base.Orientation, 1)
        image.info["exif"] = exif.tobytes()
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _factor(image: Image.Image) -> int:
    return max(1, min(image.size) // MIN_SHORT_SIDE)


def _to_rgb(image: Image.Image, low: Image.Image | None = None) -> Image.Image:
    """A new image in RGB, a large one reduced by a whole factor; in strips, so that only the result takes memory.

    ``low`` holds the lower bytes of an image of which ``image`` holds the upper ones.
    """
    factor = _factor(image)
    early = low is None and image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") and "transparency" not in image.info
    levels = _levels(image, low) if low or image.mode.startswith("I") or image.mode == "F" else None
    rows = factor * max(1, _STRIP // (image.width * factor))
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box)
        if early and factor > 1:
            strip = strip.reduce(factor)
        if levels:
            strip = Image.fromarray(levels.to_bytes(_values(strip, levels.unsigned, low and low.crop(box))))
        strip = _convert(strip)
        small.paste(strip if early or factor == 1 else strip.reduce(factor), (0, top // factor))
    return small


def _convert(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        layer = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layer, mask=layer.getchannel("A"))
        return paper
    return image.convert("RGB")


@dataclass(frozen=True)
class _Levels:
    """How values of 16 or 32 bits or floats are mapped to 0..255; Pillow's conversion would clip or darken them."""

    low: float
    span: float
    unsigned: bool
    inverted: bool

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """The values of a strip (H, W) or (H, W, C) as uint8; outliers are clipped, and NaN is black."""
        values = np.nan_to_num(values.astype(np.float64), nan=self.low)
        scaled = np.rint(np.clip((values - self.low) / self.span, 0, 1) * 255).astype(np.uint8)
        return 255 - scaled if self.inverted else scaled


def _levels(image: Image.Image, low: Image.Image | None) -> _Levels:
    """The usual range that contains the values, such as that of 12 bits, or else their own range.

    One value in a thousand may lie outside at each end, so that a dead pixel does not make all others black.
    """
    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and bool(tags) and tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # WhiteIsZero: Pillow inverts only up to 8 bits
    values = _values(_sample(image), unsigned, low and _sample(low))
    values = values[..., :3] if low else values[np.isfinite(values)]  # transparency uses the whole range
    if not values.size:
        return _Levels(0, 1, unsigned, inverted)
    least, most = (float(value) for value in np.percentile(values, OUTLIERS, method="nearest"))
    usual = (1, 255) if image.mode == "F" else TOPS
    if least >= 0 and most <= usual[-1]:
        return _Levels(0, next(top for top in usual if most <= top), unsigned, inverted)
    return _Levels(least, most - least or 1.0, unsigned, inverted)


def _sample(image: Image.Image) -> Image.Image:
    return image.resize((min(image.width, 1024), min(image.height, 1024)), Image.Resampling.NEAREST)


def _values(image: Image.Image, unsigned: bool, low: Image.Image | None) -> np.ndarray:
    values = np.asarray(image)
    if low:
        values = values.astype(np.uint16) * 256 + np.asarray(low)
    return values.view(np.uint32) if unsigned else values  # Pillow's mode I is signed, and larger values wrap


def _no_such_file(path: Path) -> str:
    """The reason, with the name of a file beside it that differs only in capitals, if there is one."""
    try:
        with os.scandir(path.parent) as entries:
            near = in_other_capitals(path.name, [entry.name for entry in itertools.islice(entries, NEIGHBORS)])
    except OSError:
        near = None
    return f"no such file; did you mean {near}?" if near else "no such file"


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return _no_such_file(path)
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a format that is read ({FORMAT_NAMES}), or badly damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that are opened"
    if isinstance(error, MemoryError):
        return "not enough memory to open it"
    if isinstance(error, MissingDependency):
        return str(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"the file is truncated: {text}" if "truncated" in text.lower() else f"the file is damaged: {text}"
