"""Published captioners of the Hugging Face hub that have an alias, and how each architecture is prompted.

    captioner caption photo.jpg --model blip
    captioner caption photo.jpg --model hf:Salesforce/blip-image-captioning-base

Nothing heavy is imported; ``captioner.predictors.generate`` runs the models. Revisions are commits on the hub, so the
meaning of an alias never changes. Parameters and licenses are those on the models' cards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from captioner.errors import UsageError
from captioner.hub import REPOSITORY

QUESTION = "Describe this image in one sentence."
"""Default prompt for chat models."""


def clean_sentence(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def clean_answer(text: str) -> str:
    """The answer of a chat model on one line, without its thoughts, and without quotation marks around it."""
    text = clean_sentence(re.sub(r"<think>.*?</think>", " ", text, flags=re.DOTALL))
    quoted = re.fullmatch(r'"([^"]+)"|“([^”]+)”', text)
    return text if quoted is None else quoted[1] or quoted[2]


@dataclass(frozen=True)
class Style:
    """How to prompt models of an architecture, and how to turn their answers into captions."""

    prompt: str = ""
    """Default prompt; empty for none."""
    clean: Callable[[str], str] = clean_sentence
    """Makes the caption from the answer."""
    takes_prompt: bool = True
    """Whether the architecture reads text with the image."""
    continues: bool = False
    """Whether the answer continues the prompt, so that the caption begins with the prompt."""
    chats: bool = False
    """Whether the model reads a conversation by its chat template."""
    max_length: int = 40
    """Most tokens of an answer, if neither the user nor the model's settings give a number."""


STYLES = {
    "blip": Style(continues=True),
    "blip-2": Style(),
    "git": Style(continues=True),
    "vision-encoder-decoder": Style(takes_prompt=False),
    "paligemma": Style(prompt="caption en"),
    "florence2": Style(prompt="<CAPTION>"),
}
"""Architectures that caption without a chat, by ``model_type`` in config.json."""
CHAT = Style(prompt=QUESTION, clean=clean_answer, chats=True, max_length=128)
"""The style of all other architectures that have a chat template."""


@dataclass(frozen=True)
class Pretrained:
    """A published captioner."""

    repository: str
    """Its name on the hub, or a folder with its files."""
    revision: str = ""
    """Commit on the hub; empty for the newest, and for folders."""
    style: Style | None = field(default=None, compare=False)
    """None: the style of the architecture that its config.json names."""
    dtype: str = "auto"
    """Number format of the weights on a GPU; ``auto`` is the files' own. On a CPU it is float32."""
    license: str = ""
    parameters: int = 0
    """Number of parameters in millions."""


ALIASES = {
    "blip": Pretrained(
        "Salesforce/blip-image-captioning-base",
        "82a37760796d32b1411fe092ab5d4e227313294b",
        STYLES["blip"],
        "float16",
        "BSD-3-Clause",
        247,
    ),
    "blip-large": Pretrained(
        "Salesforce/blip-image-captioning-large",
        "353689b859fcf0523410b1806dace5fb46ecdf41",
        STYLES["blip"],
        "float16",
        "BSD-3-Clause",
        470,
    ),
    "blip-2": Pretrained(
        "Salesforce/blip2-opt-2.7b",
        "59a1ef6c1e5117b3f65523d1c6066825bcf315e3",
        STYLES["blip-2"],
        "float16",
        "MIT",
        3745,
    ),
    "git": Pretrained(
        "microsoft/git-base-coco",
        "a13141da42abd4a8cbf283601a8104265f537cee",
        STYLES["git"],
        "float16",
        "MIT",
        177,
    ),
    "vit-gpt2": Pretrained(
        "nlpconnect/vit-gpt2-image-captioning",
        "dc68f91c06a1ba6f15268e5b9c13ae7a7c514084",
        STYLES["vision-encoder-decoder"],
        "float16",
        "Apache-2.0",
        239,
    ),
    "paligemma": Pretrained(
        "google/paligemma-3b-mix-224",
        "d1d8734c9c3ad0ccfeea4afc270faa356c2ba515",
        STYLES["paligemma"],
        "bfloat16",
        "Gemma terms of use",
        2923,
    ),
    "florence-2": Pretrained(
        "florence-community/Florence-2-base",
        "00921df66db728a9ceb750f5eca43e5c203a2051",
        STYLES["florence2"],
        "float16",
        "MIT",
        231,
    ),
    "smolvlm": Pretrained(
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "7e3e67edbbed1bf9888184d9df282b700a323964",
        CHAT,
        "bfloat16",
        "Apache-2.0",
        256,
    ),
    "smolvlm-500m": Pretrained(
        "HuggingFaceTB/SmolVLM-500M-Instruct",
        "a7da5b986cb59b408707209984f360a5f4ad7e47",
        CHAT,
        "bfloat16",
        "Apache-2.0",
        507,
    ),
    "qwen-vl": Pretrained(
        "Qwen/Qwen2-VL-2B-Instruct",
        "895c3a49bc3fa70a340399125c650a463535e71c",
        CHAT,
        "bfloat16",
        "Apache-2.0",
        2209,
    ),
    "gemma-3": Pretrained(
        "google/gemma-3-4b-it",
        "093f9f388b31de276ce2de164bdc2081324b9767",
        CHAT,
        "bfloat16",
        "Gemma terms of use",
        4300,
    ),
}
"""Published models by the names that ``--model`` takes."""


def find_pretrained(model: str) -> Pretrained | None:
    """The published captioner of an alias, of ``hf:OWNER/NAME[@REVISION]`` or of a folder with a config.json.

    Returns None for anything else; raises ``UsageError`` for an ``hf:`` name that names no repository.
    """
    if model in ALIASES:
        return ALIASES[model]
    if model.startswith("hf:"):
        repository, _, revision = model.removeprefix("hf:").partition("@")
        if not REPOSITORY.fullmatch(repository) or ".." in repository:
            raise UsageError(f"--model {model}: not the name of a model; write hf:OWNER/NAME, as on huggingface.co")
        known = next((one for one in ALIASES.values() if one.repository == repository), None)
        return Pretrained(repository, revision, known.style if known else None)
    if (Path(model) / "config.json").is_file():
        return Pretrained(model)
    return None
