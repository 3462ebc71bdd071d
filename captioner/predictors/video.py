"""From label predictions of clips, or a video, to sentences: load once, describe many.

    from captioner.predictors.video import load_describer
    describer = load_describer("describer.safetensors")
    for result in describer.describe_label_predictions("label-predictions.h5"):
        print(result.image, result.captions[0].text)
    for clip in describer.describe_video("cooking.mp4", [(0, 5.2), (5.2, 9)]):
        print(clip.start, clip.end, clip.error or clip.captions[0].text)

A describer is a captioner whose feature is label predictions. What makes those of a video, a CRF and the network
that looks at the frames, may be in the same file: its tensors are then those of the checkpoint, those of the CRF file,
and ``frames.NAME``; the header has an entry for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
import safetensors.torch

from captioner.backbones import Backbone, load_backbone
from captioner.checkpoint import load_checkpoint
from captioner.crf.clips import ClipArrays
from captioner.crf.model import CRFFile, FeatureSource, load_crf, save_crf
from captioner.crf.predictor import predict
from captioner.data.video import read_frames
from captioner.errors import CheckpointError, DataError, ImageError
from captioner.features.frames import FRAMES, ClipFeature, Interval, clip_features
from captioner.features.label_predictions import KEYS, LabelPredictionsStore
from captioner.files import atomic_path, read_tensors
from captioner.predictors.lrcn import Caption, Captioner, Result, SearchOptions, find_device, find_model

EVERY = 10.0
"""Seconds of a window, where nobody says which intervals to describe."""
ENTRY, VERSION, PREFIX = "captioner-frames", 1, "frames."
"""Header entry and tensors of the network that looks at frames."""


@dataclass(frozen=True)
class Description:
    """An interval of a video: sentences, best first, or the reason why there are none."""

    start: float
    """Seconds."""
    end: float
    captions: tuple[Caption, ...] = ()
    error: str = ""


class Describer:
    """A captioner that reads label predictions. Every method takes the fields of ``Search`` as keyword arguments."""

    def __init__(self, captioner: Captioner) -> None:
        self.captioner = captioner
        self.name = captioner.name
        specs = captioner.checkpoint.backbones
        if len(specs) != 1 or specs[0].key not in KEYS:
            names = ", ".join(spec.key for spec in specs) or "nothing"
            raise CheckpointError(f"{self.name} is no describer of clips: it reads {names}, not label predictions")
        self.kind = KEYS[specs[0].key]

    def check_labels(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Raise ``CheckpointError`` unless the model was trained on predictions of these ``labels`` of nodes."""
        wanted = self.captioner.checkpoint.backbones[0].names
        given = tuple(f"{node}={label}" for node, values in labels.items() for label in values)
        if given != wanted:
            odd = sorted(set(given) ^ set(wanted))
            what = f"{odd[0]} is in one only" if odd else "their order differs"
            raise CheckpointError(f"the CRF has {len(given)} labels, {self.name} learned from {len(wanted)} ({what})")

    @cached_property
    def vision(self) -> Vision:
        """What makes label predictions from a video; ``CheckpointError`` where the model's file has none."""
        if self.captioner.checkpoint.path is None:
            raise CheckpointError(f"{self.name} does not come from a file that could hold a CRF")
        return load_vision(self.captioner.checkpoint.path)

    def describe_label_predictions(
        self, predictions: str | os.PathLike[str], ids: Sequence[str] | None = None, **options: Unpack[SearchOptions]
    ) -> Iterator[Result]:
        """One ``Result`` for each clip of ``ids`` (all by default) of a label-predictions file.

        Raises ``DataError`` for what is no such file, ``FeatureStoreError`` for labels that are not the model's. A clip
        that is not in it is an error of its result.
        """
        store = LabelPredictionsStore(os.fspath(predictions), self.kind)
        if not store.ids:
            raise DataError(f"{store.path}: holds no clips")
        self.captioner.check_stores([store])
        wanted, held = store.ids if ids is None else ids, set(store.ids)
        known = [name for name in wanted if name in held]
        found = iter(self.captioner.caption_features(store, known, **options) if known else ())
        for name in wanted:
            yield next(found) if name in held else Result(name, error=ImageError(name, f"no such clip in {store.path}"))

    def describe_video(
        self,
        path: str | os.PathLike[str],
        intervals: Sequence[Interval] | float = EVERY,
        **options: Unpack[SearchOptions],
    ) -> list[Description]:
        """A ``Description`` for each of ``intervals`` (seconds), or of windows of so many seconds over the whole video.

        An interval that is not in the video has an error; the others are described. Raises ``DataError`` for a file
        that is no video, ``CheckpointError`` where the model holds no CRF or network.
        """
        vision, device = self.vision, self.captioner.device
        with closing(read_frames(os.fspath(path))) as frames:
            clips = clip_features(frames, intervals, vision.backbone, number=vision.number, device=device)
        good = [clip for clip in clips if not clip.error]
        found = iter(self._describe(Path(path), good, options) if good else ())
        return [
            Description(clip.start, clip.end, error=clip.error)
            if clip.error
            else Description(clip.start, clip.end, next(found))
            for clip in clips
        ]

    def _describe(self, path: Path, clips: Sequence[ClipFeature], options: SearchOptions) -> list[tuple[Caption, ...]]:
        """Captions of clips of one video; the CRF sees them in order of time, since it may have a chain."""
        order = sorted(range(len(clips)), key=lambda index: (clips[index].start, clips[index].end))
        ids = [str(index) for index in order]
        features = np.stack([clips[index].feature for index in order])  # (N, D)
        crf = self.vision.crf
        unknown = np.full((len(ids), len(crf.model.sizes)), -1)
        predictions, _ = predict(crf.model, ClipArrays(ids, [str(path)] * len(ids), features, unknown))
        store = LabelPredictionsStore(path, self.kind, predictions)
        results = self.captioner.caption_features(store, [str(index) for index in range(len(ids))], **options)
        return [result.captions for result in results]


