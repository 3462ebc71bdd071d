"""Caption clips of videos: a decoder that reads the label predictions of a CRF."""

from __future__ import annotations

from dataclasses import replace

from captioner.tasks import captioning
from captioner.tasks.sentences.config import ClipCaptioningConfig
from captioner.tasks.sentences.data import load_clips

TASK = replace(
    captioning.TASK,
    name="clip_captioning",
    config=ClipCaptioningConfig,
    load_data=load_clips,
    metrics={"bleu4": "max", "cider": "max", "dev_loss": "min"},  # BLEU-4 first, since the paper reports it
)
