"""From images and cached features to captions in Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import load
from captioner.backbones import backbone as backbone_module
from captioner.data.images import find_named
from captioner.decoding import METHODS, DecodingConfig
from captioner.errors import CheckpointError, FeatureStoreError, ImageError, UsageError
from captioner.features.extract import extract
from captioner.features.store import FeatureStore
from captioner.predictors import Caption, Result
from captioner.predictors import features as features_module
from captioner.predictors.lrcn import LRCNCaptioner
from tests import tiny


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> LRCNCaptioner:
    return load(tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny.save_images(tmp_path_factory.mktemp("images"), 4)


@pytest.fixture(scope="module")
def store(captioner: LRCNCaptioner, images: list[Path]) -> FeatureStore:
    """Features of the images; tests of decoding start from them, because the network takes time."""
    path = images[0].parent / "store.h5"
    extract(find_named([str(path.parent)]), captioner.runtime.backbones[0], path, workers=0, dtype="float32")
    return FeatureStore(path)


def texts(results: Iterator[Result]) -> list[str]:
    return [result.captions[0].text for result in results]


def test_path_image_and_list_give_the_same_caption(captioner: LRCNCaptioner, images: list[Path]) -> None:
    """Would catch an image that is prepared differently depending on how it is given."""
    one = captioner.caption(str(images[0]))
    assert isinstance(one, str)
    assert one
    with Image.open(images[0]) as image:
        assert captioner.caption(image) == one
    several = captioner.caption(images)
    assert several[0] == one
    assert len(set(several)) > 1, "the tiny model ignores its images, so these tests prove nothing"


@pytest.mark.parametrize("options", [{"method": "greedy"}, {"beam_size": 4}, {"num_samples": 6, "temperature": 0.7}])
def test_neighbors_in_a_batch_change_nothing(captioner: LRCNCaptioner, store: FeatureStore, options: dict) -> None:
    alone, three, all_at_once = (
        texts(captioner.caption_features(store, batch_size=size, **options)) for size in (1, 3, 16)
    )
    assert alone == three == all_at_once


def test_memory_does_not_grow_with_beams_and_batches(
    captioner: LRCNCaptioner, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch gigabytes for a wide beam or a large batch, and captions that depend on how they are divided."""
    seen = {"images": 0, "rows": 0}
    step, network = captioner.runtime.model.step, captioner.runtime.backbones[0].forward

    def spy_step(tokens: torch.Tensor, state: Any) -> Any:
        seen["rows"] = max(seen["rows"], len(tokens))
        return step(tokens, state)

    def spy_network(pixels: torch.Tensor) -> torch.Tensor:
        seen["images"] = max(seen["images"], len(pixels))
        return network(pixels)

    monkeypatch.setattr(captioner.runtime.model, "step", spy_step)
    monkeypatch.setattr(captioner.runtime.backbones[0], "forward", spy_network)
    whole = texts(captioner.results(images))
    assert seen["images"] == 4 and seen["rows"] == 12
    seen.update(images=0, rows=0)
    monkeypatch.setattr(features_module, "ROWS_AT_ONCE", 7)
    monkeypatch.setitem(backbone_module.IMAGES_AT_ONCE, "cpu", 3)
    assert texts(captioner.results(images)) == whole
    assert seen == {"images": 3, "rows": 6}


def test_several_captions_are_ranked_and_different(captioner: LRCNCaptioner, store: FeatureStore) -> None:
    for options in ({}, {"beam_size": 6}, {"num_samples": 50}):
        for result in captioner.caption_features(store, num_return_sequences=5, **options):
            scores = [caption.log_prob for caption in result.captions]
            assert len({caption.text for caption in result.captions}) == len(scores) == 5
            assert scores == sorted(scores, reverse=True)
            assert scores[0] < 0


def test_several_captions_come_as_lists(captioner: LRCNCaptioner, images: list[Path]) -> None:
    assert len(captioner.caption(images[0], num_return_sequences=2)) == 2
    assert [len(ranked) for ranked in captioner.caption(images[:2], num_return_sequences=2)] == [2, 2]


