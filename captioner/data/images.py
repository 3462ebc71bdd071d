"""Find image files and open them upright in RGB; what cannot be read raises ``ImageError`` with a short reason."""

from __future__ import annotations

import glob
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from captioner.errors import ImageError

MAX_PIXELS = 128_000_000
"""Larger images are refused: at 4 bytes a pixel this is half a gigabyte while one is decoded."""
MIN_SHORT_SIDE = 1024
"""Large images are reduced by a whole factor while they are read; the shorter side keeps at least so many pixels."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read, whatever a file is called. Its other plugins are never asked: that of
EPS runs the file as a program; those of HDF5, BUFR, GRIB and WMF call any handler that is registered."""
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm".split())
"""Suffixes of the files that are taken from a folder; a file that is named itself may have any."""
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
            return _to_rgb(_shrink(_upright(source)))
        _check_file(path)
        with _open(path) as image:
            _check_size(path, image.size)
            if image.format == "JPEG":
                image.draft(None, (MIN_SHORT_SIDE, MIN_SHORT_SIDE))  # decodes at 1/2, 1/4 or 1/8, never below this
            image.load()
            with suppress(Exception), _no_warnings():  # an image with damaged EXIF data stays as it is
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(_shrink(image))
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


def _open(path: Path) -> Image.Image:
    """Read the header only."""
    with _no_warnings():
        return Image.open(path, formats=FORMATS)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of large images, which are allowed here, and of damaged EXIF data, which is ignored."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_size(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(path, f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are opened")


def _upright(image: Image.Image) -> Image.Image:
    """A copy turned as the EXIF orientation says; the image itself if its EXIF data is damaged."""
    with suppress(Exception), _no_warnings():
        return ImageOps.exif_transpose(image)
    return image


def _shrink(image: Image.Image) -> Image.Image:
    """A large image reduced by a whole factor, before it is copied from one color mode to another."""
    factor = min(image.size) // MIN_SHORT_SIDE
    return image.reduce(factor) if factor > 1 and image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        layer = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layer, mask=layer.getchannel("A"))
        return paper
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Gray values of 16 or 32 bits or floats, (H, W), scaled to 0..255; Pillow's conversion would clip them."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        top = 1.0 if values.max(initial=0) <= 1 else 255.0
    else:
        top = 65535.0
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or high > top:  # not a usual range: scale the range that the values have
        values, top = values - low, high - low
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a format that is read ({FORMAT_NAMES}), or badly damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {MAX_PIXELS:,} pixels that are opened"
    if isinstance(error, MemoryError):
        return "not enough memory to open it"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"the file is truncated: {text}" if "truncated" in text.lower() else f"the file is damaged: {text}"
