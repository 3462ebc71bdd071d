"""Synthetic features of clips whose videos are not available, sampled from their labels and noise.

    python -m preprocess.synthetic_features clips.jsonl -o features.h5 --snr 0.1 --seed 0

Each label of each node has a prototype vector. Labels that co-occur with the same other labels (carrot and cucumber are
both peeled, with a knife, on a cutting board) have similar prototypes, so that they are confused as if they looked
alike. A clip's feature is the concatenation of its labels' prototypes plus white noise. The result is an ordinary
feature store with a key that starts with ``synthetic``; clips without labels have no feature. With ``--draws 20`` a
training clip has 20 features with different noise, as a video has many frames: CLIP, CLIP~2 to CLIP~20.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from captioner.backbones.spec import BackboneSpec
from captioner.cli.program import create_app, run
from captioner.data.clips import OBSERVATION, Clip, read_clips
from captioner.errors import DataError, UsageError, print_error
from captioner.features.writer import FeatureWriter
from captioner.files import HDF5, check_output

DIMENSION = 64
"""Size of one node's part of the feature; random directions in it are nearly orthogonal."""
SIMILARITY = 0.5
"""Share of a prototype's power that is common to labels with the same co-occurrences."""

Tuples = Sequence[tuple[str, ...]]


def draw_features(tuples: Tuples, snr: float, seed: int, similarity: float = SIMILARITY, draws: int = 1) -> np.ndarray:
    """Features (draws, N, V * DIMENSION) float32 of clips with these labels, one label for each node.

    ``snr`` is the variance of the signal over the clips divided by that of the noise, both for a single number of a
    feature. Prototypes and noise depend on ``seed`` and on all tuples; only the noise differs between draws.
    """
    random = np.random.default_rng(seed)
    parts = []
    for node in range(len(tuples[0])):
        names, vectors = prototypes(tuples, node, random, similarity)
        place = {name: row for row, name in enumerate(names)}
        parts.append(vectors[[place[labels[node]] for labels in tuples]])
    signal = np.concatenate(parts, 1)  # (N, V * DIMENSION)
    noise = random.standard_normal((draws, *signal.shape)) * np.sqrt(signal.var(0).mean() / snr)
    return np.asarray(signal + noise, np.float32)


def prototypes(
    tuples: Tuples, node: int, random: np.random.Generator, similarity: float
) -> tuple[list[str], np.ndarray]:
    """The labels of a node in alphabetical order, and their prototypes (L, DIMENSION), of length about 1."""
    names = sorted({labels[node] for labels in tuples})
    row = {name: number for number, name in enumerate(names)}
    contexts = sorted({(v, label) for labels in tuples for v, label in enumerate(labels) if v != node})
    column = {context: number for number, context in enumerate(contexts)}
    counts = np.zeros((len(names), max(1, len(contexts))))
    for labels in tuples:
        for v, label in enumerate(labels):
            if v != node:
                counts[row[labels[node]], column[v, label]] += 1
    profile = np.sqrt(counts / np.maximum(1, counts.sum(1, keepdims=True)))  # Euclidean distance becomes Hellinger's
    shared = _unit((profile - profile.mean(0)) @ random.standard_normal((counts.shape[1], DIMENSION)))
    own = _unit(random.standard_normal((len(names), DIMENSION)))
    return names, np.sqrt(similarity) * shared + np.sqrt(1 - similarity) * own


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 1e-9, length, 1.0))


def write_synthetic_features(
    clips: Annotated[Path, typer.Argument(help="Clips with labels (clips.jsonl of preprocess.tacos).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Feature store to write (HDF5).")],
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio: variance of the signal over that of the noise.")],
    seed: Annotated[int, typer.Option(help="Seed of prototypes and noise.")] = 0,
    similarity: Annotated[
        float, typer.Option(min=0, max=1, help="Similarity of labels with the same co-occurrences.")
    ] = SIMILARITY,
    draws: Annotated[int, typer.Option(min=1, max=1000, help="Observations of each training clip.")] = 1,
) -> None:
    """Draw synthetic features of clips from their labels; no video is read."""
    if not (snr > 0 and np.isfinite(snr)):
        raise UsageError(f"--snr {snr}: must be above 0")
    check_output("-o", output, HDF5, [clips])
    records = read_clips("clips", clips)
    tuples = [clip.labels for clip in records if clip.labels is not None]
    if not tuples:
        raise DataError(f"{clips}: no clip has labels; synthetic features are drawn from them")
    features = draw_features(tuples, snr, seed, similarity, draws)  # (draws, N, D)
    key = f"synthetic:snr={snr:g}"
    source = f"drawn from the labels of each clip, similarity {similarity:g}, seed {seed}"
    spec = BackboneSpec(key, size=1, dimension=features.shape[2], weights=source, license="no video was seen")
    with FeatureWriter(output, spec, f"{source}, clips {_digest(records)}", "float32") as writer:
        writer.plan(clip.clip_id for clip in records)
        for clip, vectors in zip(
            (clip for clip in records if clip.labels is not None), features.swapaxes(0, 1), strict=True
        ):
            writer.add(clip.clip_id, vectors[0])
            if clip.split == "train":
                for number, vector in enumerate(vectors[1:], start=2):
                    writer.add(f"{clip.clip_id}{OBSERVATION}{number}", vector)
    unlabeled = len(records) - len(tuples)
    skipped = f"; {unlabeled} clips without labels have none" if unlabeled else ""
    drawn = f", {draws} draws of each training clip" if draws > 1 else ""
    print_error(f"{output}: SYNTHETIC features of {len(tuples)} clips{drawn}, {key}, seed {seed}{skipped}")


def _digest(clips: Sequence[Clip]) -> str:
    """16 hexadecimal digits that depend on the ids and labels of the clips."""
    text = "\n".join(f"{clip.clip_id}\t{clip.labels}" for clip in clips)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, write_synthetic_features), arguments)


if __name__ == "__main__":
    sys.exit(main())
