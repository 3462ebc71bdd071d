"""Classifiers of sequences of frame features, with or without recurrent layers.

LRCN (Donahue et al. 2015, section 4) applies dropout, an LSTM, dropout and a linear layer at every frame. Class
probabilities are averaged over the frames of a clip and over the clips of a video.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captioner.config import choose, within
from captioner.errors import ConfigError

CELLS = ("lstm", "gru", "none")
POOLINGS = ("frames", "last", "mean")
INPUTS = ("raw", "centered", "normalized", "difference")
SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class SequenceConfig:
    """The classifier of a sequence of frames."""

    front: str = "features"
    """features, or pixels: a small convolutional network before the recurrent layer, trained with it."""
    input: str = "raw"
    """raw: as given; centered: minus the video's mean over frames; normalized: centered, then divided by the video's
    root mean square; difference: minus the previous frame."""
    cell: str = "lstm"
    """lstm, gru or none."""
    hidden_dim: int = 256
    """Hidden units of a recurrent layer, in each direction."""
    num_layers: int = 1
    """Number of recurrent layers."""
    bidirectional: bool = False
    """Whether a second recurrent layer reads the frames backward."""
    pooling: str = "frames"
    """frames: probabilities at every frame, averaged; last or mean: one prediction from the last or mean output."""
    input_dropout: float = 0.9
    """Dropout rate before the recurrent layer; 0.9 in the paper."""
    dropout: float = 0.5
    """Dropout rate after the recurrent layer."""
    window: int = 16
    """Frames of a clip; a shorter video is a single clip."""
    stride: int = 8
    """Frames between the starts of two clips when a whole video is classified."""
    shuffle: bool = False
    """Control experiment: shuffle the frames of each clip, in training and evaluation."""

    def __post_init__(self) -> None:
        choose("model.front", self.front, ("features", "pixels"))
        choose("model.input", self.input, INPUTS)
        choose("model.cell", self.cell, CELLS)
        choose("model.pooling", self.pooling, POOLINGS)
        within("model.hidden_dim", self.hidden_dim, 1, 16384)
        within("model.num_layers", self.num_layers, 1, 64)
        within("model.input_dropout", self.input_dropout, 0, 0.99)
        within("model.dropout", self.dropout, 0, 0.99)
        within("model.window", self.window, 1, 4096)
        within("model.stride", self.stride, 1, 4096)
        if self.cell == "none" and self.pooling == "last":
            raise ConfigError("model.pooling: last is the last output of a recurrent layer; without one choose mean")
        if self.front == "pixels" and self.input != "raw":
            raise ConfigError(f"model.input: {self.input} is for features; pixels are raw")


class SmallCNN(nn.Sequential):
    """Images (N, 3, S, S) to vectors (N, 64 * S/64 * S/64): the network before the LSTM of the small recognizer."""

    def __init__(self, dropout: float = 0.25) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for width, factor in ((16, 4), (32, 4), (64, 2), (64, 2)):
            # Max pooling and ReLU commute; pooling first leaves ReLU fewer values.
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(factor), nn.ReLU(), nn.Dropout(dropout)]
            channels = width
        super().__init__(*layers[:-1], nn.Flatten())  # no dropout after the last


class SequenceClassifier(nn.Module):
    """Class probabilities from sequences of T vectors of D numbers."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: SequenceConfig, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.front: nn.Module = nn.Identity()
        size, statistics = feature_dim, feature_dim
        if config.front == "pixels":
            side = math.isqrt(feature_dim // 3)
            if 3 * side * side != feature_dim or side % 64:
                raise ConfigError("model.front pixels reads features of pixels:64 (or 128, 192): images of that side")
            self.front, size, statistics = SmallCNN(), 64 * (side // 64) ** 2, 3  # one mean for each channel
        self.side = math.isqrt(feature_dim // 3)
        self.register_buffer("feature_mean", torch.zeros(statistics))
        self.register_buffer("feature_std", torch.ones(statistics))
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.recurrent: nn.Module | None = None
        if config.cell != "none":
            cell = nn.LSTM if config.cell == "lstm" else nn.GRU
            self.recurrent = cell(
                size, config.hidden_dim, config.num_layers, batch_first=True, bidirectional=config.bidirectional
            )
            size = config.hidden_dim * (1 + config.bidirectional)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(size, classes)

    def change(self, features: Tensor) -> Tensor:
        """Apply ``model.input`` to whole videos (B, T, D), before they are cut into clips; same shape."""
        if self.config.input in ("centered", "normalized"):
            centered = features - features.mean(1, keepdim=True)
            if self.config.input == "centered":
                return centered
            return centered / centered.square().mean((1, 2), keepdim=True).sqrt().clamp(min=SMALLEST_DEVIATION)
        if self.config.input == "difference":
            return features.diff(dim=1, prepend=features[:, :1])
        return features

    @torch.no_grad()
    def set_statistics(self, parts: Iterable[Tensor]) -> None:
        """Set the mean and standard deviation of videos (N, T, D): of each feature, or of each channel of pixels."""
        count, total, squares = 0, *torch.zeros(2, len(self.feature_mean), dtype=torch.float64)
        for part in parts:
            values = self._by_number(self.change(part)).flatten(0, -2).double().cpu()
            count, total, squares = count + len(values), total + values.sum(0), squares + values.square().sum(0)
        mean = total / count
        self.feature_mean.copy_(mean)
        self.feature_std.copy_((squares / count - mean.square()).clamp(min=SMALLEST_DEVIATION**2).sqrt())

    def forward(self, clips: Tensor) -> Tensor:
        """Logits at each frame (B, W, C) of clips (B, W, D) from ``change``; (B, 1, C) with pooling last or mean."""
        if self.config.shuffle:
            clips = self._shuffled(clips)
        values = (self._by_number(clips) - self.feature_mean) / self.feature_std
        if self.config.front == "pixels":  # (B * W * S * S, 3) -> (B * W, 3, S, S)
            values = values.view(-1, self.side, self.side, 3).permute(0, 3, 1, 2)
        values = self.input_dropout(self.front(values).view(*clips.shape[:2], -1))
        if self.recurrent is not None:
            values = self.recurrent(values)[0]  # (B, W, H)
        if self.config.pooling == "mean":
            values = values.mean(1, keepdim=True)
        elif self.config.pooling == "last":
            values = self._last(values)
        logits: Tensor = self.head(self.dropout(values))
        return logits

    @torch.inference_mode()
    def predict(self, videos: Tensor) -> Tensor:
        """Class probabilities (B, C) of videos (B, T, D): the mean over each clip's frames, then over the clips."""
        changed = self.change(videos)
        clips = [changed[:, start : start + self.config.window] for start in self.starts(videos.shape[1])]
        return torch.stack([self(clip).softmax(-1).mean(1) for clip in clips]).mean(0)

    def starts(self, frames: int) -> list[int]:
        """First frames of a video's clips, given its number of frames; the last clip ends with the video."""
        last = max(frames - self.config.window, 0)
        return [*range(0, last, self.config.stride), last]

    def _last(self, outputs: Tensor) -> Tensor:
        """The output (B, 1, H) of each direction at its last step, from outputs (B, W, H)."""
        if not self.config.bidirectional:
            return outputs[:, -1:]
        size = self.config.hidden_dim
        return torch.cat([outputs[:, -1:, :size], outputs[:, :1, size:]], 2)

    def _by_number(self, features: Tensor) -> Tensor:
        """Features (B, T, D) unchanged; pixels as (B * T * S * S, 3), one row per pixel."""
        if self.config.front == "features":
            return features
        return features.reshape(-1, 3, self.side * self.side).transpose(1, 2).reshape(-1, 3)

    def _shuffled(self, clips: Tensor) -> Tensor:
        """Shuffle each clip's frames: at random in training, in evaluation in a fixed order per row of the batch."""
        shape = clips.shape[:2]
        if self.training:
            keys = torch.rand(shape, device=clips.device)
        else:
            keys = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(clips.device)
        return clips.gather(1, keys.argsort(1)[..., None].expand_as(clips))
