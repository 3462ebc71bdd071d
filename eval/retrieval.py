"""Caption-to-image and image-to-caption retrieval by a captioner's likelihood.

    python -m eval.retrieval runs/flickr8k/2f-seed0
    python -m eval.retrieval runs/flickr8k/2f-seed0 --captions all --key likelihood

Computes log p(caption | image) for every caption and image of the split, from the feature stores that the run was
trained on (`--features` overrides them), and prints R@1, R@5, R@10 and the median rank in both directions, beside those
of nearest-neighbor retrieval and of chance. The scores are saved in blocks beside the run: a killed run resumes, and
another key needs no new computation. The expected time is printed after the first block.

The key `normalized` is log p(caption | image) minus the log of the mean of p(caption | image) over all images, as in
Donahue et al. 2015; `likelihood` has no such term. Both rank captions for each image, and images for each caption.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import Progress

from captioner.cli.program import choice, create_app, run
from captioner.data import read_dataset
from captioner.data.records import Captioned, of_split
from captioner.errors import DataError, FeatureStoreError, print_error
from captioner.features.store import FeatureStore
from captioner.files import atomic_path, require_regular
from captioner.metrics.retrieval import AT, retrieval_scores
from captioner.models.likelihood import PRECISIONS, log_likelihoods, prefix_tree
from captioner.models.lrcn import LRCN
from captioner.predictors.features import FeatureCaptioner
from captioner.predictors.torch_runtime import TorchRuntime
from captioner.tables import render
from captioner.text.tokenizers import tokenize
from eval.command import Device, Split
from eval.consensus import Agreement
from eval.systems import load_captioner

VERSION = "1"
"""Version of the scores' computation: blocks of another version are not reused."""
BLOCK = 50
"""Captions that are scored with all images at a time; their scores are one file."""
KEYS = ("normalized", "likelihood")
DIRECTIONS = ("caption to image", "image to caption")
Directions = tuple[dict[str, float], dict[str, float]]


@dataclass(frozen=True)
class Collection:
    """N images with M captions in total."""

    ids: Sequence[str]
    captions: Sequence[Sequence[str]]

    @classmethod
    def of(cls, records: Sequence[Captioned], which: str = "all") -> Collection:
        """The first caption of each image (``which`` is ``one``) or all captions; images without one are left out."""
        there = [record for record in records if record.captions]
        captions = [record.captions[:1] if which == "one" else record.captions for record in there]
        return cls([record.image_id for record in there], captions)

    @cached_property
    def texts(self) -> list[str]:
        """All captions, image by image."""
        return [caption for captions in self.captions for caption in captions]

    @cached_property
    def owner(self) -> np.ndarray:
        """(M,) row of each caption's own image."""
        return np.repeat(np.arange(len(self.ids)), [len(captions) for captions in self.captions])

    def scores(self, by_caption: np.ndarray, by_image: np.ndarray) -> Directions:
        """R@k and median rank in both directions, from the scores of images (M, N) and of captions (N, M)."""
        images = np.arange(len(self.ids))
        found = ranks(by_caption, self.owner, images), ranks(by_image, images, self.owner)
        return retrieval_scores(found[0]), retrieval_scores(found[1])


def _read_block(path: Path, shape: tuple[int, int]) -> np.ndarray:
    require_regular(path, DataError)
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable block of scores; delete it and run this again") from error
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype.kind != "f" or np.isnan(found).any():
        raise DataError(f"{path}: damaged, not scores of shape {shape}; delete it and run this again")
    return found


