"""eval.baselines: captions without a captioning model, and what they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from captioner.backbones.spec import BackboneSpec
from captioner.data import read_dataset
from captioner.data.records import Captioned, of_split
from captioner.data.results import match, read_results
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from captioner.metrics.cider import CiderD, DocumentFrequency
from captioner.metrics.corpus import Corpus
from eval.baselines import consensus, main, neighbors, typical
from eval.consensus import Agreement
from tests.toy import make_data

IMAGES = [
    ["a dog runs on grass", "a brown dog runs on the grass grass"],
    ["a man sits", "the man sits on a bench"],
    ["two dogs play in the snow", "a dog and a dog"],
]


def test_agreement_is_cider_d_of_each_with_each() -> None:
    """Would catch an index that misses an n-gram, other document frequencies, a missing clip or length penalty."""
    images = [[caption.split() for caption in image] for image in IMAGES]
    captions = [caption for image in images for caption in image]
    metric = CiderD(DocumentFrequency(images))
    agreement = Agreement(images)
    for index, caption in enumerate(captions):
        corpus = Corpus([caption] * len(captions), [[other] for other in captions])
        assert agreement.with_all(index) == pytest.approx(metric.aggregate(metric.statistics(corpus))["CIDEr-D"])
    every = np.stack([agreement.with_all(index) for index in range(len(captions))])
    chosen = [5, 1, 2, 0]
    assert agreement.among(chosen) == pytest.approx(every[np.ix_(chosen, chosen)])


def test_the_typical_caption_scores_best_when_all_training_images_get_it() -> None:
    """Would catch a caption that is merely frequent, or merely short."""
    records = [Captioned(str(n), None, tuple(captions), "train") for n, captions in enumerate(IMAGES)]
    images = [[caption.split() for caption in image] for image in IMAGES]
    metric = CiderD(DocumentFrequency(images))

    def score(caption: str) -> float:
        corpus = Corpus([caption.split()] * 3, images)
        return float(metric.aggregate(metric.statistics(corpus).sum(0))["CIDEr-D"])

    assert typical(records, "plain") == max((c for image in IMAGES for c in image), key=score)


def test_the_center_is_that_of_all_means() -> None:
    """Would catch a bound that is no bound, which would drop the best caption unseen."""
    draw = np.random.default_rng(0)
    for _ in range(5):
        images = [
            ["".join(draw.choice(list("aaabbcd"), draw.integers(0, 9))) for _ in range(draw.integers(1, 4))]
            for _ in range(12)
        ]
        agreement = Agreement(images)
        means = [agreement.with_all(index).mean() for index in range(agreement.size)]
        assert means[agreement.center()] == pytest.approx(max(means))


@pytest.mark.parametrize("metric", ["cider", "bleu"])
def test_consensus_is_what_the_neighbors_say_and_no_outlier(metric: str) -> None:
    """Would catch a candidate that agrees with itself, and one taken from an image that is no neighbor."""
    records = [
        Captioned("a", None, ("zebras", "a dog runs on the green grass"), "train"),
        Captioned("b", None, ("a dog runs on green grass", "a dog runs on the grass"), "train"),
        Captioned("c", None, ("a man sits", "a man sits", "a man sits"), "train"),
    ]
    (found,) = consensus(records, np.array([[0, 1]]), metric, "plain")
    assert "dog" in found
    assert consensus(records, np.array([[2], [0]]), metric, "plain")[0] == "a man sits"


def test_neighbors_by_the_mean_cosine_of_several_stores(tmp_path: Path) -> None:
    """Would catch a store whose larger numbers drown the other, and a dot product instead of a cosine."""
    features = {"x": ([1, 0], [0, 50]), "long": ([30, 40], [0, 1]), "near": ([1, 0.1], [9, 9]), "off": ([0, 1], [1, 0])}
    stores = []
    for index in range(2):
        spec = BackboneSpec("compact", size=192, resize="squash", dimension=2)
        with FeatureWriter(tmp_path / f"{index}.h5", spec, "toy", "float32") as writer:
            for name, vectors in features.items():
                writer.add(name, np.array(vectors[index], np.float32))
        stores.append(FeatureStore(tmp_path / f"{index}.h5"))
    train = ["off", "long", "near"]
    assert neighbors(stores[:1], train, ["x"], 3).tolist() == [[2, 1, 0]]  # 0.995, 0.6, 0
    assert neighbors(stores[1:], train, ["x"], 1).tolist() == [[1]]
    assert neighbors(stores, train, ["x"], 3).tolist() == [[2, 1, 0]]  # 0.85, 0.8, 0


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("toy"))


def captions(path: Path, toy: Path) -> dict[str, str]:
    """What ``captioner score`` reads of a file on the toy's val split."""
    return match(read_results(path), of_split(read_dataset("own", toy), "val")).hypotheses


