"""What is found, in which order, and why."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from captioner import load
from captioner.errors import UsageError
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.search import query
from captioner.search.index import Index
from captioner.search.query import by_sentence, duplicates, likelihoods, query_words, similar, unit
from tests import tiny
from tests.search.test_indexing import update


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> LRCNCaptioner:
    return load(tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, captioner: LRCNCaptioner) -> Index:
    folder = tmp_path_factory.mktemp("photos")
    tiny.save_images(folder / "photos", 12)
    shutil.copyfile(folder / "photos" / "03.png", folder / "photos" / "same.png")
    near = tiny.make_image(5, (80, 60))
    near.save(folder / "photos" / "near.png")
    update(folder / "index", captioner, folder / "photos")
    return Index(folder / "index")


def entry(index: Index, name: str) -> query.Entry:
    found = next(one for one in index.page(0, 100) if Path(one.path).name == name)
    return found


def test_similar_images_are_ordered_by_cosine(index: Index) -> None:
    """Would catch a ranking the wrong way round, a lost image, and a query that finds itself."""
    itself = entry(index, "03.png")
    (vector,) = index.vectors([itself])
    found = similar(index, vector, top=100, without=itself)
    everything = index.vectors(index.page(0, 100)) @ vector
    np.testing.assert_allclose(sorted([m.score for m in found] + [1.0]), np.minimum(np.sort(everything), 1), atol=1e-5)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert (Path(found[0].entry.path).name, found[0].why) == ("same.png", "the same file")
    assert itself.id not in [match.entry.id for match in found]
    cut = similar(index, vector, top=100, min_score=found[3].score, without=itself)
    assert cut == found[:4] and similar(index, vector, top=2, without=itself) == found[:2]


@pytest.mark.parametrize("sentence", ["a dog runs on the grass", "a zebra runs", "dog"])
def test_the_likelihood_is_the_models(captioner: LRCNCaptioner, index: Index, sentence: str) -> None:
    """Would catch a start or end that is left out, and an unknown word that makes everything impossible."""
    import torch

    entries = index.page(0, 5)
    features = np.stack([entry.norm for entry in entries])[:, None] * index.vectors(entries)
    found = likelihoods(captioner, features.astype(np.float32), sentence)
    numbers = captioner.checkpoint.outputs.encode(sentence.split())
    model = captioner.runtime.model  # type: ignore[attr-defined]
    tokens = torch.tensor([[1, *numbers]] * len(entries))
    with torch.no_grad():
        log_probs = model(torch.from_numpy(features.astype(np.float32)), tokens).log_softmax(-1)
    targets = [*numbers, 2]
    known = [place for place, number in enumerate(targets) if number != 3]
    wanted = log_probs[:, known, [targets[place] for place in known]].mean(1).exp()
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)


def test_a_sentence_finds_stems_first_and_ranks_by_likelihood(captioner: LRCNCaptioner, index: Index) -> None:
    """Would catch words that must be spelled as in the caption, and an order that ignores the model."""
    captions = {one.path: one.caption for one in index.page(0, 100)}
    word = max(
        (w for c in captions.values() for w in c.split() if w in ("dog", "beach", "ball", "grass", "woman")), key=len
    )
    found = by_sentence(index, captioner, f"the {word}s", top=100)
    wanted = {path for path, caption in captions.items() if word in caption.split()}
    assert {match.entry.path for match in found} == wanted
    assert all(f"its caption has {word}s" in match.why for match in found)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)


def test_where_no_word_is_found_the_model_ranks(
    captioner: LRCNCaptioner, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an empty answer although the model knows the words, and hours of work on a large index."""
    unused = next(
        w for w in tiny.WORDS[1:] if not any(w in e.caption.split() for e in index.page(0, 100)) and len(w) > 3
    )
    found = by_sentence(index, captioner, unused, top=3)
    assert len(found) == 3 and all("a word" in match.why and "caption" not in match.why for match in found)
    assert by_sentence(index, captioner, "zzz") == [], "a word that nobody knows finds nothing"
    monkeypatch.setattr(query, "FEW", 1)
    assert by_sentence(index, captioner, unused) == []


def test_words_are_never_commands(captioner: LRCNCaptioner, index: Index) -> None:
    """Would catch a sentence that is taken for the language of full-text search, or for SQL."""
    for sentence in ('dog" OR caption:*', "NEAR(dog beach)", "dog; DROP TABLE images", "^dog -beach", "caption : dog"):
        by_sentence(index, captioner, sentence)
    with pytest.raises(UsageError, match="no words to search for"):
        by_sentence(index, captioner, " ?! the")
    with pytest.raises(UsageError, match="top"):
        by_sentence(index, captioner, "dog", top=0)
    assert query_words("The dogs, the DOGS and a Café") == ["dogs", "café"]


def test_duplicates_are_grouped(index: Index) -> None:
    """Would catch copies that are missed, groups of one, and images that are alike to a degree only."""
    groups = [sorted(Path(match.entry.path).name for match in group) for group in duplicates(index, near=0.9999)]
    assert ["03.png", "same.png"] in groups and all(len(group) > 1 for group in groups)
    everything = duplicates(index, near=-1)
    assert len(everything) == 1 and len(everything[0]) == len(index)
    near = [sorted(Path(m.entry.path).name for m in g) for g in duplicates(index, near=0.995)]
    assert any({"05.png", "near.png"} <= set(group) for group in near)


def test_percentages_have_two_digits() -> None:
    """Would catch "0%" for what is improbable."""
    assert [query._percent(x) for x in (0.5, 0.0823, 0.0064, 1e-9)] == ["50%", "8.2%", "0.64%", "0.000000%"]
    assert math.isclose(float(np.linalg.norm(unit(np.array([3.0, 4.0])))), 1, rel_tol=1e-6)
