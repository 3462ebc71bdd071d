"""From images and cached features to captions in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from captioner import load
from captioner.data.images import find_named
from captioner.decoding import SEARCHES, How, Hypothesis
from captioner.decoding.config import DecodingConfig
from captioner.errors import CheckpointError, FeatureStoreError, ImageError, UsageError
from captioner.features.extract import extract
from captioner.features.store import FeatureStore
from captioner.predictors.lrcn import Captioner, Result, Search
from tests import tiny


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return load(tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny.save_images(tmp_path_factory.mktemp("images"), 4)


@pytest.fixture(scope="module")
def store(captioner: Captioner, images: list[Path]) -> FeatureStore:
    """Features of the images; what is about searching starts from them, because the network takes its time."""
    path = images[0].parent / "store.h5"
    extract(find_named([str(path.parent)]), captioner.backbones[0], path, workers=0, dtype="float32")
    return FeatureStore(path)


def texts(results: Iterator[Result]) -> list[str]:
    return [result.captions[0].text for result in results]


def test_path_image_and_list_give_the_same_caption(captioner: Captioner, images: list[Path]) -> None:
    """An image must not be prepared differently by the way it comes in."""
    one = captioner.caption(str(images[0]))
    assert isinstance(one, str)
    assert one
    with Image.open(images[0]) as image:
        assert captioner.caption(image) == one
    several = captioner.caption(images)
    assert several[0] == one
    assert len(set(several)) > 1, "the tiny model does not look at its images, so these tests prove nothing"


@pytest.mark.parametrize("options", [{"greedy": True}, {"beam": 4}, {"sample": 6, "temperature": 0.7}])
def test_neighbors_in_a_batch_change_nothing(captioner: Captioner, store: FeatureStore, options: dict) -> None:
    alone, three, all_at_once = (
        texts(captioner.caption_features(store, batch_size=size, **options)) for size in (1, 3, 16)
    )
    assert alone == three == all_at_once


def test_several_captions_are_ranked_and_different(captioner: Captioner, store: FeatureStore) -> None:
    for options in ({}, {"beam": 6}, {"sample": 50}):
        for result in captioner.caption_features(store, num_captions=5, **options):
            scores = [caption.log_prob for caption in result.captions]
            assert len({caption.text for caption in result.captions}) == len(scores) == 5
            assert scores == sorted(scores, reverse=True)
            assert scores[0] < 0


def test_several_captions_come_as_lists(captioner: Captioner, images: list[Path]) -> None:
    assert len(captioner.caption(images[0], num_captions=2)) == 2
    assert [len(ranked) for ranked in captioner.caption(images[:2], num_captions=2)] == [2, 2]


def test_sampling_follows_its_seed(captioner: Captioner, store: FeatureStore) -> None:
    drawn = [texts(captioner.caption_features(store, sample=1, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def silent(decoder: object, state: object, count: int, how: How) -> list[list[Hypothesis]]:
    """A search that says how wide it is, and nothing else."""
    return [[Hypothesis((), -float(how.width))] for _ in range(count)]


def test_any_search_can_be_named(captioner: Captioner, store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new search needs no line here; the names of the others mean what their own options mean."""
    monkeypatch.setitem(SEARCHES, "silent", f"{__name__}:silent")
    for options, width in (({}, 3), ({"beam": 6}, 6), ({"num_captions": 4}, 4)):
        [first, *_] = captioner.caption_features(store, search="silent", **options)
        assert (first.captions[0].text, first.captions[0].log_prob) == ("", -width)
    for name, options in (("greedy", {"greedy": True}), ("sample", {"sample": 100}), ("beam", {})):
        assert texts(captioner.caption_features(store, search=name)) == texts(
            captioner.caption_features(store, **options)
        )


def test_max_length_is_kept(captioner: Captioner, store: FeatureStore) -> None:
    for options in ({}, {"greedy": True}, {"sample": 5}):
        found = texts(captioner.caption_features(store, max_length=2, **options))
        assert all(len(text.split()) <= 2 for text in found)


def test_a_broken_image_does_not_stop_the_others(captioner: Captioner, images: list[Path], tmp_path: Path) -> None:
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


