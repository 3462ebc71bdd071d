"""Published captioners: the same captions as by transformers' own ``generate``, in batches as one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="needs the extra transformers")
import transformers

from captioner import load
from captioner.errors import CheckpointError, ImageError, MissingWeights, UsageError
from captioner.predictors.generate import GenerateCaptioner, number_format, quiet
from captioner.predictors.pretrained import ALIASES, CHAT, QUESTION, clean_answer, find_pretrained
from tests import pretrained, tiny

PROMPTS = {"blip-2": "", "git": "", "blip": "", "vit-gpt2": None, "paligemma": "caption en", "florence-2": "<CAPTION>"}
"""What the models are asked by default; those that chat are asked a question."""
PHOTOS = [tiny.make_image(seed, (40, 30 + 10 * seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    with quiet():
        for name in pretrained.BUILDERS:
            pretrained.save_tiny(name, folder / name)
    return folder


def by_transformers(folder: Path, name: str, image: Image.Image, prompt: str | None, **options: Any) -> Any:
    """The output of transformers for one image, as its documentation says, and what decodes ids."""
    with quiet():
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder / name).eval()
        if name == "vit-gpt2":
            images = transformers.AutoImageProcessor.from_pretrained(folder / name)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder / name)
            inputs = {"pixel_values": images(image, return_tensors="pt").pixel_values}
        else:
            processor = transformers.AutoProcessor.from_pretrained(folder / name)
            tokenizer = processor.tokenizer
            if prompt is None:
                content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
                inputs = processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            elif prompt:
                inputs = processor(images=image, text=prompt, return_tensors="pt")
                inputs.pop("labels", None)
            else:
                inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(
                **inputs, **options, do_sample=False, return_dict_in_generate=True, output_scores=True
            )
    ids = output.sequences
    if "input_ids" in inputs and not model.config.is_encoder_decoder and ids.shape[1] > inputs["input_ids"].shape[1]:
        ids = ids[:, inputs["input_ids"].shape[1] :]
    return output, [" ".join(text.split()) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


@pytest.mark.parametrize("name", pretrained.BUILDERS)
def test_captions_are_those_of_transformers(models: Path, name: str) -> None:
    """Would catch a wrong prompt, a prompt that stays in the caption, another end, and options that get lost."""
    captioner = load(models / name)
    assert isinstance(captioner, GenerateCaptioner)
    beam = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0, "no_repeat_ngram_size": 2}
    for image in PHOTOS[:2]:
        _, greedy = by_transformers(models, name, image, PROMPTS.get(name), num_beams=1, max_new_tokens=8)
        assert captioner.caption(image, method="greedy", max_length=8) == greedy[0]
        output, ranked = by_transformers(models, name, image, PROMPTS.get(name), max_new_tokens=7, **beam)
        options = {"beam_size": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 2, "length_penalty": 0}
        [result] = captioner.results([image], max_length=7, **options)
        assert [one.text for one in result.captions] == ranked
        logs = [one.log_prob for one in result.captions]
        assert logs == pytest.approx(output.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("name", pretrained.BUILDERS)
def test_a_batch_is_as_good_as_one_by_one(models: Path, name: str) -> None:
    """Would catch padding that is read, and rows that are mixed up; samples must not depend on their batch either."""
    captioner = load(models / name)
    for options in ({"method": "greedy"}, {"beam_size": 2, "num_return_sequences": 2}, {"num_samples": 3, "seed": 5}):
        together = list(captioner.results(PHOTOS, batch_size=4, max_length=8, **options))
        alone = list(captioner.results(PHOTOS, batch_size=1, max_length=8, **options))
        for one, other in zip(together, alone, strict=True):
            assert [caption.text for caption in one.captions] == [caption.text for caption in other.captions]
            logs = [caption.log_prob for caption in other.captions]
            assert [caption.log_prob for caption in one.captions] == pytest.approx(logs, abs=1e-4)
    assert len({result.captions[0].text for result in together}) > 1, "the model ignores its images"


def test_greedy_probabilities_are_the_models_own(models: Path) -> None:
    """Would catch a sum over padding, one without the end, and probabilities of forbidden words left out."""
    captioner = load(models / "vit-gpt2")
    with quiet():
        output, _ = by_transformers(models, "vit-gpt2", PHOTOS[0], None, num_beams=1, max_new_tokens=8)
        scores = captioner.model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    [result] = captioner.results([PHOTOS[0]], method="greedy", max_length=8)
    assert result.captions[0].log_prob == pytest.approx(float(scores.sum()), abs=1e-4)


def test_prompts(models: Path) -> None:
    """BLIP and GIT go on where the prompt ends; others answer it; ViT-GPT2 cannot read."""
    for name in ("blip", "git"):
        caption = load(models / name, prompt="a man").caption(PHOTOS[0], max_length=6)
        assert caption.startswith("a man")
    _, texts = by_transformers(models, "blip-2", PHOTOS[0], "a man", num_beams=1, max_new_tokens=6)
    assert load(models / "blip-2", prompt="a man").caption(PHOTOS[0], max_length=6) == texts[0]
    with pytest.raises(UsageError, match="reads images only"):
        load(models / "vit-gpt2", prompt="a man")
    with pytest.raises(UsageError, match="needs a prompt"):
        load(models / "smolvlm", prompt=" ")
    with pytest.raises(UsageError, match="reads images only"):
        load("default", prompt="a man")


def test_samples_are_the_most_probable_of_different_ones(models: Path) -> None:
    """Would catch samples that do not depend on the seed, or that change the random numbers of the caller."""
    captioner = load(models / "git")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    [result] = captioner.results(PHOTOS[:1], num_samples=20, num_return_sequences=5, max_length=6)
    assert torch.rand(1) == expected
    logs = [one.log_prob for one in result.captions]
    assert logs == sorted(logs, reverse=True) and len({one.text for one in result.captions}) == 5
    drawn = {captioner.caption(PHOTOS[0], num_samples=1, seed=seed, max_length=6) for seed in range(5)}
    assert len(drawn) > 1


def test_a_bad_image_goes_on(models: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    good = tiny.save_images(tmp_path, 2)
    results = list(load(models / "blip").results([good[0], tmp_path / "bad.jpg", good[1]], max_length=4))
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, ImageError)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a minute of retries without a network, and an error that does not say what to do."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        MissingWeights, match="hf download Salesforce/blip-image-captioning-base --revision 82a3"
    ) as info:
        load("blip")
    assert str(info.value).count("\n") == 0 and "into /" in str(info.value)
    with pytest.raises(MissingWeights, match="hf download someone/something, or put"):
        load("hf:someone/something")
    for wrong in ("hf:", "hf:a/b/c", "hf:../x", "hf:a b"):
        with pytest.raises(UsageError, match="write hf:OWNER/NAME"):
            load(wrong)


def test_folders_that_are_no_captioners(models: Path, tmp_path: Path) -> None:
    """Would catch a traceback of transformers, and weights that are silently random."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a captioner that can be loaded"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(CheckpointError):
        load(tmp_path)
    for path in (models / "blip").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("vision_model.post_layernorm.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lack vision_model.post_layernorm.weight"):
        load(tmp_path)


