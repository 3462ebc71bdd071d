"""Retrieval by likelihood: the scores of all pairs, keys, ranks, chance, and the command that may be killed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.errors import ConfigError
from captioner.models import likelihood
from captioner.models.encoder_decoder import EncoderDecoder
from captioner.models.likelihood import log_likelihoods, prefix_tree
from captioner.models.lrcn import LRCNConfig
from captioner.models.stack import CELLS, State
from captioner.models.wirings import WIRINGS
from captioner.train.trainer import train
from eval import retrieval
from eval.retrieval import Collection, chance, keyed, main, nearest_neighbor, ranks
from tests import toy
from tests.models.test_models import FEATURE, build
from tests.oracles import likelihood as naive

# Beginnings shared and not, one caption that begins another, twins, an unknown word (3), and nothing at all.
CAPTIONS = [[4, 5, 6], [4, 5], [4, 5, 7, 8, 9, 4], [10, 4], [4, 5, 6], [3, 5], [], [5]]


def features(count: int) -> torch.Tensor:
    return torch.randn(count, FEATURE, generator=torch.Generator().manual_seed(2))


def expected(model: torch.nn.Module, images: torch.Tensor, captions: list[list[int]]) -> torch.Tensor:
    return torch.tensor([[naive.log_likelihood(model, image, caption) for caption in captions] for image in images])


@pytest.mark.parametrize("options", [{}, {"residual": True, "tied": True, "image_dim": 0}], ids=["plain", "all"])
@pytest.mark.parametrize(("wiring", "cell"), list(itertools.product(WIRINGS, CELLS)))
def test_all_pairs_equal_the_whole_model_on_each(
    wiring: str, cell: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a layer split wrongly, gates in another order, a state of another prefix or image, a lost end."""
    monkeypatch.setattr(likelihood, "ROWS", 10)  # several rounds of images, the last one smaller
    monkeypatch.setattr(likelihood, "SOFTMAX_ROWS", 3)
    model = build(wiring=wiring, cell=cell, **options)
    images = features(5)
    found = log_likelihoods(model, images, CAPTIONS)
    assert found.shape == (5, len(CAPTIONS)) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected(model, images, CAPTIONS), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_states_that_an_encoder_has_read_are_those_of_their_image(wiring: str) -> None:
    """Would catch: layers of language that start from zero, or from another image's words."""
    torch.manual_seed(3)
    config = LRCNConfig("encoder_decoder", wiring, embedding_dim=7, hidden_dim=8, image_dim=5, normalize="none")
    names = ["activity=take out", "tool=knife", "tool=-", "object=carrot", "object=bowl", "source=fridge"]
    model = EncoderDecoder(config, 11, len(names), names).eval()
    images = (features(4) > 0).float()
    torch.testing.assert_close(
        log_likelihoods(model, images, CAPTIONS), expected(model, images, CAPTIONS), atol=2e-5, rtol=1e-5
    )


def test_neighbors_change_nothing() -> None:
    """Would catch: captions or images that leak into one another through the tree or the batch."""
    model = build(wiring="2f")
    together = log_likelihoods(model, features(4), CAPTIONS)
    for image, caption in itertools.product(range(4), range(len(CAPTIONS))):
        alone = log_likelihoods(model, features(4)[image : image + 1], [CAPTIONS[caption]])
        torch.testing.assert_close(together[image, caption], alone[0, 0], atol=1e-5, rtol=1e-5)


def test_huge_logits_are_normalized_as_well() -> None:
    """Would catch: exp overflowing or vanishing in the log-normalizer that goes without a maximum."""
    for shift in (200.0, -200.0, 85.0, -85.0):
        model = build(wiring="1u")
        before = log_likelihoods(model, features(2), CAPTIONS)
        with torch.no_grad():
            model.lm_head.bias += shift
        torch.testing.assert_close(log_likelihoods(model, features(2), CAPTIONS), before, atol=1e-3, rtol=1e-5)


