"""The server's computations: captions, classes, first layers and searches, with one open model and index."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from captioner.data.images import open_image
from captioner.decoding.config import DecodingConfig
from captioner.errors import CaptionerError, CheckpointError, ImageError, SearchIndexError
from captioner.explain import kernel_tiles, map_tiles, sheet
from captioner.predictors.base import Caption, ClassScore
from captioner.predictors.classifier import ImageClassifier, class_layer, load_classifier
from captioner.predictors.images import BatchCaptioner
from captioner.search.contact_sheet import to_jpeg
from captioner.search.index import DATABASE, Entry, Index, connect, database_errors
from captioner.search.models import check_model, made_by, models_of
from captioner.search.query import Match, by_sentence, similar, unit

ALTERNATIVES, CLASSES, SIMILAR = 3, 5, 8
"""Numbers of captions, classes and similar images that are shown for an image."""
RANKINGS = {0.0: "and their probabilities as whole sentences", 1.0: "and the mean probability of a word in each"}
"""How the page explains captions' scores, by the length penalty that ranks them."""
IMAGE_MEMORY = 2**28
"""Most bytes of memory for reading one image."""
LARGEST_FILE = 2**28
"""Largest file, in bytes, that is served from the index."""
THUMBNAILS = 1000
"""Thumbnails that are kept in memory, about 15 kB each."""
PREVIEW = 1024
"""Largest side in pixels of an uploaded image when it is displayed."""
CHECK_SECONDS = 2.0
"""Seconds between two checks of the index for changes."""
TYPES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}
"""Media types by the first bytes of a file."""


class Alternative(NamedTuple):
    """A caption, and the score that its model ranks it by."""

    caption: Caption
    score: float | None
    """exp(log probability / length ** length penalty): with penalty 0 the sentence's probability, with 1 the geometric
    mean of its words'."""


class Described(NamedTuple):
    """The results for an image."""

    captions: list[Alternative]
    """Best first."""
    classes: tuple[ClassScore, ...]
    """The most probable classes, best first; empty if the model has no classes."""
    similar: Sequence[Match]
    """Images of the index."""


class FirstLayerImages(NamedTuple):
    """Images that show the first convolution."""

    kernels: Image.Image
    maps: Image.Image


@dataclass(frozen=True)
class Summary:
    """A summary of the index, for the page."""

    count: int
    problem: str
    """Why there is no index, or empty."""


