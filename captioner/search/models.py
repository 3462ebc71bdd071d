"""The models of an index: one writes the captions, one computes the features that are searched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from captioner.errors import SearchIndexError, UsageError
from captioner.features.spec import digest
from captioner.predictors import load
from captioner.predictors.base import Captioner
from captioner.predictors.features import sha256_of
from captioner.predictors.images import BatchCaptioner
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.search.index import Model

EMBEDDER = "default"
"""The model that computes the features if the captioner (a published model or a server) computes none."""


class Models(NamedTuple):
    """The models of an index; both are the same if the captioner is an LRCN."""

    captioner: BatchCaptioner
    embedder: LRCNCaptioner
    """Computes the features that are searched and the classes, and ranks images by a sentence."""


def models_of(captioner: Any, device: str = "cpu") -> Models:
    """The models for an index by ``captioner``; raises ``UsageError`` for a model that does not caption images."""
    if isinstance(captioner, LRCNCaptioner):
        return Models(captioner, captioner)
    if not isinstance(captioner, BatchCaptioner):
        raise UsageError(f"{captioner.name} does not caption images; name a captioner, such as the default model")
    return Models(captioner, load(EMBEDDER, device))


def made_by(models: Models) -> Model:
    """The record of its models that an index keeps."""
    captioner: Captioner = models.captioner  # type: ignore[assignment]  # all that load returns have a digest
    embedder = models.embedder
    specs = embedder.checkpoint.inputs
    weights = [[spec.digest, embedder.runtime.weights_digest(i) or sha256_of(spec)] for i, spec in enumerate(specs)]
    size = sum(spec.dimension for spec in specs)
    return Model(captioner.name, captioner.digest, embedder.name, digest(weights), size)


def check_model(folder: Path, known: Model, given: Model) -> None:
    """Raise ``SearchIndexError``, which names both models, unless ``given`` made the index."""
    if (known.captioner, known.backbone) != (given.captioner, given.backbone):
        same = known.name == given.name
        advice = "the same --prompt, or the same files of it, as then" if same else "that model with --model"
        raise SearchIndexError(
            f"{folder}: made by {known}, not by {given}; give {advice}, another index with --index, or "
            "rebuild it with: captioner index --rebuild"
        )


def check_embedder(folder: Path, known: Model, embedder: LRCNCaptioner) -> None:
    """The same for searches, which need only the embedder: a captioner without features is not loaded."""
    given = made_by(Models(embedder, embedder))
    if known.name != known.embedder:
        given = replace(given, name=known.name, captioner=known.captioner)
    check_model(folder, known, given)
