"""Networks. Sentence decoders are in ``MODELS``: each takes config, vocabulary size, feature size and feature names.

Classifiers of small images are in ``IMAGE_MODELS``: each takes config, channels, side in pixels and number of classes.
"""

from __future__ import annotations

MODELS = {
    "lrcn": "captioner.models.lrcn:LRCN",
    "encoder_decoder": "captioner.models.encoder_decoder:EncoderDecoder",
}
"""Class of a sentence decoder by ``model.architecture``."""
IMAGE_MODELS = {
    "cnn": "captioner.models.cnn_lstm:CNN",
    "rows": "captioner.models.cnn_lstm:Rows",
    "cnn_lstm": "captioner.models.cnn_lstm:CNNLSTM",
    "lenet": "captioner.models.lenet:LeNet",
    "small_cnn": "captioner.models.small_cnn:SmallCNN",
}
"""Class of an image classifier by ``model.architecture``."""
