"""Published captioners of Hugging Face transformers, with the same interface as our own.

    from captioner import load
    load("blip").caption("photo.jpg")
    load("hf:Salesforce/blip-image-captioning-base", device="cuda").caption(paths, beam_size=5)
    load("./my-finetuned-model", prompt="Describe the scene in one sentence.").caption("photo.jpg")

Code in a model's repository is never run, and weights in PyTorch's format are read only as tensors.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captioner.data.images import open_image
from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import with_options
from captioner.devices import find_device
from captioner.errors import CheckpointError, ImageError, MissingWeights, UsageError
from captioner.hub import may_download, model_folder, model_source
from captioner.optional import require
from captioner.predictors.adapters import ChatAdapter, ClassicAdapter, Inputs
from captioner.predictors.base import Caption
from captioner.predictors.images import BatchCaptioner
from captioner.predictors.pretrained import CHAT, STYLES, Pretrained, Style
from captioner.predictors.streams import ImageSource, memory_errors

SAMPLES_AT_ONCE = 16
"""Most sentences that are sampled together."""


class GenerateCaptioner(BatchCaptioner):
    """A published model, run by its ``generate`` method; ``load_generate`` makes one."""

    batch_size = 8

    def __init__(self, name: str, model: Any, adapter: ClassicAdapter, style: Style, prompt: str, digest: str) -> None:
        self.name = name
        self.digest = digest
        """Hash of the model's name and revision (or files), the prompt and the number format."""
        self.model, self.adapter, self.style, self.prompt = model, adapter, style, prompt
        self.settings = own_settings(model.generation_config, style)
        """The model's decoding settings, for options that the caller does not set."""
        self.ends = end_tokens(model)

    def decoding_config(self, options: Mapping[str, Any]) -> DecodingConfig:
        return with_options(self.settings, options)

    def prepare(self, image: ImageSource | ImageError) -> tuple[ImageSource, Image.Image | ImageError]:
        if isinstance(image, ImageError):
            return image.path, image
        try:
            return image, open_image(image)
        except ImageError as error:
            return image, error

    def describe(self, images: Sequence[Image.Image], config: DecodingConfig) -> list[tuple[Caption, ...]]:
        with memory_errors(), quiet(), torch.inference_mode():
            if config.method == "sample":
                return [self._sample(image, config) for image in images]
            return self._generate(self.inputs(images), len(images), config, config.num_return_sequences)

    def inputs(self, images: Sequence[Image.Image]) -> Inputs:
        """Arguments of ``generate`` for ``images``, on the model's device and in its number format."""
        device, dtype = self.model.device, self.model.dtype
        found = self.adapter.inputs(images, self.prompt)
        return {
            name: value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value
            for name, value in found.items()
        }

    def _sample(self, image: Image.Image, config: DecodingConfig) -> tuple[Caption, ...]:
        """The most probable distinct sentences of ``num_samples`` samples, drawn for this image alone from ``seed``."""
        device = self.model.device
        inputs = self.inputs([image])
        found: dict[str, Caption] = {}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            for first in range(0, config.num_samples, SAMPLES_AT_ONCE):
                number = min(SAMPLES_AT_ONCE, config.num_samples - first)
                for one in self._generate(inputs, 1, config, number)[0]:
                    found.setdefault(one.text, one)
        ranked = sorted(found.values(), key=lambda one: -(one.log_prob or 0))
        return tuple(ranked[: config.num_return_sequences])

    def _generate(self, inputs: Inputs, count: int, config: DecodingConfig, number: int) -> list[tuple[Caption, ...]]:
        """``number`` sentences for each of ``count`` images."""
        output = self.model.generate(
            **inputs,
            **generate_options(config),
            num_return_sequences=number,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids, log_probs = answers(output, self.ends)
        texts = self.adapter.texts(output.sequences if self.style.continues else ids)
        found = [Caption(self.style.clean(text), log) for text, log in zip(texts, log_probs.tolist(), strict=True)]
        if not all(math.isfinite(one.log_prob or 0) for one in found):
            raise CheckpointError(f"{self.name}: gives probabilities that are not numbers; its files are damaged")
        return [tuple(found[row * number : (row + 1) * number]) for row in range(count)]


def own_settings(generation: Any, style: Style) -> DecodingConfig:
    """A model's own ``generation_config`` as decoding settings: beam search or greedy, but never sampling.

    Its length penalty is clipped to the bounds of ``DecodingConfig``.
    """
    beams = generation.num_beams or 1
    penalty = generation.length_penalty
    return DecodingConfig(
        method="beam" if beams > 1 else "greedy",
        beam_size=beams if beams > 1 else 3,
        num_samples=SAMPLES_AT_ONCE,
        max_length=generation.max_new_tokens or style.max_length,
        length_penalty=min(max(1.0 if penalty is None else penalty, 0.0), 2.0),
        no_repeat_ngram_size=generation.no_repeat_ngram_size or 0,
    )


def generate_options(config: DecodingConfig) -> dict[str, Any]:
    """Decoding settings as keyword arguments of ``generate``; all of them have the same meaning there."""
    options = {"max_new_tokens": config.max_length, "no_repeat_ngram_size": config.no_repeat_ngram_size}
    if config.method == "sample":
        return options | {
            "num_beams": 1,
            "do_sample": True,
            "temperature": config.temperature,
            "top_k": 0,
            "top_p": 1.0,
        }
    if config.method == "greedy":
        return options | {"num_beams": 1, "do_sample": False}
    if config.method != "beam":
        raise UsageError(f"method {config.method} is for captioner's own models; choose beam, greedy or sample")
    return options | {"num_beams": config.beam_size, "do_sample": False, "length_penalty": config.length_penalty}


def end_tokens(model: Any) -> list[int]:
    """The ids of tokens that end a sentence."""
    if model.config.model_type == "blip":  # its ``generate`` ends at this token, whatever its settings
        return [model.config.text_config.sep_token_id]
    end = model.generation_config.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)


