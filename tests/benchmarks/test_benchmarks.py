"""The benchmarks run and compare like with like; what they measure is for ``make bench`` to say."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    captioning,
    classification,
    decoding,
    extraction,
    gradients,
    load,
    memory,
    motion,
    recognition,
    run,
    scale,
    scoring,
    search,
    startup,
    tokens,
    training,
)
from benchmarks.measure import AT_MOST, Measurement, compare
from captioner.checkpoint import load_checkpoint
from captioner.decoding.config import DecodingConfig
from captioner.errors import CaptionerError
from captioner.predictors import find_model
from captioner.predictors import load as load_model
from captioner.text.vocabulary import END
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    tiny.make_image(0, (300, 200)).save(path)
    return path


def check(results: list[Measurement]) -> None:
    assert results
    assert all(0 < one.low <= one.high and one.ratio > 0 and one.ours > 0 for one in results)


def test_extraction(photo: Path) -> None:
    check(extraction.measure(count=3, batch_size=2, workers=0, rounds=1, networks=("compact",), photo=photo))


def test_captioning(model: str, photo: Path) -> None:
    check(captioning.measure(count=3, batch_size=2, rounds=1, photo=photo, model=model))


def test_scale(photo: Path) -> None:
    """Would catch runs that find their shards finished, or that lack a captioned image."""
    check(scale.measure(count=4, shards=2, many=11, rounds=1, photo=photo))


def test_engines(photo: Path) -> None:
    """Would catch a comparison of runs that are finished already, and one on other cores than it says."""
    if not find_spec("ray") and not shutil.which("taskset"):
        pytest.skip("needs Ray or taskset")
    try:
        check(scale.measure_engines(count=2, shards=2, rounds=1, photo=photo))
    except CaptionerError as error:
        if "timed out during startup" in str(error):  # the 30 seconds are Ray's own
            pytest.skip("this machine is too busy for Ray to start")
        raise


def test_runtimes(photo: Path) -> None:
    check(captioning.measure_runtimes(count=3, batch_size=2, rounds=1, photo=photo))


def test_training() -> None:
    sizes = [f"model.{name}=6" for name in ("hidden_dim", "embedding_dim", "image_dim")]
    check(training.measure(steps=2, rounds=1, words=30, feature_size=5, settings=[*sizes, "train.batch_size=6"]))
    check(
        training.measure(
            2, 1, 30, 5, [*sizes, "train.batch_size=6", "data.gold_share=[0, 0]"], "tacos-c", training.TACOS
        )
    )


def test_classification() -> None:
    check(classification.measure(count=20, rounds=1))
    check(classification.measure_normalization(batch_size=2, rounds=1))


def test_gradients() -> None:
    check(gradients.measure(steps=1, rounds=1, hidden=6, words=9, batch_size=4))


def test_decoding(model: str) -> None:
    check(decoding.measure(model, batch_size=2, count=3, few=2, rounds=1))


def test_the_rerunning_beam_finds_what_the_beam_finds(model: str) -> None:
    """A baseline that does other work would make the ratio worthless."""
    checkpoint = load_checkpoint(model)
    features = decoding.random_features(checkpoint.model, 4)
    ours, theirs = (
        decoding.decode(decoder, decoder.start(features), 4, checkpoint)
        for decoder in (checkpoint.model, decoding.Rerunning(checkpoint.model))
    )
    assert [[h.ids for h in one] for one in ours] == [[h.ids for h in one] for one in theirs]


@pytest.mark.slow
@pytest.mark.java
def test_scoring() -> None:
    """Both sides give the same scores; would catch a baseline that scores something else."""
    pytest.importorskip("pycocoevalcap")
    captions = scoring.draw(50)
    assert scoring.ours(*captions) == pytest.approx(scoring.theirs(*captions), abs=1e-8)
    check(scoring.measure(count=20, rounds=1))
    check(scoring.measure_memory(count=1000))


def test_tokens() -> None:
    """Would catch a memory of words that is warm, with which ours does not tokenize at all."""
    pytest.importorskip("nltk")
    check(tokens.measure(count=20, rounds=1))


def test_startup(photo: Path, model: str) -> None:
    """Would catch a command line that is not the program's."""
    check(startup.measure(rounds=1, warm_up=False, photo=photo, model=model))


