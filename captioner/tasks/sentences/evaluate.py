"""Dev loss, and the scores of captions decoded for the dev images."""

from __future__ import annotations

import torch
from torch import Tensor

from captioner.decoding import decode
from captioner.metrics import score_captions
from captioner.models.lrcn import LRCN
from captioner.tasks.sentences.data import SentenceData
from captioner.tasks.sentences.learner import SentenceLearner, encode
from captioner.text.vocabulary import END, START

AT_ONCE = 100  # images encoded and decoded together


@torch.inference_mode()
def evaluate_captions(learner: SentenceLearner, data: SentenceData, precision: str) -> dict[str, float]:
    """``dev_loss`` (nats per token, without smoothing), and in percent ``bleu4`` and ``cider``.

    Captions are decoded in float32 and scored on the model's own tokens. The loss is computed in the training's
    ``precision``. CIDEr-D of a single image is always 0.
    """
    learner.eval()
    features = encode_rows(learner, data, data.dev_rows)
    captions = decode_dev(learner.model, features, data)
    several = len(captions) > 1
    found = score_captions(captions, data.references, ("bleu", "cider")[: 1 + several])
    scores = {"bleu4": found["BLEU-4"].value, "cider": found["CIDEr-D"].value if several else 0.0}
    return {"dev_loss": _dev_loss(learner.model, data, features, precision)} | scores


@torch.inference_mode()
def evaluate_text(learner: SentenceLearner, data: SentenceData, precision: str) -> dict[str, float]:
    """``dev_loss`` in nats per token, without smoothing."""
    learner.eval()
    return {"dev_loss": _dev_loss(learner.model, data, None, precision)}


def decode_dev(model: LRCN, features: Tensor, data: SentenceData) -> dict[str, str]:
    """A caption of each dev image by its id, given features (N, D)."""
    parts = torch.split(features, AT_ONCE)
    found = [
        ranked
        for part in parts
        for ranked in decode(model, model.start(part), len(part), data.dev_decoding, start=START, end=END)
    ]
    texts = [data.outputs.decode(best.ids) for best, *_ in found]
    return dict(zip(data.references, texts, strict=True))


def encode_rows(learner: SentenceLearner, data: SentenceData, rows: Tensor) -> Tensor:
    """Features (len(rows), D) of images, not mirrored, as the decoder's input, on its device."""
    return torch.cat([encode(learner, images) for images in data.images.stream(torch.split(rows, AT_ONCE))])


def _dev_loss(model: LRCN, data: SentenceData, features: Tensor | None, precision: str) -> float:
    learner, device = SentenceLearner(model).eval(), model.device
    total, tokens = 0.0, 0
    for batch in data.dev_batches.epoch(0):
        images = {} if features is None else {"input": features[batch.rows.to(device)]}
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            total += float(learner(images, batch.inputs.to(device), batch.targets.to(device)))
        tokens += batch.tokens
    return total / tokens
