"""Networks. Sentence decoders are in ``MODELS``: each takes config, vocabulary size, feature size and feature names."""

from __future__ import annotations

MODELS = {
    "lrcn": "captioner.models.lrcn:LRCN",
    "encoder_decoder": "captioner.models.encoder_decoder:EncoderDecoder",
}
"""Class of a sentence decoder by ``model.architecture``."""