def test_memory_is_the_commands_own(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    """On Linux a process takes over the peak of its parent, here several times what the command itself needs."""
    program = "import os, sys; p = sys.argv[2]; b'x' * (2**20 * (len(os.listdir(p)) if os.path.isdir(p) else 1))"
    monkeypatch.setattr(memory, "captioner_command", lambda: [sys.executable, "-c", program])
    result, one = memory.measure(count=40, photo=photo)
    assert 40 < result.ours < 75
    assert 20 < result.ours - result.baseline < 32
    assert 0 < one.ours < result.baseline
    monkeypatch.setattr(memory, "captioner_command", lambda: [sys.executable, "-c", "raise SystemExit('broken')"])
    with pytest.raises(CaptionerError, match="broken"):
        memory.measure(count=1, photo=photo)


def test_rounds_are_taken_in_turns_and_the_first_does_not_count() -> None:
    called = []

    def piece(name: str, values: list[float]) -> float:
        called.append(name)
        return values.pop(0)

    ours, theirs = [99.0, 1.0, 4.0, 3.0], [1.0, 2.0, 2.0, 4.0]
    result = compare("x", "s", lambda: piece("a", ours), lambda: piece("b", theirs), rounds=3)
    assert "".join(called) == "baabbaab"
    assert (result.ours, result.baseline, result.ratio, result.low, result.high) == (3, 2, 1.5, 0.5, 2)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9, "PASS"), (1.1, "MISS")])
