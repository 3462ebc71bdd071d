"""Extract the features of image files or videos into a feature store; worker processes read and prepare them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from captioner.backbones.backbone import Backbone, split
from captioner.backbones.onnx import fastest_backbone
from captioner.backbones.spec import BackboneSpec, normalize, pixels, ten_crops
from captioner.data.images import ImageFile, open_image
from captioner.errors import DataError, ImageError, UsageError
from captioner.features.format import DTYPES
from captioner.features.video_spec import VideoSpec, video_views
from captioner.features.writer import FeatureWriter

PRECISIONS = ("float32", "bfloat16")
Batch = tuple[list[str], np.ndarray, list[ImageError]]
"""Ids, images (N, C, S, S, 3) uint8, and the errors of unreadable images. C is the number of crops of an image, or of
frames of a video."""


@dataclass
class ExtractReport:
    """The counts and errors of an extraction."""

    done: int = 0
    """Number of images whose features were added."""
    skipped: int = 0
    """Number of images whose features were already in the store."""
    failed: list[ImageError] = field(default_factory=list)
    """Images that could not be found or read."""


class _Images(Dataset[tuple[str, np.ndarray | ImageError]]):
    """Prepared images: (id, crops or frames (C, S, S, 3) uint8), or (id, error)."""

    def __init__(self, files: Sequence[ImageFile], spec: BackboneSpec, crops: int, mirror: bool) -> None:
        self.files, self.spec, self.crops, self.mirror = files, spec, crops, mirror

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray | ImageError]:
        file = self.files[index]
        try:
            return file.id, prepare_views(file.path, self.spec, self.crops, self.mirror)
        except ImageError as error:
            return file.id, error
        except DataError as error:  # from a video
            return file.id, ImageError(file.path, str(error).removeprefix(f"{file.path}: "))


def prepare_views(path: Path, spec: BackboneSpec, crops: int, mirror: bool) -> np.ndarray:
    """The image or video, or its mirror image, as (C, S, S, 3) uint8; raises ``DataError`` if it cannot be read."""
    if isinstance(spec, VideoSpec):
        return video_views(path, spec, mirror)
    image = open_image(path)
    prepared = ten_crops(image, spec) if crops == 10 else pixels(image, spec)[None]
    return prepared[:, :, ::-1] if mirror else prepared


def extract(
    sources: Iterable[ImageFile | ImageError],
    backbone: Backbone,
    output: str | Path,
    *,
    crops: int = 1,
    mirror: bool = False,
    video: VideoSpec | None = None,
    workers: int = 2,
    batch_size: int = 32,
    part: tuple[int, int] = (1, 1),
    dtype: str = "float16",
    precision: str = "float32",
    device: str | torch.device = "cpu",
    context: BaseContext | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Add the features of ``sources`` (from ``find_named``) that the store ``output`` lacks.

    ``crops`` is 1 (the whole prepared image) or 10 (corners, center and their mirror images, averaged); ``mirror``
    mirrors the one crop. With ``video``, the backbone's ``VideoSpec``, the sources are videos. ``part`` (i, n) takes
    every n-th image from the i-th on; ``output`` is then a folder that n processes fill. ``precision`` bfloat16 runs
    the network under autocast. ``progress`` is called with the number of images done and their total. Unreadable images
    are reported, not raised. Raises ``UsageError`` for options out of range, and ``FeatureStoreError`` as
    ``FeatureWriter`` does.
    """
    check_options(crops, mirror, precision, dtype, workers, batch_size)
    report = ExtractReport()
    files = _select(sources, part, report)
    if not files:
        return report
    path = _part_file(Path(output), part)
    spec, digest = video or backbone.spec, backbone.weights_digest
    with FeatureWriter(
        path, spec, digest, dtype, crops=crops, mirrored=mirror, precision=precision, part=part
    ) as writer:
        todo = set(writer.plan(file.id for file in files))
        report.skipped = len(files) - len(todo)
        images = _Images([file for file in files if file.id in todo], spec, crops, mirror)
        count = len(images) * max(crops, spec.frames)
        backbone = fastest_backbone(backbone, count, device=device, precision=precision)
        backbone = backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        processed = 0
        for ids, pixels, errors in _batches(images, workers, max(1, batch_size // max(crops, spec.frames)), context):
            if ids:
                features = compute_features(backbone, pixels, precision, device)  # (N, C, D)
                for name, item in zip(ids, features if video else features.mean(1), strict=True):
                    writer.add(name, item)
            report.failed += errors
            report.done += len(ids)
            processed += len(ids) + len(errors)
            if progress is not None:
                progress(processed, len(images))
    return report


def check_options(crops: int, mirror: bool, precision: str, dtype: str, workers: int, batch_size: int) -> None:
    """Raise ``UsageError`` for an option of ``extract`` that is out of range."""
    if crops not in (1, 10):
        raise UsageError(f"crops must be 1 or 10, not {crops}")
    if mirror and crops == 10:
        raise UsageError("ten crops already contain mirror images; use mirror with one crop")
    if precision not in PRECISIONS:
        raise UsageError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    if dtype not in DTYPES:
        raise UsageError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    if not (0 <= workers <= 256 and 1 <= batch_size <= 1024):
        raise UsageError(f"workers ({workers}) must be between 0 and 256, batch size ({batch_size}) between 1 and 1024")


def _select(sources: Iterable[ImageFile | ImageError], part: tuple[int, int], report: ExtractReport) -> list[ImageFile]:
    """The files of this part, each id once; errors are reported by the first part.

    A missing file is an error and, unlike an unreadable image, gets no row in the store.
    """
    paths: dict[str, Path] = {}
    for source in sources:
        if isinstance(source, ImageFile):
            source = _checked(source)
        if isinstance(source, ImageError):
            report.failed += [source] if part[0] == 1 else []
            continue
        known = paths.setdefault(source.id, source.path)
        if known != source.path and os.path.realpath(known) != os.path.realpath(source.path):
            raise UsageError(f"{known} and {source.path} would share the id {source.id}; give the folder above both")
    files = [ImageFile(path, name) for name, path in paths.items()]
    return files[part[0] - 1 :: part[1]]


def _checked(file: ImageFile) -> ImageFile | ImageError:
    """The file, or the reason why it can have no row in a store."""
    try:
        file.id.encode()
        file.path.stat()
    except UnicodeEncodeError:
        return ImageError(file.path, "the file's name is not UTF-8, as ids in a store must be; rename the file")
    except FileNotFoundError:
        return ImageError(file.path, "no such file")
    except (OSError, ValueError) as error:  # a name that is too long, a folder without permission, a NUL in the name
        return ImageError(file.path, getattr(error, "strerror", None) or str(error))
    return file


def _part_file(output: Path, part: tuple[int, int]) -> Path:
    """The file that this part writes: ``output`` itself, or a file in the folder ``output``."""
    if part[1] == 1:
        return output
    if output.is_file():
        raise UsageError(f"{output} is a file; parts are written into a folder")
    for other in sorted(output.glob("part-*-of-*.h5*")):
        if f"-of-{part[1]:03d}.h5" not in other.name:
            raise UsageError(f"{output} holds {other.name}, of other parts than n/{part[1]}; use another folder")
    return output / f"part-{part[0]:03d}-of-{part[1]:03d}.h5"


def _batches(images: _Images, workers: int, batch_size: int, context: BaseContext | str | None) -> Iterator[Batch]:
    if not len(images):  # nothing is missing
        return iter(())
    loader = DataLoader(
        images,
        batch_size=batch_size,
        num_workers=min(workers, len(images)),
        collate_fn=_collate,
        multiprocessing_context=context if workers else None,
        worker_init_fn=_end_with_parent,
    )
    return iter(loader)


def _end_with_parent(_: int) -> None:
    """End this worker within a second of its parent's death; otherwise it would wait for ever to return its batch."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _collate(items: Sequence[tuple[str, np.ndarray | ImageError]]) -> Batch:
    """A batch of arrays, not tensors: arrays go through a pipe and need no shared memory, which containers limit."""
    good = [(name, value) for name, value in items if isinstance(value, np.ndarray)]
    errors = [value for _, value in items if isinstance(value, ImageError)]
    return [name for name, _ in good], np.stack([value for _, value in good]) if good else np.empty(0), errors


@torch.no_grad()
def compute_features(backbone: Backbone, batch: np.ndarray, precision: str, device: str | torch.device) -> np.ndarray:
    """Features (N, C, D) float32 of images (N, C, S, S, 3) uint8."""
    flat = torch.from_numpy(batch).flatten(0, 1).to(device)  # (N * C, S, S, 3)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [backbone(normalize(part, backbone.spec)).float() for part in split(flat, device)]
    vectors: np.ndarray = torch.cat(parts).view(*batch.shape[:2], -1).cpu().numpy()  # (N, C, D)
    return vectors