class Engine:
    """A captioner and an index, used by several threads."""

    def __init__(self, captioner: BatchCaptioner, folder: Path, device: str = "cpu") -> None:
        """``folder`` may have no index yet; raises ``SearchIndexError`` for an index by another captioner."""
        self.captioner, self.embedder = models = models_of(captioner, device)
        self.model = made_by(models)
        self._layer = class_layer(self.embedder.runtime, self.embedder.name)
        self._classifier: ImageClassifier | None = None
        with suppress(CheckpointError):  # a network without classes is no error; none are shown
            self._classifier = load_classifier(self.embedder.name)
        self._index = LiveIndex(folder, self)
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._lock, self._captioning = threading.Lock(), threading.Lock()
        self.embedder.load_networks()

    @property
    def ranking(self) -> str:
        """What the captions' scores mean."""
        config = self.captioner.decoding_config({})
        penalty = config.length_penalty if self.captioner is self.embedder and config.method == "beam" else 0.0
        return RANKINGS.get(penalty, f"and their probabilities, to the power of 1 / length ** {penalty:g}")

    @property
    def summary(self) -> Summary:
        try:
            return Summary(len(self._index.get()), "")
        except SearchIndexError as error:
            return Summary(0, str(error))

    def describe(self, image: Image.Image, digest: str, top: int = SIMILAR) -> Described:
        """Captions, classes and similar images for an RGB image; ``digest`` is the SHA-256 of its file."""
        features = self._features(image)
        captions = self._captions(image, features)
        (classes,) = self._layer.best(features, CLASSES) if self._layer else [()]
        return Described(captions, classes, self._similar(features[0], digest, top))

    def similar_to(self, content: bytes, top: int, min_score: float) -> list[Match]:
        """Indexed images that are similar to the image in a file's bytes."""
        feature = self._features(read_image(content))[0]
        return similar(self._index.get(), unit(feature), top, min_score, digest=sha256_of(content))

    def similar_in_index(self, entry: Entry, top: int = SIMILAR, min_score: float = -1.0) -> list[Match]:
        """Indexed images that are similar to ``entry``."""
        index = self._index.get()
        (vector,) = index.vectors([entry])
        return similar(index, vector, top, min_score, without=entry)

    def search(self, sentence: str, top: int, min_score: float = 0.0) -> list[Match]:
        """Indexed images that match a sentence; raises ``SearchIndexError`` without an index."""
        return by_sentence(self._index.get(), self.embedder, sentence, top, min_score)

    def first_layer(self, image: Image.Image) -> FirstLayerImages | None:
        """Kernels and feature maps of the first convolution for an RGB image; None if the model cannot show them."""
        if self._classifier is None:
            return None
        kernels, maps = self._classifier.first_layer(image)
        return FirstLayerImages(sheet(kernel_tiles(kernels), 640, 16), sheet(map_tiles(maps), 640, 8))

    def page(self, first: int, count: int) -> list[Entry]:
        """Indexed images, newest files first; none without an index."""
        return self._index.get().page(first, count)

    def entry(self, id: int) -> Entry | None:
        """The indexed image with this id; None if there is none."""
        found = self._index.get().entries([id])
        return found[0] if found else None

    def content(self, entry: Entry) -> bytes:
        """The bytes of an indexed image; raises ``ImageError`` if they are not those that were indexed.

        So no other file of this machine can be read, wherever the path leads by now.
        """
        try:
            handle = os.open(entry.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(handle, "rb") as stream:
                size = os.fstat(handle).st_size
                content = stream.read(entry.size + 1) if size == entry.size <= LARGEST_FILE else b""
        except (OSError, ValueError):
            content = b""
        if sha256_of(content) != entry.digest or not content:
            raise ImageError(Path(entry.path).name, "has changed or disappeared since it was indexed; index it again")
        return content

    def thumbnail(self, entry: Entry) -> bytes:
        """A small JPEG of an indexed image."""
        with self._lock:
            if entry.digest in self._thumbnails:
                self._thumbnails.move_to_end(entry.digest)
                return self._thumbnails[entry.digest]
        found = to_jpeg(read_image(self.content(entry)))
        with self._lock:
            self._thumbnails[entry.digest] = found
            if len(self._thumbnails) > THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return found

    def close(self) -> None:
        self._index.close()

    def _features(self, image: Image.Image) -> np.ndarray:
        _, inputs = self.embedder.prepare(image)
        if isinstance(inputs, ImageError):
            raise inputs
        return self.embedder.encode([inputs])  # (1, D)

    def _captions(self, image: Image.Image, features: np.ndarray) -> list[Alternative]:
        """The captions of an image, given the embedder's features (1, D)."""
        config = self.captioner.decoding_config({})
        if config.method == "beam":
            config = replace(config, num_return_sequences=min(ALTERNATIVES, config.beam_size))
        if self.captioner is self.embedder:
            (found,) = self.embedder.decode(features, config)
            penalty = config.length_penalty if config.method == "beam" else 0.0
        else:
            found, penalty = self._published(image, config), 0.0  # their length in tokens is unknown
        ranked = [Alternative(one, score_of(one, penalty)) for one in found]
        return sorted(ranked, key=lambda one: -(one.score or 0.0))

    def _published(self, image: Image.Image, config: DecodingConfig) -> tuple[Caption, ...]:
        _, prepared = self.captioner.prepare(image)
        if isinstance(prepared, ImageError):
            raise prepared
        with self._captioning:  # the seed and transformers' logging are global settings
            (found,) = self.captioner.describe([prepared], config)
        if isinstance(found, ImageError):
            raise found
        return found

    def _similar(self, feature: np.ndarray, digest: str, top: int) -> list[Match]:
        try:
            return similar(self._index.get(), unit(feature), top, digest=digest)
        except SearchIndexError:  # another part of the page says that there is no index
            return []


class LiveIndex:
    """The current index; it is opened again when another process has changed it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder, self._engine = folder, engine
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._watch: sqlite3.Connection | None = None
        self._seen: tuple[int, int] | None = None
        self._checked = 0.0
        if (folder / DATABASE).is_file():
            try:
                self.get()
            except BaseException:
                self.close()
                raise

    def get(self) -> Index:
        """The index; raises ``SearchIndexError`` if there is none, or one by another captioner."""
        with self._lock:
            if self._index is None or time.monotonic() - self._checked > CHECK_SECONDS:
                self._refresh()
            assert self._index is not None
            return self._index

    def close(self) -> None:
        for one in (self._index, self._watch):
            if one is not None:
                one.close()

    def _refresh(self) -> None:
        now = self._state()
        if self._index is None or now != self._seen:
            opened = Index(self._folder)
            try:
                check_model(self._folder, opened.model, self._engine.model)
            except CaptionerError:
                opened.close()
                raise
            self._index, self._seen = opened, now  # the old one closes when no thread uses it any more
        self._checked = time.monotonic()

    def _state(self) -> tuple[int, int] | None:
        """Numbers that change whenever the index does; None if there is no index."""
        try:
            file = os.stat(self._folder / DATABASE).st_ino
        except OSError:
            return None
        with database_errors(self._folder):
            if self._watch is None or self._seen is None or self._seen[0] != file:
                if self._watch is not None:
                    self._watch.close()
                self._watch = connect(self._folder, readonly=True)
            return file, self._watch.execute("PRAGMA data_version").fetchone()[0]


def score_of(caption: Caption, penalty: float) -> float | None:
    """The score that beam search ranks a caption by, as a probability; None if the model gives none."""
    if caption.log_prob is None:
        return None
    return math.exp(caption.log_prob / (len(caption.text.split()) + 1) ** penalty)  # plus the end token


def sha256_of(content: bytes) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def read_image(content: bytes) -> Image.Image:
    """The RGB image of a file's bytes, within the server's limits; raises ``ImageError``."""
    return open_image(content, IMAGE_MEMORY)


def media_type(content: bytes) -> str:
    """The media type of an image file, by its content."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:8] == b"ftyp":
        return "image/avif" if content[8:12] in (b"avif", b"avis") else "image/heic"
    return next((kind for start, kind in TYPES.items() if content.startswith(start)), "application/octet-stream")
