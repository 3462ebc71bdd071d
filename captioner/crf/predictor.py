"""Predict the labels of clips with a CRF; a training clip's by the model of the fold that held it out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from captioner.crf.clips import ClipArrays
from captioner.crf.inference import MAPAssignment, map_assignment, marginals
from captioner.crf.model import CRF, CRFFile
from captioner.crf.predictions import LabelPredictions, NodePredictions
from captioner.data.clips import whole_clip
from captioner.errors import DataError

BATCH_CLIPS = 256
"""Clips in a batch; with a chain, whole videos are added until there are this many."""


@dataclass(frozen=True)
class NotConverged:
    """Numbers of clips whose messages did not converge; 0 if inference is exact."""

    marginals: int
    map: int

    def __str__(self) -> str:
        parts = [f"{what} of {count} clips" for what, count in vars(self).items() if count]
        return f"not converged: {', '.join(parts)}" if parts else ""


def predict(
    crf: CRFFile | CRF, clips: ClipArrays, source: str = "", *, decode: bool = True
) -> tuple[LabelPredictions, NotConverged]:
    """Label predictions of all clips. A clip of a cross-validation fold, and its observations, get that fold's model.

    Without ``decode`` the most probable label of each node replaces the MAP assignment, which is faster. ``source`` is
    stored in the result. Raises ``DataError`` for features of another dimension and for probabilities that are not
    numbers.
    """
    file = CRFFile(crf) if isinstance(crf, CRF) else crf
    if clips.features.shape[1] != file.model.feature_dim:
        size = f"the features have dimension {clips.features.shape[1]}"
        raise DataError(f"{size}, but the CRF was trained on {file.model.feature_dim}; give the same feature stores")
    fold_of = {name: number for number, fold in enumerate(file.folds) for name in fold.clip_ids}
    model_of = np.array([fold_of.get(name, fold_of.get(whole_clip(name), -1)) for name in clips.ids], np.int64)
    sizes = file.model.sizes
    log_marginals = [np.empty((len(clips), size), np.float32) for size in sizes]
    labels = np.empty((len(clips), len(sizes)), np.int64)
    failed = np.zeros((len(clips), 2), bool)
    for number, model in enumerate([file.model, *(fold.model for fold in file.folds)], start=-1):
        for rows in clips.batches(np.flatnonzero(model_of == number), BATCH_CLIPS, model.config.chain, None):
            found, labels[rows], failed[rows] = _infer(model, clips.select(rows), decode)
            for v, values in enumerate(found):
                log_marginals[v][rows] = values
    if any(np.isnan(values).any() for values in log_marginals):
        raise DataError("the CRF gives probabilities that are not numbers; its file or the features are damaged")
    nodes = {
        name: NodePredictions(values, log_marginals[v], labels[:, v])
        for v, (name, values) in enumerate(file.model.labels.items())
    }
    return LabelPredictions(list(clips.ids), nodes, source), NotConverged(*map(int, failed.sum(0)))


def _infer(model: CRF, clips: ClipArrays, decode: bool) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Log marginals of each node, the MAP assignment (N, V), and (N, 2) bool, True for what did not converge."""
    states = model.config.max_joint_states
    with torch.inference_mode():
        mrf = model(torch.from_numpy(clips.features), torch.from_numpy(clips.starts_video))
        found = marginals(mrf, states)
        most_probable = torch.stack([values.argmax(1) for values in found.log_marginals], 1)
        best = (
            map_assignment(mrf, states, initial=most_probable)
            if decode
            else MAPAssignment(most_probable, found.converged)
        )
    failed = ~torch.stack([found.converged, best.converged], 1).numpy()
    return [values.numpy() for values in found.log_marginals], best.labels.numpy(), failed
