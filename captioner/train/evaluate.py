"""Dev loss, and captions of the dev images with their scores."""

from __future__ import annotations

import torch
from torch import Tensor

from captioner.decoding import decode
from captioner.decoding.config import DecodingConfig
from captioner.metrics import score_captions
from captioner.models.lrcn import ImageCaptioner
from captioner.text.vocabulary import END, START
from captioner.train.material import Material
from captioner.train.network import Network

AT_ONCE = 100  # images encoded and decoded together


@torch.inference_mode()
def evaluate(
    network: Network, material: Material, config: DecodingConfig, precision: str = "float32"
) -> dict[str, float]:
    """``dev_loss`` (nats a token, unsmoothed) and, where there are images, ``bleu4`` (percent) and ``cider`` (of 1).

    Captions are decoded by ``config``, in float32 as they will be later, and scored over the model's own tokens. The
    loss is computed in the training's ``precision``. CIDEr-D of a single image would be 0 whatever its caption is.
    """
    network.eval()
    features = encode(network, material, material.dev_rows) if material.references else None
    scores = {"dev_loss": _dev_loss(network.decoder, material, features, precision)}
    if features is not None:
        captions = describe(network.decoder, features, material, config)
        several = len(captions) > 1
        found = score_captions(captions, material.references, ("bleu", "cider")[: 1 + several])
        scores |= {"bleu4": found["BLEU-4"].value, "cider": found["CIDEr-D"].fraction if several else 0.0}
    return scores


def describe(decoder: ImageCaptioner, features: Tensor, material: Material, config: DecodingConfig) -> dict[str, str]:
    """A caption of each dev image by its id, from features (N, D)."""
    parts = torch.split(features, AT_ONCE)
    found = [
        ranked
        for part in parts
        for ranked in decode(decoder, decoder.start(part), len(part), config, start=START, end=END)
    ]
    texts = [material.vocabulary.decode(best.ids) for best, *_ in found]
    return dict(zip(material.references, texts, strict=True))


@torch.no_grad()
def encode(network: Network, material: Material, rows: Tensor) -> Tensor:
    """Features (len(rows), D) of unmirrored images as the decoder sees them, on its device."""
    device = network.decoder.device
    parts = []
    for images in material.images.stream(torch.split(rows, AT_ONCE)):
        features = network.features(None if images is None else images.to(device))
        assert features is not None  # text has no rows to encode
        parts.append(features.float())
    return torch.cat(parts)


def _dev_loss(decoder: ImageCaptioner, material: Material, features: Tensor | None, precision: str) -> float:
    network = Network(decoder).eval()
    total, tokens = 0.0, 0
    for batch in material.dev_batches.epoch(0):
        seen = None if features is None else features[batch.rows.to(features.device)]
        words = (batch.inputs.to(decoder.device), batch.targets.to(decoder.device))
        with torch.autocast(decoder.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            total += float(network(seen, *words, 0.0))
        tokens += batch.tokens
    return total / tokens
