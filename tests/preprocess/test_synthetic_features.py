"""preprocess.synthetic_features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captioner.data.clips import read_clips
from captioner.features.store import FeatureStore
from preprocess.synthetic_features import draw_features, main, prototypes
from tests.kitchen import write_corpus


def test_the_noise_has_the_power_that_was_asked_for() -> None:
    """Would catch a ratio of amplitudes in place of powers, or prototypes that change with the noise."""
    tuples = [(a, b) for a in "xyz" for b in "uvw"] * 30
    [clean] = draw_features(tuples, 1e9, seed=1)
    [noisy] = draw_features(tuples, 0.25, seed=1)
    assert clean.var(0).mean() / (noisy - clean).var() == pytest.approx(0.25, rel=0.03)
    assert np.array_equal(noisy, draw_features(tuples, 0.25, seed=1, draws=2)[0])
    assert not np.allclose(clean, draw_features(tuples, 1e9, seed=2)[0])
    assert np.allclose(clean[:9], clean[9:18], atol=1e-3)  # equal labels, equal prototypes


def test_draws_differ_in_noise_alone() -> None:
    """Would catch draws that share their noise, or that have prototypes of their own."""
    tuples = [(a, b) for a in "xyz" for b in "uvw"] * 30
    [clean] = draw_features(tuples, 1e9, seed=1)
    noise = draw_features(tuples, 0.25, seed=1, draws=3) - clean
    assert np.corrcoef(noise.reshape(3, -1)) == pytest.approx(np.eye(3), abs=0.03)


def test_training_clips_have_several_observations(tmp_path: Path) -> None:
    """Would catch draws of test clips, on which systems would be compared, or a first draw that the others change."""
    clips = write_corpus(tmp_path)
    stores = []
    for draws in ("1", "3"):
        output = tmp_path / f"{draws}.h5"
        assert main([str(clips), "-o", str(output), "--snr", "0.2", "--draws", draws]) == 0
        stores.append(FeatureStore(output))
    one, three = stores
    assert set(three.ids) - set(one.ids) == {
        f"{clip.clip_id}~{n}"
        for clip in read_clips("clips", clips)
        if clip.labels and clip.split == "train"
        for n in (2, 3)
    }
    assert np.array_equal(one.get(one.ids), three.get(one.ids))


def test_labels_with_the_same_co_occurrences_look_alike() -> None:
    """Would catch confusions at random: carrots are to be taken for cucumbers rather than for plates."""
    peeled = [(verb, thing) for thing in ("carrot", "cucumber") for verb in ("peel", "cut", "cut")]
    tuples = [*peeled, ("wash", "plate"), ("dry", "plate"), ("wash", "pan"), ("dry", "pan")]
    names, vectors = prototypes(tuples, 1, np.random.default_rng(0), 0.7)
    assert names == ["carrot", "cucumber", "pan", "plate"]
    angles = vectors @ vectors.T
    assert min(angles[0, 1], angles[2, 3]) > 0.4 > 0.2 > angles[:2, 2:].max()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    assert main([str(write_corpus(folder)), "-o", str(folder / "features.h5"), "--snr", "0.2"]) == 0
    return folder


def test_a_store_never_replaces_something_else(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch features written over the clips that they are drawn from."""
    clips = corpus / "clips.jsonl"
    before = clips.read_bytes()
    assert main([str(clips), "-o", str(clips), "--snr", "1"]) == 2
    assert "is the same file as" in capsys.readouterr().err and clips.read_bytes() == before
    assert not list(corpus.glob("*.parts"))


def test_synthetic_stores_say_so(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a store that could be taken for real features, or mixed with one of other labels."""
    store = FeatureStore(corpus / "features.h5")
    assert store.spec.key == "synthetic:snr=0.2" and "labels" in store.spec.weights
    assert (
        store.unfinished == ["s03_0_9"]
        and len(store) == 95
        and store.verify() == ["1 rows are unfinished, first s03_0_9"]
    )
    clips = write_corpus(tmp_path)
    lines = clips.read_text().splitlines()
    clips.write_text("\n".join(lines[:-1]) + "\n")
    assert main([str(clips), "-o", str(corpus / "features.h5"), "--snr", "0.2"]) == 1
    assert "weights digest" in capsys.readouterr().err
    assert main([str(clips), "-o", str(tmp_path / "x.h5"), "--snr", "0"]) == 2