class Blocks:
    """The matrix of log probabilities, computed block by block into files of ``folder``."""

    def __init__(
        self, captioner: FeatureCaptioner, features: torch.Tensor, captions: Sequence[str], precision: str
    ) -> None:
        self.captioner = captioner
        self.features = features
        self.precision = precision
        self.words = [captioner.checkpoint.outputs.encode(tokenize(caption)) for caption in captions]
        order = sorted(
            range(len(captions)), key=self.words.__getitem__
        )  # captions with a common prefix share its steps
        self.blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]

    @property
    def model(self) -> LRCN:
        """The captioner's network."""
        assert isinstance(self.captioner.runtime, TorchRuntime), "load_captioner asks for torch"
        found: LRCN = self.captioner.runtime.model
        return found

    @property
    def name(self) -> str:
        """The precision, and a digest of everything else that affects the scores."""
        inputs = json.dumps([VERSION, BLOCK, self.captioner.checkpoint.digest, self.words])
        return f"{self.precision}-{hashlib.sha256(inputs.encode() + self.features.numpy().tobytes()).hexdigest()[:16]}"

    def matrix(self, folder: Path) -> np.ndarray:
        """(N, M) log probabilities in nats; existing blocks are read."""
        scores = np.empty((len(self.features), len(self.words)), np.float32)
        paths = [folder / f"{number:05}.npy" for number in range(len(self.blocks))]
        missing = [number for number, path in enumerate(paths) if not path.exists()]
        for number in self._timed(missing):
            chosen = [self.words[caption] for caption in self.blocks[number]]
            found = log_likelihoods(self.model, self.features, chosen, self.precision)
            with atomic_path(paths[number]) as temporary, temporary.open("wb") as file:
                np.save(file, found.numpy(force=True))
        for block, path in zip(self.blocks, paths, strict=True):
            scores[:, block] = _read_block(path, (len(scores), len(block)))
        return scores

    def _timed(self, missing: Sequence[int]) -> Iterator[int]:
        """Yield the numbers of missing blocks; after the first, print the expected time."""
        print_error(
            f"{len(self.features):,} images x {len(self.words):,} captions: "
            f"{len(self.blocks) - len(missing)} of {len(self.blocks)} blocks exist"
        )
        # A block takes as many steps as its captions have distinct prefixes.
        steps = [
            sum(len(level.words) for level in prefix_tree([self.words[c] for c in block])) for block in self.blocks
        ]
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("scoring", total=sum(steps[number] for number in missing))
            for place, number in enumerate(missing):
                start = time.perf_counter()
                yield number
                progress.advance(bar, steps[number])
                if place == 0:
                    rest = sum(steps[later] for later in missing[1:]) / steps[number] * (time.perf_counter() - start)
                    progress.console.print(f"expected: {rest / 60:.1f} minutes more", highlight=False)


def keyed(log_probs: np.ndarray, key: str) -> np.ndarray:
    """From log probabilities (N images, M captions), the scores to rank by, (N, M).

    ``normalized`` subtracts the log of each caption's mean probability over the images. It ranks images for a caption
    as ``likelihood`` does, because it subtracts the same number for all images.
    """
    values = log_probs.astype(np.float64)
    if key == "likelihood":
        return values
    highest = values.max(0)
    normalized: np.ndarray = values - (highest + np.log(np.exp(values - highest).mean(0)))
    return normalized