def test_language_layers_read_each_prefix_once() -> None:
    """Would catch: layers under the image that run once for each image again."""
    rows = {"lstm": 0}

    def counted(inputs: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
        rows["lstm"] += recurrent[..., 0].numel()
        return CELLS["lstm"].gate(inputs, recurrent, state)

    model = build(wiring="4f")
    model.stack.kind = replace(CELLS["lstm"], gate=counted)
    prefixes = sum(len(level.words) for level in prefix_tree(CAPTIONS))
    assert prefixes == len({tuple(caption[:length]) for caption in CAPTIONS for length in range(len(caption) + 1)})
    log_likelihoods(model, features(6), CAPTIONS)
    assert rows["lstm"] == prefixes + 3 * 6 * prefixes  # one layer of language, three that have seen the image


def test_precision_is_near_restored_and_named() -> None:
    """Would catch: bfloat16 that changes the scores, or that stays switched on for whatever comes after."""
    model = build(wiring="2f").train()
    exact = log_likelihoods(model, features(3), CAPTIONS)
    before = torch.get_float32_matmul_precision()
    rough = log_likelihoods(model, features(3), CAPTIONS, "bfloat16")
    assert torch.get_float32_matmul_precision() == before and model.training
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.01)
    with pytest.raises(ConfigError, match="precision: 'half' is not one of float32, bfloat16"):
        log_likelihoods(model, features(3), CAPTIONS, "half")


def test_keys_equal_their_formula() -> None:
    """Would catch: a mean over captions, of logarithms, or that underflows for long captions."""
    random = np.random.default_rng(0)
    log_probs = random.normal(-30, 5, (6, 4)).astype(np.float32)
    np.testing.assert_allclose(keyed(log_probs, "normalized"), naive.normalized(log_probs.tolist()), atol=1e-10)
    np.testing.assert_array_equal(keyed(log_probs, "likelihood"), log_probs)
    assert np.isfinite(keyed(log_probs - 5000, "normalized")).all()


def test_ranks_equal_plain_loops_and_ties_count_against() -> None:
    """Would catch: the worst right answer instead of the best, or a model of one score that is always right."""
    random = np.random.default_rng(1)
    owner = np.repeat(np.arange(5), 3)
    scores = random.integers(0, 6, (5, 15))
    plain = [naive.rank(row.tolist(), (owner == image).tolist()) for image, row in enumerate(scores)]
    np.testing.assert_array_equal(ranks(scores, np.arange(5), owner), plain)
    np.testing.assert_array_equal(ranks(np.zeros((5, 15)), np.arange(5), owner), [13] * 5)
    np.testing.assert_array_equal(ranks(np.full((15, 5), np.nan), owner, np.arange(5)), [5] * 15)