def test_images_are_taken_as_captions_are_made(captioner: Captioner, images: list[Path]) -> None:
    """Memory stays flat only if a long list is never read far ahead, and an abandoned one not to its end."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield images[taken % len(images)]

    results = captioner.results(endless(), batch_size=2, greedy=True)
    for number in range(1, 10):
        next(results)
        assert taken <= number + 8
    results.close()
    assert taken <= 17


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cached_feature_and_file_give_the_same_caption(
    captioner: Captioner, images: list[Path], tmp_path: Path, dtype: str
) -> None:
    """Training, extraction and captioning must prepare images in one way."""
    [backbone] = captioner.backbones
    extract(find_named([str(images[0].parent)]), backbone, tmp_path / "store.h5", workers=0, dtype=dtype)
    cached = {str(r.image): r.captions[0] for r in captioner.caption_features(FeatureStore(tmp_path / "store.h5"))}
    assert set(cached) == {path.name for path in images}
    for result in captioner.results(images):
        caption = cached[Path(result.image).name]
        assert caption.text == result.captions[0].text
        assert caption.log_prob == pytest.approx(result.captions[0].log_prob, abs=1e-4 if dtype == "float32" else 0.05)


def test_features_of_another_network_are_refused(captioner: Captioner, images: list[Path], tmp_path: Path) -> None:
    """Features of equal size from other weights give fluent nonsense, the worst kind of failure."""
    other = load(tiny.save_tiny(tmp_path / "other.safetensors", backbone_seeds=(5,)))
    extract(find_named(map(str, images[:1])), other.backbones[0], tmp_path / "store.h5", workers=0)
    store = FeatureStore(tmp_path / "store.h5")
    with pytest.raises(FeatureStoreError, match="store.h5.*tiny.safetensors"):
        captioner.caption_features(store)
    with pytest.raises(FeatureStoreError, match="needs 1 feature store"):
        captioner.caption_features([store, store])


def test_missing_features_are_reported_one_by_one(captioner: Captioner, images: list[Path], tmp_path: Path) -> None:
    extract(find_named(map(str, images[:2])), captioner.backbones[0], tmp_path / "store.h5", workers=0)
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
    for index, backbone in enumerate(both.backbones):
        extract(find_named([str(images[0].parent)]), backbone, tmp_path / f"{index}.h5", workers=0, dtype="float32")
        stores.append(FeatureStore(tmp_path / f"{index}.h5"))
    assert texts(both.caption_features(stores, [path.name for path in images])) == both.caption(images)
    with pytest.raises(FeatureStoreError):
        both.caption_features(stores[::-1])


def test_half_precision_file_computes_in_single_precision(
    captioner: Captioner, images: list[Path], tmp_path: Path
) -> None:
    half = load(tiny.save_tiny(tmp_path / "half.safetensors", dtype=torch.float16))
    tensors = [*half.model.parameters(), *half.backbones[0].parameters()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert half.caption(images[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beam": 3, "greedy": True}, "beam and greedy"),
        ({"beam": 3, "sample": 5}, "beam and sample"),
        ({"greedy": True, "sample": 5}, "greedy and sample"),
        ({"beam": 3, "search": "greedy"}, "beam and greedy"),
        ({"sample": 3, "search": "beam"}, "sample and beam"),
        ({"search": "widest"}, "no search 'widest'; there are: beam, greedy, sample"),
        ({"search": "greedy", "num_captions": 2}, "num_captions 2 is more than the 1 that greedy gives"),
        ({"temperature": 0.5}, "sample"),
        ({"sample": 5, "temperature": 0.0}, "between 0.001 and 1000"),
        ({"sample": 5, "temperature": float("nan")}, "between 0.001 and 1000"),
        ({"sample": -1}, "at least"),
        ({"sample": 1, "seed": -1}, "seed"),
        ({"beam": 0}, "at least 1"),
        ({"num_captions": 0}, "at least 1"),
        ({"max_length": 0}, "at least 1"),
        ({"no_repeat": -1}, "at least 0"),
        ({"length_penalty": 3.0}, "between 0 and 2"),
        ({"batch_size": 0}, "at least 1"),
        ({"beam": 2, "num_captions": 3}, "num_captions 3"),
        ({"greedy": True, "num_captions": 2}, "num_captions 2"),
    ],
)
def test_contradictions_are_refused_at_once(captioner: Captioner, options: dict, reason: str) -> None:
    """Before the first image, not when a generator is first advanced."""
    with pytest.raises(UsageError, match=reason):
        captioner.results([], **options)


def test_settings_left_open_are_the_checkpoints() -> None:
    """Would catch an option of 0, which is the paper's setting, taken for one that was not given."""
    own = DecodingConfig(beam_size=4, length_penalty=1.0, no_repeat_ngram_size=2, max_length=9)
    how = Search().how(own)
    assert (how.width, how.length_penalty, how.no_repeat, how.max_length) == (4, 1.0, 2, 9)
    paper = Search(length_penalty=0.0, no_repeat=0).how(own)
    assert (paper.width, paper.length_penalty, paper.no_repeat, paper.max_length) == (4, 0.0, 0, 9)


def test_what_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nonsense: no such model; give default"):
        load("nonsense")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load(tmp_path)
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="text.safetensors"):
        load(tmp_path / "text.safetensors")
    path = tiny.save_tiny(tmp_path / "best.safetensors")
    assert load(tmp_path).name == str(tmp_path), "the folder of a run stands for its best checkpoint"
    for device in ("toaster", "meta", "cuda:99"):
        with pytest.raises(UsageError, match=f"device {device}: .*cpu"):
            load(path, device=device)