@pytest.mark.parametrize(
    ("arguments", "different"),
    [
        (["neighbor", "-k", "3", "--features", "{toy}/features.h5"], None),
        (["neighbor", "--consensus", "bleu", "--features", "{toy}/features.h5"], None),
        (["typical"], 1),
        (["ngram", "--min-count", "1"], 1),
        (["ngram", "--min-count", "1", "--sample", "3"], None),
    ],
)
def test_every_baseline_writes_what_the_scorer_reads(
    arguments: list[str], different: int | None, toy: Path, tmp_path: Path
) -> None:
    """Would catch ids that no reader knows, a split mixed up, and constants that are none."""
    output = tmp_path / "out.json"
    given = [argument.format(toy=toy) for argument in arguments]
    assert main([*given, "--data", str(toy), "--format", "own", "--split", "val", "-o", str(output)]) == 0
    found = captions(output, toy)
    assert len(found) == 12 and all(found.values())
    assert different is None or len(set(found.values())) == different
    assert different == 1 or len(set(found.values())) > 1
    assert json.loads(output.read_text())[0].keys() == {"image_id", "caption"}


def test_results_never_replace_something_else(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch references replaced by a baseline's captions, also where a number is put into the name."""
    shared = ["--data", str(toy), "--format", "own", "--split", "val", "-o"]
    references = toy / "captions.jsonl"
    before = references.read_bytes()
    assert main(["typical", *shared, str(references)]) == 2
    assert "exists and is not a JSON list of results" in capsys.readouterr().err
    numbered = tmp_path / "human-caption1.json"
    numbered.write_text("notes")
    assert main(["human", *shared, str(tmp_path / "human.json")]) == 2
    assert references.read_bytes() == before and numbered.read_text() == "notes"


def test_people_and_all_captions_of_the_nearest_are_a_file_each(toy: Path, tmp_path: Path) -> None:
    """Would catch captions of different places in one file, and training captions passed off as people's."""
    shared = ["--data", str(toy), "--format", "own", "--split", "val"]
    assert main(["human", *shared, "-o", str(tmp_path / "human.json")]) == 0
    store = str(toy / "features.h5")
    assert main(["neighbor", "--each", "--features", store, *shared, "-o", str(tmp_path / "near.json")]) == 0
    own = {record.image_id: record.captions for record in read_dataset("own", toy)}
    for place in range(2):
        found = captions(tmp_path / f"human-caption{place + 1}.json", toy)
        assert found == {image: own[image][place] for image in found}
        near = captions(tmp_path / f"near-caption{place + 1}.json", toy)
        assert all(text.startswith(("A ", "there ")[place]) for text in near.values())
    assert sorted(path.name for path in tmp_path.glob("human*")) == ["human-caption1.json", "human-caption2.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["neighbor", "-k", "99", "--features", "{toy}/features.h5"], "-k must be between 1 and the 24"),
        (["neighbor", "-k", "2", "--each", "--features", "{toy}/features.h5"], "leave -k out"),
        (["neighbor", "--features", "{toy}/none.h5"], "none.h5"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(toy=toy) for argument in arguments]
    assert main([*given, "--data", str(toy), "--format", "own", "-o", str(tmp_path / "o.json"), "--split", "val"]) > 0
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
