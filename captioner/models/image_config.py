"""Configuration of the networks that classify small images."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.config import choose, within
from captioner.errors import ConfigError
from captioner.models import IMAGE_MODELS


@dataclass(frozen=True)
class ImageModelConfig:
    """The network; each architecture reads the fields that name it."""

    architecture: str = "cnn"
    """cnn: two convolutions and fully connected layers; rows: a recurrent layer over the rows of pixels; cnn_lstm: the
    two convolutions, their maps as one image whose rows a recurrent layer reads; lenet; small_cnn: six convolutions
    with batch normalization. A name in captioner.models.IMAGE_MODELS."""
    local_response_norm: bool = False
    """cnn, cnn_lstm: local response normalization after each convolution's activation."""
    maps: int = 64
    """cnn, cnn_lstm: number of maps of each convolution."""
    fully_connected: tuple[int, ...] = (384, 192)
    """cnn: units of the layers between the maps and the classes."""
    cell: str = "lstm"
    """rows, cnn_lstm: lstm, gru or rnn, a line of captioner.models.stack."""
    hidden_dim: int = 464
    """rows, cnn_lstm: units of the recurrent layer."""
    arrangement: str = "mosaic"
    """cnn_lstm: mosaic (the maps as tiles of a square) or reshape (the numbers in their order in memory)."""
    shuffle_rows: bool = False
    """rows, cnn_lstm: read the rows in one fixed random order instead of from top to bottom."""
    widths: tuple[int, ...] = (64, 256, 256)
    """small_cnn: number of maps of each pair of convolutions."""

    def __post_init__(self) -> None:
        choose("model.architecture", self.architecture, IMAGE_MODELS)
        choose("model.arrangement", self.arrangement, ("mosaic", "reshape"))
        within("model.maps", self.maps, 1, 2**12)
        within("model.hidden_dim", self.hidden_dim, 1, 2**14)
        for name, sizes in (("fully_connected", self.fully_connected), ("widths", self.widths)):
            if len(sizes) > 8:
                raise ConfigError(f"model.{name}: {len(sizes)} layers; 8 at most")
            for size in sizes:
                within(f"model.{name}", size, 1, 2**14)
        if not self.widths:
            raise ConfigError("model.widths: needs at least one number")
