"""Classify small images: CNN, recurrent layers over rows, CNN-LSTM, LeNet and a small modern network."""

from __future__ import annotations

from captioner.tasks.base import Task
from captioner.tasks.images.config import ClassificationConfig, check_classification
from captioner.tasks.images.data import load_images
from captioner.tasks.images.learner import (
    build_classifier,
    class_loss,
    evaluate_classes,
    make_image_learner,
    start_classifier,
)

TASK = Task(
    name="classification",
    config=ClassificationConfig,
    metrics={"accuracy": "max", "dev_loss": "min"},
    load_data=load_images,
    build=build_classifier,
    make_learner=make_image_learner,
    start=start_classifier,
    loss=class_loss,
    evaluate=evaluate_classes,
    check=check_classification,
    unit="images",
)
