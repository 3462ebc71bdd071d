"""Find image files and open them upright in RGB; what cannot be read raises ``ImageError`` with a short reason."""

from __future__ import annotations

import glob
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from captioner.errors import ImageError

MAX_BYTES = 2**29
"""Images that take more memory while they are read are refused: half a gigabyte, counted by mode and format."""
MIN_SHORT_SIDE = 1024
"""Large images are reduced by a whole factor while they are read; the shorter side keeps at least so many pixels."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read, whatever a file is called. Its other plugins are never asked: that of
EPS runs the file as a program; those of HDF5, BUFR, GRIB and WMF call any handler that is registered."""
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm".split())
"""Suffixes of the files that are taken from a folder; a file that is named itself may have any."""
_STRIP = 1 << 20  # pixels that are converted at a time
_DECODERS: dict[str | None, float] = {"WEBP": 12.2, "AVIF": 5.4, "HEIF": 4.3}
"""Bytes a pixel that a decoder takes beside the image, measured with images of 24 megapixels in three bands."""
_warning_filters = threading.Lock()  # they belong to the whole process


@dataclass(frozen=True)
class ImageFile:
    """An image file and its id in a feature store."""

    path: Path
    id: str
    """Path below the folder that was given, with ``/`` and suffix; the file's name if the file itself was given."""


