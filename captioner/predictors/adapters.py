"""Adapters for the processors of published models: from images and a prompt to ``generate``'s inputs, and ids to text.

There are two kinds: ``ClassicAdapter`` for models that take an image and at most a prompt (BLIP, BLIP-2, GIT, ViT-GPT2,
PaliGemma, Florence-2), ``ChatAdapter`` for those that take a conversation (SmolVLM, Qwen-VL, Gemma 3, InternVL).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Inputs = dict[str, Any]
"""Keyword arguments of ``generate``: tensors whose first dimension is the batch."""


class ClassicAdapter:
    """An image processor, a tokenizer and, if the model's files have one, their common processor."""

    def __init__(self, kind: str, images: Any, tokenizer: Any, processor: Any = None) -> None:
        self.kind = kind
        """The architecture: ``model_type`` in config.json."""
        self.images, self.tokenizer, self.processor = images, tokenizer, processor

    def inputs(self, images: Sequence[Image.Image], prompt: str) -> Inputs:
        """Inputs from images and the prompt for each of them; an empty prompt means none."""
        if self.processor is None or self.kind == "git" or not prompt:
            found = dict(self.images(images=list(images), return_tensors="pt"))
            return {**found, **self._begun(prompt, len(images))} if prompt else found
        text = f"<image>{prompt}" if self.kind == "paligemma" else prompt
        found = dict(self.processor(images=list(images), text=[text] * len(images), return_tensors="pt"))
        found.pop("labels", None)  # PaliGemma's labels, for training
        return found

    def texts(self, ids: Tensor) -> list[str]:
        """Texts of token ids (N, T)."""
        found: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    def _begun(self, prompt: str, count: int) -> Inputs:
        """Ids of the beginning of a sentence; GIT's processor would also add its end."""
        ids = [self.tokenizer.cls_token_id, *self.tokenizer(prompt, add_special_tokens=False).input_ids]
        rows = torch.tensor([ids] * count)  # (N, T)
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


class ChatAdapter(ClassicAdapter):
    """A processor with a chat template."""

    def __init__(self, kind: str, processor: Any) -> None:
        super().__init__(kind, processor.image_processor, processor.tokenizer, processor)
        self.tokenizer.padding_side = "left"  # so that the answers of a batch begin at the same position

    def inputs(self, images: Sequence[Image.Image], prompt: str) -> Inputs:
        """A conversation for each image, in which the user shows it and asks ``prompt``."""
        conversations = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": prompt}]}]
            for image in images
        ]
        template = self.processor.apply_chat_template
        padding: dict[str, Any] = {"padding": True}
        if "processor_kwargs" in inspect.signature(template).parameters:  # transformers 5.0 takes it directly
            padding = {"processor_kwargs": padding}
        return dict(
            template(
                conversations,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **padding,
            )
        )
