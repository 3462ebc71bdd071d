"""Features for the images of a shard, as ``captioner extract`` computes them, and conversion to and from stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from captioner.backbones import load_backbone
from captioner.backbones.onnx import fastest_backbone
from captioner.backbones.spec import BackboneSpec
from captioner.devices import find_device
from captioner.errors import ImageError, UsageError
from captioner.features.extract import check_options, compute_features, prepare_views
from captioner.features.shards import RUN, SETTINGS, parse_run, read_shard
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from captioner.optional import require
from captioner.places import Folder, mark
from captioner.predictors.streams import batches, prefetch
from captioner.scale.job import Job, read_record, run_shard, start_run
from captioner.scale.outputs import Fields
from captioner.scale.rows import Row, Spool
from captioner.scale.shards import SHARD_SIZE, Shard

LARGEST = float(np.finfo(np.float16).max)
READ_AT_ONCE = 1024
"""Rows that are read at a time from a store."""


class Features:
    """Computes the features of a backbone for the images of rows."""

    def __init__(
        self,
        backbone: str,
        weights: Path | None,
        crops: int = 1,
        mirror: bool = False,
        precision: str = "float32",
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        check_options(crops, mirror, precision, "float16", 0, batch_size)
        self._device = find_device(device)
        network = load_backbone(backbone, weights)
        # As for a single image, so that no worker writes a graph of its own.
        self._backbone = fastest_backbone(network, 1, device=self._device, precision=precision)
        self._crops, self._mirror, self._precision = crops, mirror, precision
        self._size = max(1, batch_size // crops)
        self._digest = self._backbone.weights_digest
        self._backbone.to(self._device)
        self.columns: Mapping[str, str] = {"features": f"float16[{self._backbone.spec.dimension}]"}

    def settings(self) -> dict[str, Any]:
        """The settings that a feature store records."""
        spec: BackboneSpec = self._backbone.spec
        options = {"crops": self._crops, "mirrored": self._mirror, "precision": self._precision}
        return {"spec": spec.to_dict(), "weights_digest": self._digest, **options}

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        """Yield each row with its feature, (D,) float16, or with an error."""
        with Spool() as spool, closing(prefetch(partial(self._prepare, spool), rows, self._size)) as prepared:
            for batch in batches(prepared, self._size):
                good = [views for _, views in batch if not isinstance(views, ImageError)]
                found = iter(self._compute(good) if good else ())
                for row, views in batch:
                    if isinstance(views, ImageError):
                        yield row, [], views.reason
                    else:
                        yield row, *_checked(next(found))

    def _prepare(self, spool: Spool, row: Row) -> tuple[Row, np.ndarray | ImageError]:
        """The row without its bytes, with its crops (C, S, S, 3) uint8 or its error."""
        image = spool.place(row)
        try:
            if isinstance(image, ImageError):
                return Row(row.key), image
            return Row(row.key), prepare_views(image, self._backbone.spec, self._crops, self._mirror)
        except ImageError as error:
            return Row(row.key), error
        finally:
            spool.remove(image)

    def _compute(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Features (N, D) float32."""
        found: np.ndarray = compute_features(self._backbone, np.stack(views), self._precision, self._device).mean(1)
        return found


def _checked(feature: np.ndarray) -> tuple[Sequence[Fields], str]:
    if not np.isfinite(feature).all() or np.abs(feature).max(initial=0) > LARGEST:
        return [], "the feature is not finite, or too large for float16; try --precision float32"
    return [{"features": feature.astype(np.float16)}], ""


def export_features(source: Path, output: str) -> int:
    """Write a feature store as a finished run on shards, for ``import_features``; returns the number of features.

    Raises ``UsageError`` for stores of videos or of float32, which shards cannot hold.
    """
    store = FeatureStore(source, mirrored=None)
    if store.spec.frames or store.dtype != "float16":
        raise UsageError(f"{source}: shards hold features of images in float16; this store has others")
    work = _Stored(store)
    job = Job("extract", {}, work.settings(), output, "parquet")
    whole = Shard("store", str(source), mark=mark(str(source)))
    firsts = enumerate(range(0, len(store), SHARD_SIZE))
    shards = [replace(whole, name=f"{number:05d}", first=first, count=SHARD_SIZE) for number, first in firsts]
    for shard in start_run(job, shards):
        run_shard(shard, job, work)
    return len(store)


class _Stored:
    """Reads the features of rows from a store."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.columns: Mapping[str, str] = {"features": f"float16[{store.spec.dimension}]"}

    def settings(self) -> dict[str, Any]:
        summary = self._store.summary()
        options = {name: kind(summary[name]) for name, kind in SETTINGS.items()}
        return {"spec": self._store.spec.to_dict(), "weights_digest": self._store.weights_digest, **options}

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        for batch in batches(rows, READ_AT_ONCE):
            for row, feature in zip(batch, self._store.get([row.key for row in batch]), strict=True):
                yield row, *_checked(feature)


def import_features(source: str, output: Path) -> tuple[int, int]:
    """Write the features of a run on shards into the store ``output``; returns the numbers of features and failures.

    Raises ``UsageError`` for a run that is unfinished or holds no features, and ``DataError`` for damaged files.
    """
    folder = Folder(source)
    names = folder.names()
    run = parse_run(read_record(folder, RUN, {"shards": int}) if RUN in names else None, source)
    missing = next((number for number in range(run.shards) if f"{number:05d}.json" not in names), None)
    if missing is not None:
        raise UsageError(f"{source}: shard {missing:05d} is not done; finish the run first")
    counts = [0, 0]
    buffer = require("pyarrow", "scale").BufferReader
    with FeatureWriter(output, run.spec, run.weights_digest, **run.options) as writer:
        for number in range(run.shards):
            name = f"{number:05d}.parquet"
            found = read_shard(buffer(folder.read(name)), f"{source}/{name}", run.spec.dimension)
            for key, good, feature in zip(*found, strict=True):
                writer.plan([key])
                counts[not good] += 1
                if good:
                    writer.add(key, feature)
    return counts[0], counts[1]