def test_sampling_follows_its_seed(captioner: LRCNCaptioner, store: FeatureStore) -> None:
    drawn = [texts(captioner.caption_features(store, num_samples=1, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("method", METHODS)
def test_max_length_is_kept(captioner: LRCNCaptioner, store: FeatureStore, method: str) -> None:
    found = texts(captioner.caption_features(store, max_length=2, method=method))
    assert all(len(text.split()) <= 2 for text in found)


@pytest.mark.parametrize("item", fields(DecodingConfig), ids=lambda item: item.name)
def test_every_decoding_field_is_a_keyword_of_caption(
    captioner: LRCNCaptioner, images: list[Path], item: Field[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a field that is lost on the way from caption() to the decoder."""
    value = "greedy" if item.name == "method" else 0.5 if item.type == "float" else 2
    method = {"method": "sample"} if item.name in ("temperature", "seed") else {}
    seen: list[DecodingConfig] = []

    def decode(features: torch.Tensor, config: DecodingConfig) -> list[tuple[Caption, ...]]:
        seen.append(config)
        return [(Caption("", 0.0),)]

    monkeypatch.setattr(captioner, "decode", decode)
    captioner.caption(images[0], **method, **{item.name: value})
    captioner.caption(images[0])
    changed, own = seen
    assert getattr(changed, item.name) == value != getattr(own, item.name)
    assert own == captioner.checkpoint.config.decoding


def test_a_broken_image_does_not_stop_the_others(captioner: LRCNCaptioner, images: list[Path], tmp_path: Path) -> None:
    """One bad file in a batch must neither shift the captions of the rest nor end the run."""
    broken = tmp_path / "text.jpg"
    broken.write_text("no image")
    wanted = captioner.caption(images)
    earlier = ImageError("folder", "no images in this folder")
    results = list(captioner.results([earlier, images[0], broken, *images[1:]], batch_size=3))
    assert [result.error is None for result in results] == [False, True, False, *[True] * 3]
    assert [result.captions[0].text for result in results if result.captions] == wanted
    assert results[0].error is earlier
    assert (results[2].image, Path(results[2].error.path)) == (broken, broken)
    with pytest.raises(ImageError, match="text.jpg"):
        captioner.caption([images[0], broken])


def test_images_are_taken_as_captions_are_made(captioner: LRCNCaptioner, images: list[Path]) -> None:
    """Memory stays flat only if a long list is never read far ahead, and an abandoned one not to its end."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield images[taken % len(images)]

    results = captioner.results(endless(), batch_size=2, method="greedy")
    for number in range(1, 10):
        next(results)
        assert taken <= number + 8
    results.close()
    assert taken <= 17


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cached_feature_and_file_give_the_same_caption(
    captioner: LRCNCaptioner, images: list[Path], tmp_path: Path, dtype: str
) -> None:
    """Training, extraction and captioning must prepare images in one way."""
    [backbone] = captioner.runtime.backbones
    extract(find_named([str(images[0].parent)]), backbone, tmp_path / "store.h5", workers=0, dtype=dtype)
    cached = {str(r.image): r.captions[0] for r in captioner.caption_features(FeatureStore(tmp_path / "store.h5"))}
    assert set(cached) == {path.name for path in images}
    for result in captioner.results(images):
        caption = cached[Path(result.image).name]
        assert caption.text == result.captions[0].text
        assert caption.log_prob == pytest.approx(result.captions[0].log_prob, abs=1e-4 if dtype == "float32" else 0.05)


def test_features_of_another_network_are_refused(captioner: LRCNCaptioner, images: list[Path], tmp_path: Path) -> None:
    """Features of equal size from other weights give fluent nonsense, the worst kind of failure."""
    other = load(tiny.save_tiny(tmp_path / "other.safetensors", backbone_seeds=(5,)))
    extract(find_named(map(str, images[:1])), other.runtime.backbones[0], tmp_path / "store.h5", workers=0)
    store = FeatureStore(tmp_path / "store.h5")
    with pytest.raises(FeatureStoreError, match="store.h5.*tiny.safetensors"):
        captioner.caption_features(store)
    with pytest.raises(FeatureStoreError, match="needs 1 feature store"):
        captioner.caption_features([store, store])


def test_missing_features_are_reported_one_by_one(captioner: LRCNCaptioner, images: list[Path], tmp_path: Path) -> None:
    extract(find_named(map(str, images[:2])), captioner.runtime.backbones[0], tmp_path / "store.h5", workers=0)
    store = FeatureStore(tmp_path / "store.h5")
    results = list(captioner.caption_features(store, ["00.png", "99.png", "01.png"]))
    assert [result.error is None for result in results] == [True, False, True]
    assert "99.png" in str(results[1].error)
    with pytest.raises(FeatureStoreError, match="none of"):
        list(captioner.caption_features(store, ["98.png", "99.png"]))


def test_features_of_several_networks_are_joined(images: list[Path], tmp_path: Path) -> None:
    """The order of the backbones in the checkpoint, of the features and of the stores is one."""
    both = load(tiny.save_tiny(tmp_path / "both.safetensors", backbone_seeds=(0, 5)))
    stores = []
    for index, backbone in enumerate(both.runtime.backbones):
        extract(find_named([str(images[0].parent)]), backbone, tmp_path / f"{index}.h5", workers=0, dtype="float32")
        stores.append(FeatureStore(tmp_path / f"{index}.h5"))
    assert texts(both.caption_features(stores, [path.name for path in images])) == both.caption(images)
    with pytest.raises(FeatureStoreError):
        both.caption_features(stores[::-1])


def test_half_precision_file_computes_in_single_precision(
    captioner: LRCNCaptioner, images: list[Path], tmp_path: Path
) -> None:
    half = load(tiny.save_tiny(tmp_path / "half.safetensors", dtype=torch.float16))
    tensors = [*half.runtime.model.parameters(), *half.runtime.backbones[0].parameters()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert half.caption(images[0])


@pytest.mark.parametrize(
    "options", [{"beam_size": 3, "num_samples": 5}, {"batch_size": 0}, {"batch_size": 10**9}, {"beem": 3}]
)
def test_contradictions_are_refused_at_once(captioner: LRCNCaptioner, store: FeatureStore, options: dict) -> None:
    """Before the first image, not when a generator is first advanced."""
    for call in (captioner.caption, captioner.results):
        with pytest.raises(UsageError):
            call([], **options)
    with pytest.raises(UsageError):
        captioner.caption_features(store, **options)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_that_are_no_numbers_are_an_error(tmp_path: Path, method: str) -> None:
    """Would catch finite weights that make NaN, and empty captions of it."""
    captioner = load(tiny.save_tiny(tmp_path / "tiny.safetensors"))
    captioner.runtime.model.embedding.weight.data.fill_(3e38)
    for parameter in captioner.runtime.model.parameters():
        parameter.data.mul_(3e38)
    with pytest.raises(CheckpointError, match="gives probabilities that are not numbers"):
        captioner.decode(np.ones((2, captioner.runtime.model.feature_size), np.float32), DecodingConfig(method=method))
