"""Features of clips whose videos are not at hand, drawn at random around what their labels say: simulated vision.

    python -m preprocess.synthetic_features clips.jsonl -o features.h5 --snr 0.1 --seed 0

Each label of each node has a prototype vector. Labels that keep the same company (carrot and cucumber: both are peeled,
with a knife, on a cutting board) have prototypes that point the same way, so that they are confused as things that look
alike would be. A clip's feature is the prototypes of its labels, one node after the other, plus white noise. What comes
out is an ordinary feature store whose record says `simulated`; clips whose labels are not known have no feature in it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captioner.backbones.spec import BackboneSpec
from captioner.data.clips import Clip, read_clips
from captioner.errors import DataError, UsageError, exit_status
from captioner.features.writer import FeatureWriter

DIMENSION = 64  # of one node; directions drawn at random in it are nearly orthogonal
SIMILARITY = 0.5  # share of a prototype's power that labels of the same company have in common

Tuples = Sequence[tuple[str, ...]]


def simulate(tuples: Tuples, snr: float, seed: int, similarity: float = SIMILARITY) -> np.ndarray:
    """Features (N, V * DIMENSION) float32 of clips with these labels, one label a node.

    ``snr``: variance over the clips of what the labels say, divided by that of the noise, both per number of a feature.
    Prototypes depend on ``seed`` and all tuples; so does the noise.
    """
    random = np.random.default_rng(seed)
    parts = []
    for node in range(len(tuples[0])):
        names, vectors = prototypes(tuples, node, random, similarity)
        place = {name: row for row, name in enumerate(names)}
        parts.append(vectors[[place[labels[node]] for labels in tuples]])
    signal = np.concatenate(parts, 1)  # (N, V * DIMENSION)
    noise = random.standard_normal(signal.shape) * np.sqrt(signal.var(0).mean() / snr)
    return np.asarray(signal + noise, np.float32)


def prototypes(
    tuples: Tuples, node: int, random: np.random.Generator, similarity: float
) -> tuple[list[str], np.ndarray]:
    """The labels of a node, and for each a vector (L, DIMENSION) of length about 1."""
    names = sorted({labels[node] for labels in tuples})
    row = {name: number for number, name in enumerate(names)}
    company = sorted({(v, label) for labels in tuples for v, label in enumerate(labels) if v != node})
    column = {one: number for number, one in enumerate(company)}
    counts = np.zeros((len(names), max(1, len(company))))
    for labels in tuples:
        for v, label in enumerate(labels):
            if v != node:
                counts[row[labels[node]], column[v, label]] += 1
    profile = np.sqrt(counts / np.maximum(1, counts.sum(1, keepdims=True)))  # distances are Hellinger's
    shared = _unit((profile - profile.mean(0)) @ random.standard_normal((counts.shape[1], DIMENSION)))
    own = _unit(random.standard_normal((len(names), DIMENSION)))
    return names, np.sqrt(similarity) * shared + np.sqrt(1 - similarity) * own


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 1e-9, length, 1.0))


def simulate_vision(options: argparse.Namespace) -> None:
    """The store that ``options`` ask for."""
    if not (options.snr > 0 and np.isfinite(options.snr)):
        raise UsageError(f"--snr {options.snr}: should be above 0")
    if not 0 <= options.similarity <= 1:
        raise UsageError(f"--similarity {options.similarity}: should be in 0 to 1")
    clips = read_clips("clips", options.clips)
    tuples = [clip.labels for clip in clips if clip.labels is not None]
    if not tuples:
        raise DataError(f"{options.clips}: no clip has labels; vision is simulated from them")
    features = simulate(tuples, options.snr, options.seed, options.similarity)
    key = f"simulated:snr={options.snr:g}"
    source = f"drawn from the labels of each clip, similarity {options.similarity:g}, seed {options.seed}"
    spec = BackboneSpec(key, size=1, dimension=features.shape[1], weights=source, license="no video was seen")
    with FeatureWriter(options.output, spec, f"{source}, clips {_digest(clips)}", "float32") as writer:
        writer.plan(clip.clip_id for clip in clips)
        for clip, vector in zip((one for one in clips if one.labels is not None), features, strict=True):
            writer.add(clip.clip_id, vector)
    lacking = f"; {len(clips) - len(tuples)} clips without labels have none" if len(tuples) < len(clips) else ""
    print(
        f"{options.output}: SIMULATED vision, {len(tuples)} clips, {key}, seed {options.seed}{lacking}", file=sys.stderr
    )


def _digest(clips: Sequence[Clip]) -> str:
    """16 hexadecimal digits that change with a clip's id or labels, and with them the features."""
    text = "\n".join(f"{clip.clip_id}\t{clip.labels}" for clip in clips)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="clips with labels, as preprocess.tacos writes them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="feature store to write")
    parser.add_argument("--snr", type=float, required=True, help="variance of the signal over that of the noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--similarity", type=float, default=SIMILARITY, help="of labels of one company, 0 to 1")
    options = parser.parse_args(arguments)
    return exit_status(lambda: simulate_vision(options))


if __name__ == "__main__":
    sys.exit(main())
