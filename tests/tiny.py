"""A captioner with random weights and a handful of images, for the tests of everything around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioner.backbones import load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.checkpoint import save_checkpoint
from captioner.decoding.config import DecodingConfig
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.tasks.sentences.config import CaptioningConfig
from captioner.text.vocabulary import SPECIALS, Vocabulary

WORDS = "a man woman dog runs sits on the red blue grass beach with ball café".split()
DECODING = DecodingConfig(beam_size=3, max_length=7)


def network(seed: int) -> dict[str, torch.Tensor]:
    """Weights of a random ``CompactCNN`` whose features depend on the image."""
    torch.manual_seed(seed)
    return CompactCNN().state_dict()


def save_tiny(
    path: Path,
    backbone_seeds: Sequence[int] = (0,),
    dtype: torch.dtype | None = None,
    extra: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """Write a checkpoint of a random decoder over one compact CNN for each seed."""
    states = [network(seed) for seed in backbone_seeds]
    backbones = [load_backbone("compact", state=state) for state in states]
    torch.manual_seed(1)
    vocabulary = Vocabulary(SPECIALS + tuple(WORDS))
    config = LRCNConfig(wiring="2f", embedding_dim=12, hidden_dim=16, image_dim=8)
    size = sum(backbone.spec.dimension for backbone in backbones)
    model = LRCN(config, len(vocabulary), size)
    statistics = torch.cat([_features(backbone) for backbone in backbones], 1)  # (N, D)
    model.set_statistics(statistics.mean(0), statistics.std(0))
    with torch.no_grad():  # large weights, so that captions differ from image to image and from seed to seed
        for parameter in model.parameters():
            parameter.mul_(2.5)
    specs = [backbone.spec for backbone in backbones]
    settings = CaptioningConfig(model=config, decoding=DECODING, **sections)
    save_checkpoint(
        path, "captioning", model, settings, specs, vocabulary, backbone_states=states, dtype=dtype, extra=extra
    )
    return path


def make_image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Smooth random colors, RGB."""
    colors = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)


def save_images(folder: Path, count: int) -> list[Path]:
    """``count`` different images named 00.png, 01.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02}.png" for index in range(count)]
    for index, path in enumerate(paths):
        make_image(index).save(path)
    return paths


@torch.inference_mode()
def _features(backbone: torch.nn.Module) -> torch.Tensor:
    return backbone(torch.stack([backbone.preprocess(make_image(seed)) for seed in range(8)]))