def answers(output: Any, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The new tokens (N, T) of ``generate``'s output and their log probabilities (N,) in nats, including the end's.

    The probabilities are the model's own: without temperature, and without rules that forbid or force words.
    """
    beams = getattr(output, "beam_indices", None)
    if beams is not None:
        beams = beams[:, : int((beams >= 0).sum(1).max())]
    steps = len(output.logits) if beams is None else beams.shape[1]
    ids = output.sequences[:, output.sequences.shape[1] - steps :]
    ended = torch.isin(ids, torch.tensor(ends, device=ids.device, dtype=ids.dtype)).int()
    used = ended.cumsum(1) - ended == 0  # up to and including the first end token
    total = torch.zeros(len(ids), device=ids.device)
    for step in range(steps):
        rows = torch.arange(len(ids), device=ids.device) if beams is None else beams[:, step].clamp(min=0)
        logs = output.logits[step].float()[rows].log_softmax(1)  # (N, V)
        here = used[:, step] if beams is None else used[:, step] & (beams[:, step] >= 0)
        total += logs.gather(1, ids[:, step : step + 1])[:, 0] * here
    return ids, total


def load_generate(record: Pretrained, name: str, device: str = "cpu", prompt: str | None = None) -> GenerateCaptioner:
    """Load the captioner of ``record``, called ``name``.

    Raises ``MissingWeights`` if its files are not on disk and cannot be downloaded, ``CheckpointError`` for files that
    are no captioner, ``UsageError`` for a device that is not available or a prompt that the model cannot read.
    """
    place = find_device(device)
    model, adapter, style = _open(record, name, number_format(record.dtype, place))
    prompt = checked_prompt(name, style, prompt)
    known = [record.repository, _version(record, model), str(model.dtype), prompt]
    digest = hashlib.sha256("\0".join(known).encode()).hexdigest()
    return GenerateCaptioner(name, model.to(place).eval(), adapter, style, prompt, digest)


def number_format(wanted: str, device: torch.device) -> torch.dtype | str:
    """The number format of weights: float32 on a CPU, ``wanted`` on a GPU; ``auto`` is the files' own."""
    if device.type != "cuda":
        return torch.float32
    if wanted == "bfloat16" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return "auto" if wanted == "auto" else getattr(torch, wanted)


def checked_prompt(name: str, style: Style, prompt: str | None) -> str:
    """The prompt to use; ``UsageError`` for a prompt that the model cannot read, or without one if it needs one."""
    if prompt is None:
        return style.prompt
    if not style.takes_prompt:
        raise UsageError(f"--prompt: {name} reads images only; leave the prompt out or choose another model")
    if style.prompt and not prompt.strip():
        raise UsageError(f"--prompt is empty; {name} needs a prompt, such as {style.prompt!r}")
    return prompt


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' advice and progress bars, which are meant for programmers, from stderr."""
    logging = require("transformers", "transformers").utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _open(record: Pretrained, name: str, dtype: torch.dtype | str) -> tuple[Any, ClassicAdapter, Style]:
    """Model, adapter and style, from disk if the files are there, else from the network."""
    source = model_source(record.repository)
    is_folder = Path(source).is_dir()
    failure: Exception | None = None
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # the conversion would call a service of the hub
    for local in (True,) if is_folder or not may_download() else (True, False):
        options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        if not is_folder and record.revision:
            options["revision"] = record.revision
        try:
            with quiet():
                return _from_files(record, name, source, dtype, options)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
            failure = error
    reason = next(iter(str(failure).strip().splitlines()), type(failure).__name__)
    if is_folder:
        raise CheckpointError(f"{source} is not a captioner that can be loaded: {reason}")
    at = f" --revision {record.revision}" if record.revision else ""
    raise MissingWeights(
        f"cannot load {name} ({reason}); where there is a network run: hf download {record.repository}{at}, or put the "
        f"files of huggingface.co/{record.repository} into {model_folder(record.repository)}"
    )


def _from_files(
    record: Pretrained, name: str, source: str, dtype: torch.dtype | str, options: dict[str, Any]
) -> tuple[Any, ClassicAdapter, Style]:
    transformers = require("transformers", "transformers")
    kind = transformers.AutoConfig.from_pretrained(source, **options).model_type
    if kind == "vision-encoder-decoder":  # its AutoProcessor is a tokenizer
        images = transformers.AutoImageProcessor.from_pretrained(source, **options)
        adapter = ClassicAdapter(kind, images, transformers.AutoTokenizer.from_pretrained(source, **options))
    else:
        processor = transformers.AutoProcessor.from_pretrained(source, **options)
        if kind not in STYLES and not getattr(processor, "chat_template", None):
            kinds = ", ".join(STYLES)
            raise CheckpointError(f"{name}: a {kind} without a chat template does not caption here; use one of {kinds}")
        adapter = (
            ClassicAdapter(kind, processor.image_processor, processor.tokenizer, processor)
            if kind in STYLES
            else ChatAdapter(kind, processor)
        )
    model, found = transformers.AutoModelForImageTextToText.from_pretrained(
        source, dtype=dtype, output_loading_info=True, **options
    )
    if found["missing_keys"]:
        raise CheckpointError(f"{name}: the model's files lack {sorted(found['missing_keys'])[0]}")
    return model, adapter, record.style or STYLES.get(kind, CHAT)


def _version(record: Pretrained, model: Any) -> str:
    """The commit of a model of the hub, or names, sizes and modification times of the files in a folder."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return str(commit)
    folder = Path(model_source(record.repository))
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return " ".join(f"{name}:{status.st_size}:{status.st_mtime_ns}" for name, status in stats)
