"""The torch runtime, which can run every model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone, split
from captioner.checkpoint import Checkpoint
from captioner.errors import BackboneError, CheckpointError
from captioner.features.video_spec import VideoSpec
from captioner.predictors.features import same_sha256, sha256_of


class TorchRuntime:
    """A checkpoint's model on a device, with the backbones that compute its features."""

    def __init__(self, checkpoint: Checkpoint, name: str = "model", device: str | torch.device = "cpu") -> None:
        self.checkpoint = checkpoint
        self.name = name
        self.device = torch.device(device)
        self.model = checkpoint.model.to(self.device).eval()

    @cached_property
    def backbones(self) -> list[Backbone]:
        """The networks, with the checkpoint's weights if it has them; loaded on first use."""
        if not self.checkpoint.inputs:
            raise CheckpointError(f"{self.name} does not caption images: it was trained on text alone")
        loaded = []
        for spec, state in zip(self.checkpoint.inputs, self._states, strict=True):
            backbone = load_backbone(spec.key, state=state, trusted=False)
            wanted = spec.backbone if isinstance(spec, VideoSpec) else spec
            if backbone.spec.digest != wanted.digest:
                raise BackboneError(f"{spec.key} has another layer or preprocessing than when {self.name} was trained")
            if state is None and not same_sha256(backbone.spec.sha256, sha256_of(spec), unknown=True):
                raise BackboneError(
                    f"{self.name} was trained on {spec.key} with weights {sha256_of(spec)[:16]}, "
                    f"those here are {backbone.spec.sha256[:16]} ({backbone.spec.weights})"
                )
            loaded.append(backbone.to(self.device).eval())
        return loaded

    def prepare(self) -> None:
        self.backbones  # noqa: B018

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        parts = []
        for backbone, batch in zip(self.backbones, images, strict=True):
            some = split(torch.from_numpy(batch), self.device)
            parts.append(torch.cat([backbone(few.to(self.device)).float() for few in some]))
        features: np.ndarray = torch.cat(parts, 1).cpu().numpy()
        return features

    def weights_digest(self, index: int) -> str:
        return "" if self._states[index] is None else self.backbones[index].weights_digest

    def backbone_weights(self, index: int) -> dict[str, np.ndarray]:
        state = self.backbones[index].network.state_dict()
        return {name: tensor.float().cpu().numpy() for name, tensor in state.items()}

    @torch.inference_mode()
    def start(self, features: np.ndarray) -> Any:
        return self.model.start(torch.from_numpy(features).to(self.device))

    @torch.inference_mode()
    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = self.model.step(tokens, state)
        return found

    @torch.inference_mode()
    def select(self, state: Any, rows: Tensor) -> Any:
        return self.model.select(state, rows)

    @property
    def _states(self) -> Sequence[dict[str, Tensor] | None]:
        """Weights of each backbone, None for those that the checkpoint lacks."""
        return self.checkpoint.backbone_states or [None] * len(self.checkpoint.inputs)
