"""Caption images: LRCN on cached features, or with its backbone on image files."""

from __future__ import annotations

from captioner.tasks.base import Task
from captioner.tasks.sentences.config import CaptioningConfig, check_captioning
from captioner.tasks.sentences.data import load_captions
from captioner.tasks.sentences.evaluate import evaluate_captions
from captioner.tasks.sentences.learner import sentence_loss
from captioner.tasks.sentences.runs import build_model, make_caption_learner, start_captions

TASK = Task(
    name="captioning",
    config=CaptioningConfig,
    metrics={"cider": "max", "bleu4": "max", "dev_loss": "min"},
    load_data=load_captions,
    build=build_model,
    make_learner=make_caption_learner,
    start=start_captions,
    loss=sentence_loss,
    evaluate=evaluate_captions,
    check=check_captioning,
    unit="tokens",
)