def test_a_model_put_by_hand_is_found(models: Path) -> None:
    """The place that the error names must be one that is looked at."""
    from captioner.hub import cached_bytes, model_folder

    folder = model_folder("someone/tiny-git")
    folder.mkdir(parents=True)
    for path in (models / "git").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert load("hf:someone/tiny-git").caption(PHOTOS[0], max_length=5) == load(models / "git").caption(
        PHOTOS[0], max_length=5
    )
    assert cached_bytes("someone/tiny-git") > 50_000


def test_aliases() -> None:
    """Would catch a revision that is a branch, an alias without a license, and one that hides a model of ours."""
    for name, record in ALIASES.items():
        assert len(record.revision) == 40 and record.license and record.parameters and record.style, name
        assert find_pretrained(f"hf:{record.repository}").style is record.style  # type: ignore[union-attr]
        assert find_pretrained(name) is record
    assert find_pretrained("default") is None
    assert ALIASES["smolvlm"].style is CHAT


def test_answers_are_cleaned() -> None:
    assert clean_answer('<think>hm\nhm</think>\n "A dog\n runs." ') == "A dog runs."
    assert clean_answer('"A" and "B"') == '"A" and "B"'


def test_number_formats() -> None:
    assert number_format("float16", torch.device("cpu")) == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", pretrained.BUILDERS)
def test_on_a_gpu(models: Path, name: str) -> None:
    """Would catch inputs that stay on the processor, or have another number format than the weights."""
    captioner = load(models / name, device="cuda")
    assert captioner.caption(PHOTOS, max_length=5) == load(models / name).caption(PHOTOS, max_length=5)