def test_chance_is_what_random_orders_give() -> None:
    """Would catch: k / C where several answers are right, or a median off by one."""
    orders = list(itertools.permutations([True, True, False, False, False]))
    best = np.array([order.index(True) + 1 for order in orders])
    found = chance([2], 5)
    assert found["R@1"] == pytest.approx(100 * (best <= 1).mean())
    assert found["R@5"] == found["R@10"] == pytest.approx(100)
    assert found["median rank"] == np.sort(best)[len(best) // 2 - 1]
    assert chance([1] * 7, 1000) == {"R@1": pytest.approx(0.1), "R@5": pytest.approx(0.5), "R@10": pytest.approx(1)} | {
        "median rank": 500
    }
    owner = np.repeat(np.arange(100), 5)
    random = np.random.default_rng(2)
    drawn = np.concatenate([ranks(random.random((100, 500)), np.arange(100), owner) for _ in range(20)])
    assert chance([5] * 100, 500)["R@10"] == pytest.approx(100 * (drawn <= 10).mean(), abs=1.5)
    assert chance([5] * 100, 500)["median rank"] == pytest.approx(np.median(drawn), abs=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny training run, with the data it knows beside it."""
    folder = tmp_path_factory.mktemp("retrieval")
    data = toy.make_data(folder)
    train(toy.experiment(data, folder / "run", train__epochs=8))
    return folder / "run"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, dict[str, float]]]:
    assert main([*map(str, arguments), "--split", "val", "--json"]) == 0
    scores: dict[str, dict[str, dict[str, float]]] = json.loads(capsys.readouterr().out)["scores"]
    return scores


def test_a_killed_run_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch: blocks that are lost, half written, mixed up with those of other settings, or scored again."""
    monkeypatch.setattr(retrieval, "BLOCK", 3)
    whole = printed(capsys, run, "--captions", "all", "--scores", tmp_path / "whole")
    (blocks,) = (tmp_path / "whole").iterdir()
    calls = 0

    def killed(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise SystemError
        return log_likelihoods(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retrieval, "log_likelihoods", killed)
    with pytest.raises(SystemError):
        printed(capsys, run, "--captions", "all", "--scores", tmp_path / "killed")
    assert len(list((tmp_path / "killed" / blocks.name).iterdir())) == 3
    calls = 10
    assert printed(capsys, run, "--captions", "all", "--scores", tmp_path / "killed") == whole
    assert calls - 10 == len(list(blocks.iterdir())) - 3
    for path in blocks.iterdir():
        np.testing.assert_array_equal(np.load(path), np.load(tmp_path / "killed" / blocks.name / path.name))
    other = printed(capsys, run, "--captions", "all", "--scores", tmp_path / "killed", "--precision", "float32")
    assert len(list((tmp_path / "killed").iterdir())) == 2 and other.keys() == whole.keys()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"[[" * 99, "other shape", "nan", "pipe"])
def test_a_damaged_block_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str
) -> None:
    """Would catch a traceback, or a table of NaN, where the disk was full."""
    printed(capsys, run, "--scores", tmp_path)
    [block] = tmp_path.glob("*/00000.npy")
    scores = np.load(block)
    if isinstance(content, bytes):
        block.write_bytes(content)
    elif content == "pipe":
        block.unlink()
        os.mkfifo(block)
    else:
        np.save(block, scores[:, :0] if content == "other shape" else scores * np.nan)
    assert main([str(run), "--split", "val", "--scores", str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {block}: ") and ("delete it" in error or "not a regular file" in error)


def test_the_command_finds_what_the_model_has_learned(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch: directions that are swapped, rows of other images, keys that do not reach the ranks."""
    scores = printed(capsys, run)
    model, other, drawn = scores.values()
    for direction in retrieval.DIRECTIONS:
        assert model[direction]["R@1"] > drawn[direction]["R@1"] + 15
        assert model[direction]["median rank"] < drawn[direction]["median rank"]
        assert other[direction]["R@10"] > 0
    plain = printed(capsys, run, "--key", "likelihood")
    (system,) = plain.keys() - scores.keys()
    assert plain[system]["caption to image"] == model["caption to image"]
    assert plain[system]["image to caption"] != model["image to caption"]
    assert main([str(run), "--split", "val"]) == 0
    table = capsys.readouterr().out
    assert table.count("\n| caption to image |") == table.count("\n| image to caption |") == 3
    assert "images:12|captions:12 (the first of each image)|key:normalized|precision:bfloat16" in table
    shutil.rmtree(run / "retrieval")


def test_neighbors_go_by_way_of_the_training_set(run: Path) -> None:
    """Would catch: likeness taken to the wrong image, or a neighbor found among the test captions themselves."""
    from captioner.features.store import FeatureStore
    from captioner.features.writer import FeatureWriter

    store = run.parent / "near.h5"
    with FeatureWriter(store, toy.SPEC, "near") as writer:
        for name, place in {"a": 0, "b": 1, "c": 2, "x": 2, "y": 1, "z": 0}.items():
            writer.add(name, np.eye(toy.DIMENSION, dtype=np.float32)[place] * (5 if name < "m" else 1))
    texts = {"a": "a red kite flies", "b": "two dogs run on grass", "c": "one man sits by water"}
    learned = Collection([*texts], [[text] for text in texts.values()])
    asked = {"x": "the man sits by water", "y": "dogs run on grass", "z": "red kite flies"}
    test = Collection([*asked], [[text] for text in asked.values()])
    for scores in nearest_neighbor([FeatureStore(store)], learned, test):
        assert scores["R@1"] == 100


def test_errors_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch: a trace where a split or a store is wrong."""
    assert main([str(tmp_path / "none")]) == 1
    assert main([str(run), "--split", "test"]) == 1  # the toy data set has none
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("error: ")


@pytest.mark.shared_data
def test_real_captions_share_a_third_of_their_words(shared_data: Path) -> None:
    """Would catch: a tree that no longer joins beginnings, on the captions that the time is promised for."""
    from captioner.data import read_dataset
    from captioner.data.records import of_split
    from captioner.text.tokenizers import tokenize

    records = of_split(read_dataset("flickr8k", shared_data / "flickr8k"), "test")
    texts = sorted(tokenize(record.captions[0]) for record in records)
    numbers = {word: number for number, word in enumerate(sorted({word for text in texts for word in text}), 4)}
    captions = [[numbers[word] for word in text] for text in texts]
    prefixes = sum(len(level.words) for level in prefix_tree(captions))
    assert len(captions) == 1000
    assert prefixes < 0.8 * sum(len(caption) + 1 for caption in captions)
