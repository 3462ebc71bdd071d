"""Search in an index of images, compared with the unavoidable work.

Exact search is compared with the bare product of all vectors with the query, usearch's graph with exact search,
``captioner index`` with ``captioner caption`` on the same files, and a whole ``captioner search`` process with one
second. Vectors are drawn with the mean and covariance of real features: those of parts of the example photos, or of the
feature store named by CAPTIONER_BENCH_FEATURES.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.captioning import caption
from benchmarks.images import PHOTO, make_images
from benchmarks.measure import AT_MOST, Measurement, compare, once, rate, run_command, seconds
from benchmarks.startup import captioner_command
from captioner.predictors import load
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.search.index import connect, create, vector_path
from captioner.search.indexing import open_writer
from captioner.search.models import made_by, models_of
from captioner.search.vectors import (
    LARGEST_EXACT,
    ROWS,
    Approximate,
    Exact,
    VectorFile,
    build_graph,
    exact_rows,
    recall,
)

EXACT_TARGET, RECALL_TARGET, SPEED_TARGET, INDEXING_TARGET, START_TARGET = 1.3, 0.95, 50.0, 0.85, 1.0
QUERIES, TOP = 100, 10
MILLION = 1_000_000
"""Number of vectors for which ``SPEED_TARGET`` is meant."""


def measure_exact(count: int = 100_000, rounds: int = 7) -> list[Measurement]:
    """Milliseconds of an exact search among ``count`` vectors over those of the bare product."""
    vectors = draw(real_features(), count, 0)
    exact, query = Exact(vectors, np.arange(count)), vectors[0].copy()
    return [
        compare(
            f"exact search over a bare product, {count:,} vectors",
            "ms",
            lambda: 1000 * seconds(lambda: exact.search(query, TOP)),
            lambda: 1000 * seconds(lambda: vectors @ query),
            rounds=rounds,
            target=EXACT_TARGET,
            direction=AT_MOST,
        )
    ]


def measure_graph(count: int | None = None, rounds: int = 3) -> list[Measurement]:
    """Recall of the graph's 10 nearest among ``count`` vectors, and its searches per second over exact ones.

    ``count`` is by default CAPTIONER_BENCH_VECTORS, or 100,000. Vectors are on disk; queries are other draws. Exact
    search reads all vectors once, so for more than ``LARGEST_EXACT`` it is timed on that many, and scaled.
    """
    count = count or int(os.environ.get("CAPTIONER_BENCH_VECTORS", "100000"))
    features = real_features()
    queries = draw(features, QUERIES, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = VectorFile(Path(folder, "vectors"), queries.shape[1])
        for first in range(0, count, ROWS):
            file.append(first, draw(features, min(ROWS, count - first), 2 + first))
        rows, graph = np.arange(count), Path(folder, "graph")
        build_graph(graph, graph, file, rows, lambda done: None)
        found, some = Approximate.open(graph, file, rows, count), rows[:LARGEST_EXACT]
        share = recall(found, exact_rows(file, rows, queries, TOP), queries)
        exact = Exact(file.read(some), some)
        return [
            once(f"recall at 10 of the graph of {count:,} vectors", "share", share, 1, RECALL_TARGET),
            compare(
                f"graph over exact search, {count:,} vectors",
                "searches/s",
                rate(QUERIES, lambda: [found.search(query, TOP) for query in queries]),
                rate(QUERIES * len(some) / count, lambda: [exact.search(query, TOP) for query in queries]),
                rounds=rounds,
                target=SPEED_TARGET if count >= MILLION else None,
            ),
        ]


def measure_indexing(count: int = 256, batch_size: int = 64, rounds: int = 3, photo: Path = PHOTO) -> list[Measurement]:
    """Images per second that are indexed over those that are captioned, from the same files by the same model."""
    captioner = load()
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder, "images"), count, photo)
        return [
            compare(
                "indexing over captions alone, from files",
                "images/s",
                rate(count, lambda: index(captioner, Path(folder), batch_size)),
                rate(count, lambda: caption(captioner, images, batch_size)),
                rounds=rounds,
                target=INDEXING_TARGET,
            )
        ]


def measure_start(count: int = 10_000, rounds: int = 5) -> list[Measurement]:
    """Seconds of ``captioner search``, by a sentence and by an image, among ``count`` images, over one second."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fill(place, load(), draw(real_features(), count, 0))
        command = [*captioner_command(), "search", "--index", folder]
        asked = {"a sentence": "a dog in the snow", "an image": str(PHOTO)}
        return [
            compare(
                f"seconds of captioner search by {what} among {count:,} images",
                "s",
                lambda query=query: seconds(lambda: run_command([*command, query])),  # type: ignore[misc]
                lambda: 1.0,
                rounds=rounds,
                target=START_TARGET,
                direction=AT_MOST,
            )
            for what, query in asked.items()
        ]


def real_features(count: int = 2000) -> np.ndarray:
    """Features (N, D) of real images, with D below ``count``; otherwise their covariance would lack rank."""
    if store := os.environ.get("CAPTIONER_BENCH_FEATURES"):
        from captioner.features.store import FeatureStore

        opened = FeatureStore(store)
        return opened.get(opened.ids[:count])
    captioner = load()
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), count)
        batches = (images[first : first + 64] for first in range(0, count, 64))
        return np.concatenate([captioner.encode([captioner.prepare(one)[1] for one in some]) for some in batches])


def draw(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``count`` unit vectors (N, D) float32, drawn with the mean and covariance of ``features``."""
    generator = np.random.default_rng(seed)
    mean = features.mean(0)
    factor = ((features - mean) / np.sqrt(len(features))).astype(np.float32)  # factor.T @ factor is the covariance
    found = np.empty((count, features.shape[1]), np.float32)
    for first in range(0, count, ROWS):
        part = found[first : first + ROWS]
        part[:] = generator.standard_normal((len(part), len(features)), np.float32) @ factor + mean
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def index(captioner: LRCNCaptioner, folder: Path, batch_size: int) -> None:
    """Index ``folder/images`` into a new index."""
    with tempfile.TemporaryDirectory(dir=folder) as place, open_writer(Path(place), captioner) as writer:
        for change in writer.update([str(folder / "images")], batch_size=batch_size):
            assert change.kind == "added", change
        writer.finish()


def fill(folder: Path, captioner: LRCNCaptioner, vectors: np.ndarray) -> None:
    """An index of images that do not exist, with captions made of the vocabulary's words."""
    model = made_by(models_of(captioner))
    create(folder, model)
    words = np.array(captioner.checkpoint.outputs.to_list()[4:500])
    captions = [" ".join(words[some]) for some in np.random.default_rng(0).integers(0, len(words), (len(vectors), 9))]
    VectorFile(vector_path(folder, 0), model.dimension).append(0, vectors)
    with closing(connect(folder)) as db:
        rows = [(n + 1, b"/%d.jpg" % n, f"{n:064x}", 1, 1, n, 10.0, c, -9.0, "[]") for n, c in enumerate(captions)]
        add(db, rows)


def add(db: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    """Add rows to the table of images, with their words."""
    db.execute("BEGIN")
    db.executemany(f"INSERT INTO images VALUES ({', '.join('?' * 10)})", rows)
    db.executemany("INSERT INTO words (rowid, caption, classes) VALUES (?, ?, '')", [(row[0], row[7]) for row in rows])
    db.execute("COMMIT")