def open_image(source: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """The image upright and in RGB: transparency on white, the first frame of an animation.

    Raises ``ImageError`` with a short reason for anything that cannot be read as an image.
    """
    path = Path(getattr(source, "filename", "") or "image") if isinstance(source, Image.Image) else Path(source)
    try:
        if isinstance(source, Image.Image):
            source.load()
            return _upright(_to_rgb(source), source)
        _check_file(path)
        try:
            return _read(path, path)
        except (ImageError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:
            pixels = _without_metadata(path)
            if pixels is None:
                raise
            return _read(path, pixels)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error on damaged files
        raise ImageError(path, _reason(error)) from error


def find_images(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[Path | ImageError]:
    """Paths of the images that ``arguments`` name, in order; an ``ImageError`` for each argument that names none.

    An argument is a file, a folder (searched with its subfolders, sorted, without hidden files), a glob pattern, or
    ``-`` for one path per line of ``stdin``. An image named by two arguments is yielded twice.
    """
    for found in find_named(arguments, stdin):
        yield found if isinstance(found, ImageError) else found.path


def find_named(arguments: Iterable[str], stdin: Iterable[str] = ()) -> Iterator[ImageFile | ImageError]:
    """Like ``find_images``, with the id of each image in a feature store."""
    for argument in arguments:
        if argument == "-":
            for line in stdin:
                if line.strip():
                    yield from _expand(line.rstrip("\r\n"))
        else:
            yield from _expand(argument)


def _expand(argument: str) -> Iterator[ImageFile | ImageError]:
    if os.path.lexists(argument) or not glob.has_magic(argument):
        yield from _folder(Path(argument)) if os.path.isdir(argument) else [_file(Path(argument))]
        return
    matches = sorted(set(glob.glob(argument, recursive=True)))
    if not matches:
        yield ImageError(argument, "no file matches this pattern")
    seen: set[Path] = set()  # ** names a folder and the files in it
    for match in matches:
        inside = _folder(Path(match)) if os.path.isdir(match) else [_file(Path(match))]
        for found in inside:
            if isinstance(found, ImageFile) and found.path not in seen:
                seen.add(found.path)
                yield found
            elif isinstance(found, ImageError) and not os.path.isdir(match):
                yield found


def _file(path: Path) -> ImageFile:
    return ImageFile(path, path.name)


def _folder(folder: Path) -> Iterator[ImageFile | ImageError]:
    """Images below ``folder``, sorted by their path in it."""
    problems: list[ImageError] = []

    def note(error: OSError) -> None:
        problems.append(ImageError(error.filename or folder, f"the folder cannot be read: {error.strerror}"))

    names = []
    for root, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                names.append(Path(root, name).relative_to(folder).as_posix())
    yield from problems
    if not names and not problems:
        yield ImageError(folder, "no images in this folder")
    for name in sorted(names):
        yield ImageFile(folder / name, name)


def _check_file(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty")


def _read(path: Path, file: Path | BinaryIO) -> Image.Image:
    with _open(file) as image:
        size = image.size
        image.draft(None, (MIN_SHORT_SIDE, MIN_SHORT_SIDE))  # JPEG decodes at 1/2, 1/4 or 1/8, never below this
        _check_memory(path, image, size)
        image.load()
        return _upright(_to_rgb(image), image)


def _open(file: Path | BinaryIO) -> Image.Image:
    """Read the header only."""
    with _no_warnings():
        return Image.open(file, formats=FORMATS)


def _without_metadata(path: Path) -> BinaryIO | None:
    """The chunks of a PNG that make its pixels, without color profile and texts; None for other files.

    Pillow refuses a PNG whose texts or profile are large or damaged. Only its global settings would lift that.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    with path.open("rb") as file:
        start = file.read(8)
        if start != b"\x89PNG\r\n\x1a\n":
            return None
        kept = io.BytesIO()
        kept.write(start)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big") + 4  # and the checksum
            if head[4:] in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"):
                kept.write(head + file.read(length))
            else:
                file.seek(length, os.SEEK_CUR)
    return kept


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of large images, which are allowed here, and of damaged EXIF data, which is ignored."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_memory(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse the image if reading it takes too much memory; ``size`` is that of the file, ``image`` may be drafted."""
    pixels = image.width * image.height
    own = pixels * (1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4)
    result = 4 * pixels / _factor(image) ** 2
    needed = own + max(result, size[0] * size[1] * _decoder_bytes(image))
    if needed > MAX_BYTES:
        raise ImageError(
            path,
            f"{size[0]} x {size[1]} pixels take {needed / 1e6:,.0f} MB of memory, more than the {MAX_BYTES / 1e6:,.0f} "
            "that one image may take; make it smaller",
        )


def _decoder_bytes(image: Image.Image) -> float:
    """Bytes a pixel that the decoder takes beside the image."""
    if image.info.get("progressive"):  # libjpeg holds all coefficients, whatever the draft
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
    with suppress(Exception), _no_warnings():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = source.getexif().get(ExifTags.Base.Orientation, 1)
        image.info["exif"] = exif.tobytes()
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _factor(image: Image.Image) -> int:
    return max(1, min(image.size) // MIN_SHORT_SIDE)


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new image in RGB, a large one reduced by a whole factor; in strips, so that only the result takes memory."""
    factor = _factor(image)
    early = image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") and "transparency" not in image.info
    levels = _levels(image) if image.mode.startswith("I") or image.mode == "F" else None
    rows = factor * max(1, _STRIP // (image.width * factor))
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        if early and factor > 1:
            strip = strip.reduce(factor)
        strip = _convert(Image.fromarray(levels.to_bytes(strip)) if levels else strip)
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
    """How gray values of 16 or 32 bits or floats become 0..255; Pillow's conversion would clip them."""

    low: float
    span: float
    unsigned: bool
    inverted: bool

    def to_bytes(self, image: Image.Image) -> np.ndarray:
        """The values of a strip (H, W) as uint8; outliers are clipped, and what is no number is black."""
        values = np.nan_to_num(_values(image, self.unsigned).astype(np.float64), nan=self.low)
        scaled = np.rint(np.clip((values - self.low) / self.span, 0, 1) * 255).astype(np.uint8)
        return 255 - scaled if self.inverted else scaled


def _levels(image: Image.Image) -> _Levels:
    """The usual range that holds the values, such as that of 12 bits, or else the range that they have.

    One value in a thousand may lie outside at either end: a dead pixel must not make the others black.
    """
    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and bool(tags) and tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # WhiteIsZero: Pillow turns only 8 bits and less
    sample = image.resize((min(image.width, 1024), min(image.height, 1024)), Image.Resampling.NEAREST)
    values = _values(sample, unsigned)
    values = values[np.isfinite(values)]
    if not values.size:
        return _Levels(0, 1, unsigned, inverted)
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9), method="nearest"))
    usual = (1, 255) if image.mode == "F" else (255, 1023, 4095, 16383, 65535)
    if low >= 0 and high <= usual[-1]:
        return _Levels(0, next(top for top in usual if high <= top), unsigned, inverted)
    return _Levels(low, high - low or 1.0, unsigned, inverted)


def _values(image: Image.Image, unsigned: bool) -> np.ndarray:
    values = np.asarray(image)
    return values.view(np.uint32) if unsigned else values  # Pillow's mode I is signed, and larger values wrap


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a format that is read ({FORMAT_NAMES}), or badly damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that are opened"
    if isinstance(error, MemoryError):
        return "not enough memory to open it"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"the file is truncated: {text}" if "truncated" in text.lower() else f"the file is damaged: {text}"