def test_table_and_csv_say_whether_a_target_is_met(tmp_path: Path, ratio: float, verdict: str) -> None:
    rows = [Measurement("x, y", ratio, 1, 1, "s", 1, ratio, ratio, 1.0, AT_MOST)]
    assert verdict in run.table(rows).splitlines()[1]
    for _ in range(2):
        run.append(tmp_path / "results.csv", rows)
    with (tmp_path / "results.csv").open(encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    assert [(row["benchmark"], row["verdict"], row["direction"]) for row in read] == [("x, y", verdict, AT_MOST)] * 2
    assert all(row["torch"] and torch.__version__.startswith(row["torch"].split("+")[0]) for row in read)


def test_a_benchmark_that_cannot_run_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> list[Measurement]:
        raise CaptionerError("photo.jpg is missing")

    monkeypatch.setattr(startup, "measure", missing)
    assert run.main(["startup"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: startup: photo.jpg is missing"


def test_recognition() -> None:
    """The benchmark compares like with like: frames, pairs and steps."""
    pytest.importorskip("av", reason="needs the extra video")
    pytest.importorskip("cv2", reason="needs the extra flow")
    check(recognition.measure(count=2, rounds=1))


def test_search(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    """Would catch a graph or an index that is not searched at all."""
    pytest.importorskip("usearch", reason="needs the extra search")
    few = np.random.default_rng(0).random((40, 1280), np.float32)
    monkeypatch.setattr(search, "real_features", lambda: few)
    check(search.measure_exact(count=100, rounds=1))
    check(search.measure_graph(count=300, rounds=1))
    check(search.measure_indexing(count=3, batch_size=2, rounds=1, photo=photo))
    check(search.measure_start(count=50, rounds=1))


def test_load(photo: Path) -> None:
    """Would catch clients that never get an answer."""
    check(load.measure(clients=2, duration=1.5, photo=photo)[:3])


def test_drawn_vectors_are_like_the_features() -> None:
    """Would catch vectors whose neighbors are nothing like those of real features."""
    features = np.random.default_rng(0).random((500, 20)).astype(np.float32) * np.arange(1, 21)
    drawn = search.draw(features, 20_000, 0)
    wanted = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(drawn.mean(0), wanted.mean(0), atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_memory_of_a_video() -> None:
    """Would catch frames of a whole video that are kept: the memory of 30 minutes would show."""
    pytest.importorskip("av", reason="needs the extra video")
    [one] = recognition.measure_memory(minutes=30)
    assert one.ratio < 1.2


@pytest.mark.parametrize("problem", sorted(motion.PROBLEMS))
def test_single_frames_of_motion_classes_are_alike(problem: str) -> None:
    """Would catch a class that one frame, or the mean of all, gives away."""
    videos = [
        [motion.PROBLEMS[problem](second, np.random.default_rng([seed, second])) for seed in range(2000)]
        for second in (False, True)
    ]
    one, other = (np.array(some) for some in videos)  # (2000, T, SIDE, SIDE)
    assert one.shape == (2000, motion.FRAMES, motion.SIDE, motion.SIDE) and 0 <= one.min() < one.max() <= 255
    assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() < 0.15 * one.mean((0, 1)).max()
    assert np.abs(one.std((0, 1)) - other.std((0, 1))).max() < 0.15 * one.std((0, 1)).max()


@pytest.mark.slow
def test_published(tmp_path: Path, photo: Path) -> None:
    """Would catch sides that do other work: our adapter and plain generate give the same captions."""
    pytest.importorskip("transformers", reason="needs the extra transformers")
    from benchmarks import published
    from captioner import load
    from captioner.predictors.generate import quiet
    from tests.pretrained import save_tiny

    with quiet():
        folder = save_tiny("vit-gpt2", tmp_path / "tiny")
        check(published.measure(count=2, rounds=1, photo=photo, models={"tiny": folder}))
        plain = published.plain_generate(folder)([photo, photo])
    assert load(folder).caption([photo, photo], method="greedy", max_length=published.LENGTH) == plain
    assert published.installed_bytes("pip") > 2**20


def test_beams_on_one_lstm(model: str) -> None:
    """Would catch a baseline that searches something else: nearly all captions are those of our beam."""
    pytest.importorskip("transformers", reason="needs the extra transformers")
    from benchmarks import generate_beam

    check(generate_beam.measure(model, count=2, rounds=1))
    checkpoint = load_checkpoint(model)
    features = decoding.random_features(checkpoint.model, 32)
    with torch.inference_mode():
        ours = decoding.decode(checkpoint.model, checkpoint.model.start(features), 32, checkpoint)
        theirs = generate_beam.generate_beam(checkpoint)(features)
    assert sum(list(one[0].ids) == other for one, other in zip(ours, theirs, strict=True)) >= 24


TUTORIAL = '''
import torch
from scipy.misc import imread, imresize
def caption_image_beam_search(encoder, decoder, image_path, word_map, beam_size=3):
    """Greedy, through everything that the tutorial asks of its model."""
    image = imresize(imread(image_path), (256, 256)).transpose(2, 0, 1)
    seen = encoder(torch.FloatTensor(image)[None]).view(1, 1, -1)
    h, c = decoder.init_hidden_state(seen)
    words = [word_map["<start>"]]
    while words[-1] != word_map["<end>"] and len(words) < 20:
        inputs = decoder.embedding(torch.LongTensor([words[-1:]])).squeeze(1)
        awe, alpha = decoder.attention(seen, h)
        awe = decoder.sigmoid(decoder.f_beta(h)) * awe
        h, c = decoder.decode_step(torch.cat([inputs, awe], dim=1), (h, c))
        top_k_words = decoder.fc(h).argmax(1)
        vocab_size = len(word_map)
        assert top_k_words / vocab_size == 0
        words.append(int(top_k_words))
    return words, None
'''


def test_tutorial_beam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a model that says other words to the tutorial's search than to ours, and rows without it."""
    from benchmarks import tutorial_beam
    from benchmarks.decoding import decode, random_features

    if folder := os.environ.get(tutorial_beam.FOLDER):
        default = load_checkpoint(find_model("default"))  # sentences of a random model do not end
        features = random_features(default.model, 8)
        theirs = tutorial_beam.tutorial_beam(Path(folder), default)
        with torch.inference_mode():
            ours = decode(default.model, default.model.start(features), 8, default)
        wanted = [[number for number in best.ids if number != END] for best, *_ in ours]
        same = sum(theirs(one) == words for one, words in zip(features, wanted, strict=True))
        assert same >= 6, "it drops a beam for each finished sentence"
    checkpoint = load_checkpoint(model)
    features = random_features(checkpoint.model, 8)
    monkeypatch.delenv(tutorial_beam.FOLDER, raising=False)
    assert tutorial_beam.measure(model) == [] and "skipped" in capsys.readouterr().err
    (tmp_path / "caption.py").write_text(TUTORIAL)
    monkeypatch.setenv(tutorial_beam.FOLDER, str(tmp_path))
    check(tutorial_beam.measure(model, count=2, rounds=1))
    search = tutorial_beam.tutorial_beam(tmp_path, checkpoint)
    captioner = load_model(model)
    for one in features:
        wanted = captioner.decode(one[None].numpy(), DecodingConfig("greedy", max_length=19))[0][0].text
        assert checkpoint.outputs.decode(search(one)) == wanted
    with pytest.raises(CaptionerError, match=r"no caption\.py"):
        tutorial_beam.tutorial_beam(tmp_path / "none", checkpoint)
