"""Published architectures as tiny random models, saved as their authors publish them: no network is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = (
    "a man woman dog runs sits on the red blue grass beach with ball cafe describe this image in one sentence".split()
)
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<mask>", "<loc>"]
SIDE = 32
"""Pixels of the images that the models see."""
LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**LAYERS, "image_size": SIDE, "patch_size": 8, "initializer_range": 0.02}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokenizer(*extra: str, frame: str = "<s> $A </s>", **settings: Any) -> PreTrainedTokenizerFast:
    """Whole words, a template of special tokens around them."""
    vocabulary = {word: number for number, word in enumerate([*SPECIALS, *extra, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens([*SPECIALS, *extra])
    specials = [(name, vocabulary[name]) for name in ("<s>", "</s>")]
    words.post_processor = processors.TemplateProcessing(single=frame, special_tokens=specials)
    names = {
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=words, cls_token="<s>", sep_token="</s>", **names, **settings)


def image_processor(kind: str, **settings: Any) -> Any:
    size = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
    return getattr(transformers, kind)(**{**size, **settings})


def blip(folder: Path) -> None:
    words = tokenizer()
    text = {**LAYERS, "vocab_size": len(words), "encoder_hidden_size": 16, "sep_token_id": 2, **IDS, "eos_token_id": 6}
    config = transformers.BlipConfig(
        text_config=text, vision_config=VISION, projection_dim=16, image_text_hidden_size=16
    )
    save(folder, transformers.BlipForConditionalGeneration(config))
    transformers.BlipProcessor(image_processor("BlipImageProcessor"), words).save_pretrained(folder)


def blip_2(folder: Path) -> None:
    words = tokenizer(frame="<s> $A")
    text = {"model_type": "opt", "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "ffn_dim": 24,
            "num_attention_heads": 2, "word_embed_proj_dim": 16, "max_position_embeddings": 64, **IDS}  # fmt: skip
    former = {**LAYERS, "encoder_hidden_size": 16, "vocab_size": len(words)}
    config = transformers.Blip2Config(
        vision_config=VISION, qformer_config=former, text_config=text, num_query_tokens=4, image_token_index=4
    )
    save(folder, transformers.Blip2ForConditionalGeneration(config))
    transformers.Blip2Processor(image_processor("BlipImageProcessor"), words, num_query_tokens=4).save_pretrained(
        folder
    )


def git(folder: Path) -> None:
    words = tokenizer()
    config = transformers.GitConfig(vision_config=VISION, vocab_size=len(words), **LAYERS, **IDS)
    save(folder, transformers.GitForCausalLM(config))
    transformers.GitProcessor(image_processor("CLIPImageProcessor"), words).save_pretrained(folder)


def vit_gpt2(folder: Path) -> None:
    words = tokenizer(frame="$A")
    text = transformers.GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, add_cross_attention=True, is_decoder=True, **IDS
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), text
    )
    model = transformers.VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=1, pad_token_id=0, eos_token_id=2)
    save(folder, model)
    image_processor("ViTImageProcessor").save_pretrained(folder)
    words.save_pretrained(folder)


def paligemma(folder: Path) -> None:
    words = tokenizer(frame="<s> $A")
    text = {**LAYERS, "model_type": "gemma", "vocab_size": len(words), "num_key_value_heads": 1, "head_dim": 8, **IDS}
    vision = {**VISION, "model_type": "siglip_vision_model"}
    config = transformers.PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_index=4, projection_dim=16, hidden_size=16
    )
    save(folder, transformers.PaliGemmaForConditionalGeneration(config))
    images = image_processor("SiglipImageProcessor", image_seq_length=16)
    transformers.PaliGemmaProcessor(images, words).save_pretrained(folder)


def florence_2(folder: Path) -> None:
    words = tokenizer(extra_special_tokens={"image_token": "<image>"})
    vision = {"embed_dim": (8, 8, 8, 16), "num_heads": (2, 2, 2, 2), "num_groups": (2, 2, 2, 2), "depths": (1, 1, 1, 1),
              "window_size": 2, "projection_dim": 16}  # fmt: skip
    text = {"model_type": "bart", "vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
            "decoder_start_token_id": 2, "forced_eos_token_id": None, **IDS}  # fmt: skip
    config = transformers.Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    save(folder, transformers.Florence2ForConditionalGeneration(config))
    transformers.Florence2Processor(image_processor("CLIPImageProcessor", image_seq_length=2), words).save_pretrained(
        folder
    )


CHAT = (
    "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)


def smolvlm(folder: Path) -> None:
    """The architecture of SmolVLM's first models: Idefics3."""
    extra = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    words = tokenizer(*extra, frame="$A")
    text = {**LAYERS, "model_type": "llama", "vocab_size": len(words), "num_key_value_heads": 2, **IDS}
    config = transformers.Idefics3Config(
        vision_config=VISION, text_config=text, image_token_id=4, scale_factor=2, **IDS
    )
    save(folder, transformers.Idefics3ForConditionalGeneration(config))
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    transformers.Idefics3Processor(images, words, image_seq_len=4, chat_template=CHAT).save_pretrained(folder)


def qwen_vl(folder: Path) -> None:
    """The number of tokens of an image depends on its size, so that a batch is padded."""
    extra = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*extra, frame="$A")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = dict(zip(names, words.convert_tokens_to_ids(list(extra)), strict=True))
    turns = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text = {**LAYERS, "vocab_size": len(words), "num_key_value_heads": 2, "rope_parameters": turns, **IDS}
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "patch_size": 4, "mlp_ratio": 2}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids, **IDS)
    save(folder, transformers.Qwen2VLForConditionalGeneration(config))
    images = transformers.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, size={"shortest_edge": 16**2, "longest_edge": 64**2}
    )
    template = CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    videos = transformers.Qwen2VLVideoProcessor()
    transformers.Qwen2VLProcessor(images, words, video_processor=videos, chat_template=template).save_pretrained(folder)


def save(folder: Path, model: Any) -> None:
    """Save ``model`` with weights so large that its captions differ from image to image."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "blip": blip,
    "blip-2": blip_2,
    "git": git,
    "vit-gpt2": vit_gpt2,
    "paligemma": paligemma,
    "florence-2": florence_2,
    "smolvlm": smolvlm,
    "qwen-vl": qwen_vl,
}


def save_tiny(name: str, folder: Path) -> Path:
    """Write a random model of that architecture into ``folder``."""
    torch.manual_seed(0)
    BUILDERS[name](folder)
    return folder
