"""Describe clips: from label predictions, or a video, to sentences.

    from captioner import load
    captioner = load("clip-captioner.safetensors")
    for result in captioner.results("label-predictions.h5"):
        print(result.image, result.captions[0].text)
    for result in captioner.results("cooking.mp4", intervals=[(0, 5.2), (5.2, 9)]):
        print(result.interval, result.error or result.captions[0].text)

A clip captioner is an LRCN model whose feature is label predictions. Its file can also hold the stages that compute
label predictions from a video: the CRF and the network that reads the frames. Such a file has the tensors of the
checkpoint, those of the CRF file, and ``frames.NAME`` for the network; its header has an entry for each.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.checkpoint import load_checkpoint
from captioner.crf.clips import ClipArrays
from captioner.crf.model import CRFFile, FeatureSource, load_crf, save_crf
from captioner.crf.predictions import LabelPredictions, read_label_predictions
from captioner.crf.predictor import predict
from captioner.data.records import Names
from captioner.data.video import read_frames
from captioner.devices import find_device
from captioner.errors import CheckpointError, DataError, ImageError, UsageError
from captioner.features.frames import FRAMES, ClipFeature, Interval, clip_features
from captioner.features.label_predictions import KEYS, LabelPredictionsStore
from captioner.files import atomic_path, parse_header, read_tensors
from captioner.predictors import find_model
from captioner.predictors.base import Result, Results, is_label_predictions, texts
from captioner.predictors.features import FeatureCaptioner
from captioner.predictors.streams import BATCH_SIZE
from captioner.predictors.torch_runtime import TorchRuntime

WINDOW = 10.0
"""Length in seconds of the windows that a video is cut into if no intervals are given."""
ENTRY, VERSION, PREFIX = "captioner-frames", 1, "frames."
"""Header entry and tensor prefix of the network that reads the frames."""
Source = str | os.PathLike[str]


class ClipCaptioner(FeatureCaptioner):
    """A decoder of label predictions; its file may also hold the CRF and the network that predict them from a video.

    Every method takes the fields of ``DecodingConfig`` as ``options``, and ``batch_size``.
    """

    def __init__(self, runtime: TorchRuntime, name: str = "model") -> None:
        super().__init__(runtime, name)
        checkpoint, self.device = runtime.checkpoint, runtime.device
        self.kinds = [KEYS[spec.key] for spec in checkpoint.inputs if spec.key in KEYS]
        if not self.kinds or len(self.kinds) < len(checkpoint.inputs):
            names = ", ".join(spec.key for spec in checkpoint.inputs) or "nothing"
            raise CheckpointError(f"{name} is not a clip captioner: it reads {names}, not label predictions")

    @cached_property
    def vision(self) -> Vision:
        """The network and the CRF that predict labels; raises ``CheckpointError`` if the model's file has none."""
        if self.checkpoint.path is None:
            raise CheckpointError(f"{self.name} was not loaded from a file, so it has no CRF")
        return load_vision(self.checkpoint.path)

    def caption(
        self,
        source: Source,
        /,
        *,
        ids: Sequence[str] | None = None,
        intervals: Sequence[Interval] | float | None = None,
        batch_size: int = BATCH_SIZE,
        **options: Any,
    ) -> list[Any]:
        """The sentence of each result of ``results``, which has the same arguments; raises the first error among them.

        With ``num_return_sequences`` above 1, each is a list of sentences, best first.
        """
        several = self._config(options, batch_size).num_return_sequences > 1
        results = self.results(source, ids=ids, intervals=intervals, batch_size=batch_size, **options)
        return [texts(result, several) for result in results]

    def results(
        self,
        source: Source,
        /,
        *,
        ids: Sequence[str] | None = None,
        intervals: Sequence[Interval] | float | None = None,
        batch_size: int = BATCH_SIZE,
        warn: Callable[[str], object] = warnings.warn,
        **options: Any,
    ) -> Results:
        """``caption_clips`` for a file of label predictions (HDF5), ``caption_video`` for any other file.

        Raises ``CheckpointError`` if ``source`` is not the path of one file, ``UsageError`` for ``ids`` of a video or
        ``intervals`` of label predictions.
        """
        if not isinstance(source, str | os.PathLike):
            raise CheckpointError(f"{self.name} captions clips: give it label predictions or a video, not images")
        if is_label_predictions(source):
            if intervals is not None:
                raise UsageError(f"intervals are for a video; {source} holds label predictions")
            return self.caption_clips(source, ids, batch_size=batch_size, **options)
        if ids is not None:
            raise UsageError(f"ids are for label predictions, but {source} is read as a video")
        intervals = WINDOW if intervals is None else intervals
        return self.caption_video(source, intervals, batch_size=batch_size, warn=warn, **options)

    def stores(self, path: Source, predictions: LabelPredictions | None = None) -> list[LabelPredictionsStore]:
        """What the model reads of a file of label predictions, or of ``predictions`` made from the video ``path``."""
        name = os.fspath(path)
        known = read_label_predictions(name) if predictions is None else predictions
        return [LabelPredictionsStore(name, kind, known) for kind in self.kinds]

    def caption_clips(
        self, path: Source, ids: Iterable[str] | None = None, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> Results:
        """Yield one ``Result`` for each clip of ``ids`` (by default all) in a file of label predictions.

        A clip that is not in the file is an error of its result. Raises ``DataError`` for any other file,
        ``FeatureStoreError`` for labels that are not the model's.
        """
        stores = self.stores(path)
        clips = stores[0].ids
        if not clips:
            raise DataError(f"{path}: holds no clips")
        self.check_stores(stores)
        wanted, held = clips if ids is None else list(ids), Names(clips)
        known = [name for name in wanted if name in held]
        found = self.caption_features(stores, known, batch_size=batch_size, **options) if known else iter(())
        missing = f"no such clip in {path}"
        return (next(found) if name in held else Result(name, error=ImageError(name, missing)) for name in wanted)

    def caption_video(
        self,
        path: Source,
        intervals: Sequence[Interval] | float = WINDOW,
        *,
        batch_size: int = BATCH_SIZE,
        warn: Callable[[str], object] = warnings.warn,
        **options: Any,
    ) -> Results:
        """Yield one ``Result`` for each of ``intervals`` (seconds), or of windows of that many seconds over the video.

        An interval outside the video is an error of its result; ``warn`` is called with anything unusual about the
        video. Raises ``DataError`` for a file that is not a video, ``CheckpointError`` if the model has no CRF or
        network.
        """
        self._config(options, batch_size)  # contradictory options are refused before the video is read
        vision, path = self.vision, os.fspath(path)
        with closing(read_frames(path, warn)) as frames:
            clips = clip_features(frames, intervals, vision.backbone, number=vision.number, device=self.device)
        good = [clip for clip in clips if not clip.error]
        found = self._clip_results(path, good, batch_size, options) if good else iter(())
        return (
            _failed(path, clip) if clip.error else replace(next(found), image=path, interval=(clip.start, clip.end))
            for clip in clips
        )

    def check_labels(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Raise ``CheckpointError`` unless the model was trained on predictions of these ``labels`` of nodes."""
        wanted = self.checkpoint.inputs[0].names
        given = tuple(f"{node}={label}" for node, values in labels.items() for label in values)
        if given != wanted:
            odd = sorted(set(given) ^ set(wanted))
            what = f"{odd[0]} is in one only" if odd else "their order differs"
            raise CheckpointError(f"the CRF has {len(given)} labels, {self.name} was trained on {len(wanted)} ({what})")

    def _clip_results(
        self, path: str, clips: Sequence[ClipFeature], batch_size: int, options: Mapping[str, Any]
    ) -> Results:
        """Results of clips of one video; the CRF gets them in order of time, since it may have a chain."""
        order = sorted(range(len(clips)), key=lambda index: (clips[index].start, clips[index].end))
        ids = [str(index) for index in order]
        features = np.stack([clips[index].feature for index in order])  # (N, D)
        crf = self.vision.crf
        unknown = np.full((len(ids), len(crf.model.sizes)), -1)
        predicted, _ = predict(crf.model, ClipArrays(ids, [path] * len(ids), features, unknown))
        stores = self.stores(path, predicted)
        return self.caption_features(stores, map(str, range(len(ids))), batch_size=batch_size, **options)


@dataclass(frozen=True)
class Vision:
    """The network and the CRF that predict labels from the frames of a clip."""

    backbone: Backbone
    crf: CRFFile
    number: int = FRAMES
    """Number of frames of a clip that the network reads."""

    def check(self, name: str) -> None:
        """Raise ``CheckpointError``, which names both sides, unless the CRF was trained on features of this network."""
        spec, known = self.backbone.spec, self.crf.features
        if len(known) != 1:
            names = ", ".join(source.key for source in known) or "unknown ones"
            raise CheckpointError(
                f"{name}: the CRF needs {len(known)} feature stores ({names}), not those of one network"
            )
        mine = FeatureSource(spec.key, spec.dimension, spec.digest, self.backbone.weights_digest)
        if mismatch := known[0].mismatch(mine):
            raise CheckpointError(f"{name}: {spec.key} has {mismatch} like the features that the CRF was trained on")


def load_clip_captioner(model: Source, device: str = "cpu") -> ClipCaptioner:
    """Load the clip captioner of a checkpoint file or of a training run's folder; errors as of ``captioner.load``."""
    return ClipCaptioner(TorchRuntime(load_checkpoint(find_model(model)), str(model), find_device(device)), str(model))


def _failed(path: str, clip: ClipFeature) -> Result:
    """The result of an interval without a feature."""
    error = ImageError(path, f"{clip.start:g}-{clip.end:g} {clip.error}")
    return Result(path, error=error, interval=(clip.start, clip.end))


def load_vision(path: Path) -> Vision:
    """The CRF and the network in a clip captioner's file; raises ``CheckpointError`` if they are missing or unfit."""
    tensors, entries = read_tensors(path, PREFIX)
    entry = entries.get(ENTRY)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if entry is None:
        raise CheckpointError(
            f"{path} reads label predictions only; "
            "python -m scripts.pack_clip_captioner adds the CRF and the CNN that a video needs"
        )
    number, crf = parse_header(path, entry, "frames", VERSION).get("number"), load_crf(path)
    if type(number) is not int or number < 1 or not crf.features:
        raise CheckpointError(f"{path}: its header is damaged: it names no network, or {number!r:.20} frames of a clip")
    vision = Vision(load_backbone(crf.features[0].key, state=state, trusted=False), crf, number)
    vision.check(str(path))
    return vision


def save_clip_captioner(path: str | Path, captioner: ClipCaptioner, vision: Vision) -> None:
    """Write one file with all three stages, atomically; the CRF without its cross-validation models.

    Raises ``CheckpointError``, naming both stages, if one does not fit the one before.
    """
    vision.check(str(path))
    captioner.check_labels(vision.crf.model.labels)
    source = captioner.checkpoint.path
    assert source is not None, "a clip captioner that was loaded has a file"
    with atomic_path(path) as temporary:
        save_crf(temporary, replace(vision.crf, folds=()))
        crf, entry = read_tensors(temporary)
        crf = {name: tensor.clone() for name, tensor in crf.items()}  # the file is overwritten
        tensors, header = read_tensors(source)
        tensors |= crf
        network = vision.backbone.network.state_dict()
        tensors |= {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in network.items()}
        header |= entry | {ENTRY: json.dumps({"version": VERSION, "number": vision.number})}
        safetensors.torch.save_file(tensors, temporary, header)