@dataclass(frozen=True)
class Vision:
    """From frames to label predictions."""

    backbone: Backbone
    crf: CRFFile
    number: int = FRAMES
    """Frames of a clip that the network looks at."""

    def check(self, name: str) -> None:
        """Raise ``CheckpointError`` unless the CRF learned from features of this network, naming both sides."""
        spec, known = self.backbone.spec, self.crf.features
        if len(known) != 1:
            names = ", ".join(source.key for source in known) or "unknown ones"
            raise CheckpointError(
                f"{name}: the CRF needs {len(known)} feature stores ({names}), not those of one network"
            )
        mine = FeatureSource(spec.key, spec.dimension, spec.digest, self.backbone.weights_digest)
        if mismatch := known[0].mismatch(mine):
            raise CheckpointError(f"{name}: {spec.key} has {mismatch} like the features that the CRF was trained on")


def load_describer(model: str | os.PathLike[str], device: str = "cpu") -> Describer:
    """The describer of a checkpoint file or of a training run's folder; errors as of ``captioner.load``."""
    return Describer(Captioner(load_checkpoint(find_model(model)), str(model), find_device(device)))


def load_vision(path: Path) -> Vision:
    """The CRF and the network in a describer's file; raises ``CheckpointError`` where they are not or do not fit."""
    tensors, entries = read_tensors(path, PREFIX)
    entry = entries.get(ENTRY)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if entry is None:
        raise CheckpointError(
            f"{path} describes label predictions only; "
            "python -m scripts.pack_clip_captioner adds the CRF and the CNN that a video needs"
        )
    contents, crf = json.loads(entry), load_crf(path)
    if contents.get("version") != VERSION:
        raise CheckpointError(f"{path}: frames of version {contents.get('version')}; this captioner reads {VERSION}")
    vision = Vision(load_backbone(crf.features[0].key, state=state), crf, int(contents["number"]))
    vision.check(str(path))
    return vision


def save_describer(path: str | Path, describer: Describer, vision: Vision) -> None:
    """Write one file with all three stages, whole or not at all; of the CRF's models only that of all clips.

    Raises ``CheckpointError`` where one does not take what the one before gives, naming both.
    """
    vision.check(str(path))
    describer.check_labels(vision.crf.model.labels)
    source = describer.captioner.checkpoint.path
    assert source is not None, "a describer that was loaded has a file"
    with atomic_path(path) as temporary:
        save_crf(temporary, replace(vision.crf, folds=()))
        (tensors, header), (crf_tensors, entry) = read_tensors(source), read_tensors(temporary)
        tensors |= {name: tensor.clone() for name, tensor in crf_tensors.items()}  # their file is written over
        network = vision.backbone.network.state_dict()
        tensors |= {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in network.items()}
        header |= entry | {ENTRY: json.dumps({"version": VERSION, "number": vision.number})}
        safetensors.torch.save_file(tensors, temporary, header)
