"""The steps of ``captioner crf``: train on clips and feature stores, predict the labels of clips, evaluate them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from captioner.crf.clips import clip_arrays, gold_labels, label_sets
from captioner.crf.model import CRFConfig, CRFFile, FeatureSource
from captioner.crf.predictions import Evaluation, LabelPredictions, evaluate
from captioner.crf.predictor import NotConverged, predict
from captioner.crf.training import CRFTrainConfig, Epoch, train_with_folds
from captioner.data.clips import OBSERVATION, Clip
from captioner.data.records import SPLITS
from captioner.errors import UsageError
from captioner.features.spec import Store


@dataclass(frozen=True)
class DevResult:
    """Scores on the clips of split val."""

    evaluation: Evaluation
    not_converged: NotConverged


def train(
    clips: Sequence[Clip],
    stores: Sequence[Store],
    config: CRFConfig,
    train_config: CRFTrainConfig,
    folds: int = 0,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, Epoch], None] = lambda name, epoch: None,
) -> tuple[CRFFile, DevResult | None]:
    """Train a CRF, and ``folds`` cross-validation models, on the clips of split train that have features.

    The epoch with the best score on split val is kept; the ``DevResult`` is None without such clips. ``say`` is called
    with a line about the data, ``progress`` with each epoch.
    """
    labels = label_sets(clips)
    train_clips, dev = (
        clip_arrays([clip for clip in clips if clip.split == split], stores, labels) for split in ("train", "val")
    )
    labeled = int(train_clips.labeled.sum())
    unlabeled = len(train_clips) - labeled
    say(f"{labeled} training clips, {len(dev)} dev clips; {unlabeled} training clips have no label")
    crf = train_with_folds(
        config, train_config, labels, train_clips, dev if len(dev) else None, folds, progress
    )  # fmt: skip
    training = {"config": asdict(train_config), "folds": folds, "clips": labeled}
    result = None
    if len(dev):
        predictions, not_converged = predict(crf.model, dev)
        result = DevResult(evaluate(predictions, dev.gold), not_converged)
        training["dev"] = asdict(result.evaluation)
    return replace(crf, features=tuple(map(FeatureSource.of, stores)), training=training), result


@dataclass(frozen=True)
class PredictionResult:
    """Result of ``predict_clips``."""

    predictions: LabelPredictions
    """Predictions of the clips that have features, then of their further observations."""
    not_converged: NotConverged
    missing: int
    """Clips without features."""


def predict_clips(crf: CRFFile, stores: Sequence[Store], clips: Sequence[Clip] | None = None) -> PredictionResult:
    """Label predictions of ``clips`` and their further observations, or of all clips in the first store.

    Raises ``UsageError`` if ``clips`` are needed but not given.
    """
    if clips is None:
        if crf.model.config.chain:
            raise UsageError("the CRF has a chain over the clips of a video: give --clips, which has their order")
        clips = [Clip(name, name, 0, 0, (), "test") for name in stores[0].ids]
        wanted = clips
    else:
        wanted = [*clips, *_observations(clips, stores[0])]
    arrays = clip_arrays(wanted, stores, crf.model.labels)
    keys = " + ".join(source.key for source in crf.features)
    description = f"captioner crf, {crf.model.config.graph} graph, {crf.model.inference}, features {keys}"
    predictions, not_converged = predict(crf, arrays, description)
    missing = sum(clip.clip_id not in predictions.rows for clip in clips)
    return PredictionResult(predictions, not_converged, missing)


def _observations(clips: Sequence[Clip], store: Store) -> list[Clip]:
    """Further observations of ``clips`` in the store; those with the same number belong to one copy of the video."""
    known = {clip.clip_id: clip for clip in clips}
    found = []
    for name in store.ids:
        clip_id, sign, number = name.rpartition(OBSERVATION)
        if sign and name not in known and clip_id in known:
            clip = known[clip_id]
            found.append(replace(clip, clip_id=name, video=f"{clip.video}{OBSERVATION}{number}"))
    return found


def evaluate_splits(predictions: LabelPredictions, clips: Sequence[Clip]) -> dict[str, Evaluation]:
    """Evaluation on each split that has labeled clips in ``predictions``."""
    found = {}
    for split in SPLITS:
        here = [clip for clip in clips if clip.split == split and clip.clip_id in predictions.rows]
        if any(clip.labels for clip in here):
            part = predictions.subset([clip.clip_id for clip in here])
            found[split] = evaluate(part, gold_labels(here, predictions.labels))
    return found
