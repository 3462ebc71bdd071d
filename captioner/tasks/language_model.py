"""Model sentences alone: the language layers of a captioner, trained before it sees images."""

from __future__ import annotations

from captioner.tasks.base import Task
from captioner.tasks.sentences.config import LanguageModelConfig
from captioner.tasks.sentences.data import load_text
from captioner.tasks.sentences.evaluate import evaluate_text
from captioner.tasks.sentences.learner import sentence_loss
from captioner.tasks.sentences.runs import build_model, make_text_learner, start_text

TASK = Task(
    name="language_model",
    config=LanguageModelConfig,
    metrics={"dev_loss": "min"},
    load_data=load_text,
    build=build_model,
    make_learner=make_text_learner,
    start=start_text,
    loss=sentence_loss,
    evaluate=evaluate_text,
    unit="tokens",
)