def ranks(scores: ArrayLike, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Rank (Q,), from 1, of each query's best correct candidate by ``scores`` (Q, C).

    Candidates of the query's own image are correct. Wrong candidates with the same score come first, so constant scores
    find nothing.
    """
    values = np.asarray(scores)
    right = queries[:, None] == candidates[None, :]
    best = np.where(right, values, -np.inf).max(1, keepdims=True)
    found: np.ndarray = 1 + (~right & ~(values < best)).sum(1)
    return found


def chance(right: Sequence[int], candidates: int) -> dict[str, float]:
    """Expected scores of a random order; each query has ``right`` correct answers among ``candidates``."""
    before = np.arange(candidates)  # P(no right one in the first k) = product of (C - r - j) / (C - j) for j < k
    wrong = np.maximum(candidates - np.asarray(right)[:, None] - before, 0) / (candidates - before)
    within = 1 - np.cumprod(wrong, 1).mean(0)  # (C,): P(rank <= k) at k - 1
    recalls = {f"R@{k}": 100.0 * float(within[min(k, candidates) - 1]) for k in AT}
    return recalls | {"median rank": float(np.searchsorted(within, 0.5 - 1e-12) + 1)}


def nearest_neighbor(stores: Sequence[FeatureStore], train: Collection, test: Collection) -> Directions:
    """Retrieval without a model, through the training set.

    For a caption, images are ranked by their similarity to the image of the most similar training caption (by CIDEr-D;
    the first of equals). For an image, captions are ranked by their mean CIDEr-D with those of the most similar
    training image. The similarity of images is the cosine of their features, averaged over stores.
    """
    similarity = _directions_of(stores, train.ids) @ _directions_of(stores, test.ids).T  # (train, N)
    agreement = Agreement([[tokenize(text) for text in texts] for texts in (*train.captions, *test.captions)])
    border = len(train.texts)
    alike = [agreement.with_all(border + query)[:border].argmax() for query in range(len(test.texts))]
    own = [np.flatnonzero(train.owner == row).tolist() for row in similarity.argmax(0)]
    by_image = [np.mean([agreement.with_all(text)[border:] for text in texts], 0) for texts in own]
    return test.scores(similarity[train.owner[alike]], np.stack(by_image))


def retrieve(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder or a checkpoint.")],
    split: Split = "test",
    captions: Annotated[str, choice(("one", "all"), help="The first caption of each image, or all.")] = "one",
    key: Annotated[str, choice(KEYS, help="Ranking key.")] = "normalized",
    precision: Annotated[str, choice(PRECISIONS, help="Number format of the factors of matrix products.")] = "bfloat16",
    root: Annotated[str, typer.Option(help="The data set's folder, if not where it was in training.")] = "",
    features: Annotated[
        list[str] | None,
        typer.Option(help="A feature store, if not where it was in training; repeat the option for several."),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Folder for the blocks of scores instead of RUN/retrieval.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Device = "cpu",
) -> None:
    captioner = load_captioner(path, device)
    data = captioner.checkpoint.config.data
    records = read_dataset(data.format, Path(root or data.root))
    test = Collection.of(of_split(records, split), captions)
    stores = [FeatureStore(store) for store in features or data.features]
    captioner.check_stores(stores)
    vectors = torch.from_numpy(np.concatenate([store.get(test.ids) for store in stores], 1))  # (N, D)
    blocks = Blocks(captioner, vectors, test.texts, precision)
    beside = path / "retrieval" if path.is_dir() else path.with_suffix(".retrieval")
    values = keyed(blocks.matrix((scores or beside) / f"{split}-{captions}-{blocks.name}"), key)
    rows = {f"captioner, {key}": test.scores(values.T, values)}
    try:
        rows["nearest neighbor"] = nearest_neighbor(stores, Collection.of(of_split(records, "train")), test)
    except FeatureStoreError as error:
        print_error(f"no nearest neighbors: {error}")
    right = [len(texts) for texts in test.captions]
    rows["chance"] = (chance([1], len(test.ids)), chance(right, len(test.texts)))
    settings = {
        "run": str(path),
        "split": split,
        "images": len(test.ids),
        "captions": f"{len(test.texts)} ({'the first' if captions == 'one' else 'all'} of each image)",
        "key": key,
        "precision": precision,
        "ties": "after the others",
        "checkpoint": captioner.checkpoint.digest[:16],
    }
    print(json.dumps({"scores": _by_direction(rows), **settings}, indent=1) if as_json else _table(rows, settings))


def _directions_of(stores: Sequence[FeatureStore], ids: Sequence[str]) -> np.ndarray:
    """(N, D): each store's features, scaled to length 1 and concatenated; their products are sums of cosines."""
    parts = [store.get(ids) for store in stores]
    return np.concatenate([part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts], 1)


def _by_direction(rows: dict[str, Directions]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: dict(zip(DIRECTIONS, scores, strict=True)) for name, scores in rows.items()}


def _table(rows: dict[str, Directions], settings: dict[str, object]) -> str:
    """Markdown: recalls in percent, one row for each system and direction, and the settings below."""
    names = [*(f"R@{k}" for k in AT), "median rank"]
    cells = [
        [direction, system, *(f"{scores[place][name]:.1f}" for name in names)]
        for place, direction in enumerate(DIRECTIONS)
        for system, scores in rows.items()
    ]
    table = render(["direction", "ranked by", *names], cells, 2, "markdown")
    return f"{table}\n\n{'|'.join(f'{name}:{value}' for name, value in settings.items())}"


app = create_app(__doc__, retrieve)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
