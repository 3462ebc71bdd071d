"""The conditional random field: inference against enumeration, learning, its file, the command, simulated vision."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from benchmarks import crf as benchmark
from captioner.backbones.spec import BackboneSpec
from captioner.cli.app import app
from captioner.crf.inference import Edge, Field, Table, best, climb, has_loops, log_partition, marginals
from captioner.crf.model import CRF, FORMAT, GRAPHS, CRFConfig, CRFFile, load_crf, save_crf
from captioner.crf.predictions import assess, read_potentials
from captioner.crf.training import (
    Clips,
    Epoch,
    LearnConfig,
    choose_edges,
    conditional_log_likelihood,
    held_out,
    learn,
    learn_with_folds,
    mutual_information,
    predict,
)
from captioner.data.clips import NODES, NULL, OTHER, Clip, read_clips, write_clips
from captioner.errors import CheckpointError, ConfigError, DataError, FeatureStoreError, UsageError
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from preprocess.synthetic_features import main as simulate_main
from preprocess.synthetic_features import prototypes, simulate
from tests.oracles.crf import enumerate_video

SIZES = (3, 2, 4)
COMPLETE = list(itertools.combinations(range(3), 2))
KINDS: dict[str, tuple[tuple[int, ...], list[Edge], bool]] = {
    "none": (SIZES, [], False),
    "tree": (SIZES, [(0, 2), (1, 2)], False),
    "forest": (SIZES, [(0, 2)], False),
    "complete": (SIZES, COMPLETE, False),
    "five nodes": ((3, 2, 2, 3, 2), list(itertools.combinations(range(5), 2)), False),
    "one node": ((5,), [], False),
    "none, chain": ((3, 2), [], True),
    "tree, chain": ((2, 2, 2), [(0, 1), (1, 2)], True),
    "complete, chain": ((2, 2, 2), COMPLETE, True),
}
VIDEOS = (1, 3, 2)  # clips in each
ALL = 10**6  # entries of a joint table: more than any here has


def random_field(kind: str, scale: float = 1.0, seed: int = 0) -> Field:
    sizes, edges, chain = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first = torch.tensor([place == 0 for count in VIDEOS for place in range(count)])
    unary = tuple(1.5 * draw(sum(VIDEOS), size) for size in sizes)
    pairwise = {(v, w): scale * draw(sizes[v], sizes[w]) for v, w in edges}
    return Field(unary, pairwise, tuple(scale * draw(size, size) for size in sizes if chain), first)


def enumerated(field: Field) -> tuple[float, list[Tensor], Tensor]:
    """Log partition function, probabilities of each node and best assignment of all clips, video after video."""
    pairwise = {edge: table.tolist() for edge, table in field.pairwise.items()}
    results, at = [], 0
    for count in VIDEOS if field.transition else (1,) * len(field):
        unary = [one[at : at + count].tolist() for one in field.unary]
        results.append(enumerate_video(unary, pairwise, [table.tolist() for table in field.transition]))
        at += count
    total = sum(one[0] for one in results)
    nodes = [torch.tensor([row for one in results for row in one[1][v]]) for v in range(len(field.unary))]
    return total, nodes, torch.tensor([row for one in results for row in one[2]])


@pytest.mark.parametrize("kind", KINDS)
def test_inference_is_enumeration(kind: str) -> None:
    """Would catch a message sent along a transposed table, across two videos, or back to where it came from."""
    field = random_field(kind)
    total, probabilities, top = enumerated(field)
    found = marginals(field, ALL)
    for mine, theirs in zip(found.log_prob, probabilities, strict=True):
        assert torch.allclose(mine.exp(), theirs.to(mine), atol=1e-9)
    assert found.converged.all()
    assert torch.equal(best(field, ALL).labels, top)
    assert best(field, ALL).converged.all()
    assert float(log_partition(field, None, ALL)) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("kind", ["complete", "five nodes", "tree, chain", "complete, chain"])
def test_loopy_propagation_is_near_enumeration(kind: str) -> None:
    """Would catch an edge counted twice, or left out, in graphs with loops; weak tables are nearly a tree."""
    field = random_field(kind, scale=0.3)
    total, probabilities, top = enumerated(field)
    found = marginals(field)
    for mine, theirs in zip(found.log_prob, probabilities, strict=True):
        assert torch.allclose(mine.exp(), theirs.to(mine), atol=0.01)
    assert found.converged.all()
    assert torch.equal(best(field).labels, top)
    assert float(log_partition(field)) == pytest.approx(total, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("states", [0, ALL])
def test_the_gradient_of_the_partition_function_is_the_marginals(kind: str, states: int) -> None:
    """Would catch messages that need a gradient of their own, and wrong counts of a node's edges."""
    field = random_field(kind, scale=0.3)
    unary = tuple(one.requires_grad_() for one in field.unary)
    log_partition(field, None, states, iterations=100).backward()
    for mine, wanted in zip(unary, marginals(field, states).log_prob, strict=True):
        assert mine.grad is not None
        assert torch.allclose(mine.grad, wanted.exp(), atol=2e-3)


def test_some_labels_summed_over() -> None:
    """Would catch the likelihood of a clip with unknown labels: known ones fixed, the others summed over."""
    field = random_field("complete")
    allowed = tuple(torch.ones_like(one, dtype=torch.bool) for one in field.unary)
    allowed[1][:, 0] = False
    scores = [field.score(torch.tensor([[a, 1, c]] * len(field))) for a, c in itertools.product(range(3), range(4))]
    wanted = float(torch.stack(scores).logsumexp(0).sum())
    assert float(log_partition(field, allowed, ALL)) == pytest.approx(wanted, abs=1e-9)
    assert float(log_partition(field, allowed)) == pytest.approx(wanted, abs=0.2)  # one loop less: Bethe's is close


def test_wide_tables_do_not_underflow() -> None:
    """A matrix product of exponentials loses what lies 100 nats below the rest, and then has nothing left."""
    table = torch.tensor([[0.0, -200.0], [-200.0, 0.0]])
    field = Field((torch.tensor([[0.0, -500.0]]), torch.tensor([[-150.0, 0.0]])), {(0, 1): table})
    wanted = torch.tensor([-150.0, -200.0]).log_softmax(0)
    assert torch.allclose(marginals(field).log_prob[1][0], wanted)


def test_equally_good_assignments_are_not_mixed() -> None:
    """Each node's best for itself would be 0, 0: the only assignments that are wrong are those of equal labels."""
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    field = Field((torch.zeros(1, 2),) * 3, {(0, 2): table, (1, 2): table})
    labels = best(field).labels[0].tolist()
    assert labels[0] != labels[2] != labels[1]


def test_what_does_not_converge_is_said() -> None:
    """Strong tables that contradict each other around a loop make messages go round; a calm clip beside it settles."""
    strong = 6 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    unary = tuple(torch.tensor([[0.1 * (v + 1), 0.0], [90.0, 0.0]]) for v in range(3))
    field = Field(unary, {(0, 1): strong, (1, 2): strong, (0, 2): -strong})
    assert marginals(field, iterations=5).converged.tolist() == [False, True]
    assert best(field, iterations=5).converged.tolist() == [False, True]
    assert marginals(field, ALL).converged.all()


@pytest.mark.parametrize("kind", ["complete", "complete, chain"])
def test_climbing_stops_where_no_single_change_helps(kind: str) -> None:
    """Would catch a node judged without its neighbors in time, or two neighbors changed at once."""
    field = random_field(kind)
    start = torch.zeros(len(field), len(field.unary), dtype=torch.int64)
    labels = climb(field, start, rounds=50)
    assert field.score(labels).sum() >= field.score(start).sum()
    for row, v in itertools.product(range(len(field)), range(len(field.unary))):
        for label in range(field.sizes[v]):
            other = labels.clone()
            other[row, v] = label
            assert field.score(other).sum() <= field.score(labels).sum() + 1e-9


def test_maxima_of_every_size() -> None:
    """Would catch a row that is cut off although it wins, in tables that span much and rows that lie far apart."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.0, 0.01, 1.0, 30.0, 1000.0):
        log = spread * torch.randn(7, 5, generator=generator, dtype=torch.float64)
        table = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        for factor in (0.0, 1.0, 50.0):
            wanted = (log[:, :, None] + factor * table).amax(1)
            assert torch.allclose(Table(factor * table, maximum=True).send(log), wanted, atol=1e-9)


def test_settled_clips_do_not_wait_for_others() -> None:
    """Would catch messages written back to other clips when the unsettled ones go on alone."""
    calm, wild = random_field("five nodes", scale=0.1), random_field("five nodes", scale=0.1, seed=1)
    unary = tuple(torch.cat([20 * one, other]) for one, other in zip(calm.unary, wild.unary, strict=True))
    both, alone = Field(unary, wild.pairwise), Field(wild.unary, wild.pairwise)
    for mine, theirs in zip(marginals(both).log_prob, marginals(alone).log_prob, strict=True):
        assert torch.allclose(mine[6:], theirs, atol=1e-4)


def test_the_guess_is_used_when_it_is_better() -> None:
    """Would catch a worse assignment kept for a video."""
    for seed in range(5):
        field = random_field("five nodes", scale=3.0, seed=seed)
        _, _, top = enumerated(field)
        assert torch.equal(best(field, guess=top).labels, top)


def test_a_batch_of_one_is_a_row_of_a_batch() -> None:
    field = random_field("five nodes")
    alone = Field(tuple(one[2:3] for one in field.unary), field.pairwise)
    for mine, all_of_them in zip(marginals(alone).log_prob, marginals(field).log_prob, strict=True):
        assert torch.allclose(mine[0], all_of_them[2], atol=1e-3)


def test_loops_are_seen() -> None:
    assert not has_loops([(0, 1), (1, 2), (3, 4)])
    assert has_loops([(0, 1), (1, 2), (0, 2)])
    assert has_loops([(0, 1)], chain=True) and not has_loops([], chain=True)


def test_the_benchmark_compares_equals() -> None:
    """Would catch a plain loop that finds something else, which would make the ratio worthless."""
    for row in benchmark.measure(count=6, few=2, rounds=1, sizes=(3, 2, 4, 2)):
        assert row.ratio > 0 and row.target == 20


LABELS = {"activity": ("cut", "wash", "peel"), "object": ("carrot", "plate")}
SPLITS = {"train": 40, "dev": 20}  # videos


def make_clips(videos: int, seed: int, noise: float = 1.0) -> Clips:
    """Three clips a video. Plates are washed alone; what is done to carrots is hard to see, but cut follows peel."""
    random = np.random.default_rng(seed)
    rows, names = [], []
    for video in range(videos):
        names += [f"v{seed}-{video}"] * 3
        rows += [(2, 0), (0, 0), (0, 0)] if random.random() < 0.5 else [(1, 1), (1, 1), (2, 0)]
    truth = np.array(rows)
    seen = np.concatenate([0.6 * np.eye(3)[truth[:, 0]], 2.0 * np.eye(2)[truth[:, 1]]], 1)
    features = (seen + noise * random.standard_normal(seen.shape)).astype(np.float32)
    return Clips([f"{name}_{row}" for row, name in enumerate(names)], names, features, truth)


def quickly(**settings: object) -> LearnConfig:
    return LearnConfig(**{"epochs": 8, "batch_size": 30, "lr": 0.05, "weight_decay": 1.0, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> dict[str, Clips]:
    return {"train": make_clips(40, 0), "dev": make_clips(20, 1), "test": make_clips(60, 2)}


@pytest.mark.parametrize(("graph", "chain"), [*((graph, False) for graph in GRAPHS), ("complete", True)])
@pytest.mark.parametrize("unary", ["linear", "mlp"])
def test_learning_with_every_graph(data: dict[str, Clips], graph: str, chain: bool, unary: str) -> None:
    """Would catch a loss of the wrong sign, a model that is not the best epoch's, or that ignores its seed."""
    epochs: list[Epoch] = []
    config = CRFConfig(graph, chain, unary, hidden=8)
    model = learn(config, quickly(), LABELS, data["train"], data["dev"], epochs.append)
    result = assess(predict(model, data["dev"], decode=False)[0], data["dev"].truth)
    assert epochs[-1].log_likelihood > epochs[0].log_likelihood
    assert result.log_prob == max(epoch.dev.log_prob for epoch in epochs if epoch.dev)
    assert result.accuracy["object"] > 0.75 and result.accuracy["activity"] > 0.5
    again = learn(config, quickly(), LABELS, data["train"], data["dev"])
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_pairs_and_time_tell_something(data: dict[str, Clips]) -> None:
    """Would catch pairwise tables or transitions that are never learned: here they carry most of the knowledge."""
    results = {}
    for graph, chain in (("none", False), ("complete", False), ("complete", True)):
        model = learn(CRFConfig(graph, chain), quickly(epochs=25), LABELS, data["train"])
        results[graph, chain] = assess(predict(model, data["test"])[0], data["test"].truth)
    log_probs = [one.log_prob for one in results.values()]
    assert log_probs == sorted(log_probs) and log_probs[2] > log_probs[0] + 0.1
    assert results["complete", True].joint > results["none", False].joint


def test_the_likelihood_is_a_probability(data: dict[str, Clips]) -> None:
    """Would catch a numerator and a denominator of different fields: over all labels the likelihoods sum to 1."""
    model = learn(CRFConfig("complete", exact_states=ALL), quickly(epochs=2), LABELS, data["train"])
    one = data["dev"].select(np.arange(1))
    total = 0.0
    for labels in itertools.product(range(3), range(2)):
        clips = Clips(one.ids, one.videos, one.features, np.array([labels]))
        total += float(conditional_log_likelihood(model, clips).detach().exp())
    assert total == pytest.approx(1, abs=1e-5)
    half = Clips(one.ids, one.videos, one.features, np.array([[1, -1]]))
    known = predict(model, one)[0].nodes["activity"].log_prob[0, 1]
    assert float(conditional_log_likelihood(model, half).detach()) == pytest.approx(float(known), abs=1e-5)


def test_unknown_labels_are_summed_over_or_left_out(data: dict[str, Clips]) -> None:
    """Would catch -1 read as the last label, and unlabeled clips that weaken the prior or the mean."""
    train = data["train"]
    truth = train.truth.copy()
    truth[::2, 0] = -1
    model = learn(CRFConfig("tree"), quickly(), LABELS, Clips(train.ids, train.videos, train.features, truth))
    assert assess(predict(model, data["dev"])[0], data["dev"].truth).accuracy["activity"] > 0.5
    nothing = np.full_like(truth, -1)
    more = Clips(
        [*train.ids, *(f"x{name}" for name in train.ids)],
        train.videos * 2,
        np.concatenate([train.features, train.features + 100]),
        np.concatenate([train.truth, nothing]),
    )
    with_unknown, without = (learn(CRFConfig("tree"), quickly(epochs=2), LABELS, one) for one in (more, train))
    assert torch.equal(with_unknown.output.weight, without.output.weight)
    with pytest.raises(DataError, match="nothing to learn from"):
        learn(CRFConfig(), quickly(), LABELS, Clips(train.ids, train.videos, train.features, nothing))


def test_the_tree_joins_what_tells_most_of_each_other() -> None:
    """Would catch a tree with a loop, or of the least information."""
    random = np.random.default_rng(0)
    one, two = random.integers(0, 4, 500), random.integers(0, 4, 500)
    noisy = np.where(random.random(500) < 0.8, one, random.integers(0, 4, 500))
    truth = np.stack([two, one, noisy, (one + two) % 4, two // 2], 1)
    labels = {str(v): tuple("abcd") for v in range(5)}
    edges = choose_edges("tree", truth, labels)
    assert len(edges) == 4 and not has_loops(edges) and {(1, 2), (0, 4)} <= set(edges)
    assert mutual_information(one, one, 4, 4) == pytest.approx(np.log(4), abs=0.02)
    assert mutual_information(one, two, 4, 4) < 0.03
    assert choose_edges("none", truth, labels) == []


def test_folds_hold_out_whole_videos_and_predict_them(data: dict[str, Clips], tmp_path: Path) -> None:
    """Would catch training clips predicted by a model that saw them, which is surer than it will be later."""
    parts = held_out(data["train"].videos, 4, seed=0)
    assert sorted(row for rows in parts for row in rows) == list(range(len(data["train"])))
    assert all(len(rows) == 30 and not set(rows) & set(parts[0]) for rows in parts[1:])
    assert len({data["train"].videos[row] for row in parts[0]}) == 10
    told: set[str] = set()
    train = data["train"].select(np.arange(30))  # few clips: easily learned by heart
    how = quickly(weight_decay=0.0, epochs=40)
    file = learn_with_folds(CRFConfig(), how, LABELS, train, None, 3, lambda part, _: told.add(part))
    assert told == {"all", "fold 1/3", "fold 2/3", "fold 3/3"}
    save_crf(tmp_path / "crf.safetensors", file)
    file = load_crf(tmp_path / "crf.safetensors")
    crossed, _ = predict(file, train)
    by_heart, _ = predict(file.model, train)
    fresh, _ = predict(file.folds[1][1], train.select(parts := held_out(train.videos, 3, 0)[1]))
    assert np.allclose(crossed.nodes["activity"].log_prob[parts], fresh.nodes["activity"].log_prob, atol=1e-5)
    assert assess(crossed, train.truth).log_prob < assess(by_heart, train.truth).log_prob - 0.1
    with pytest.raises(DataError, match="11 folds of 10 training videos"):
        held_out(train.videos, 11, 0)


def test_a_crf_file_gives_back_what_went_in(data: dict[str, Clips], tmp_path: Path) -> None:
    """Would catch a buffer, an edge or the order of labels lost on the way."""
    model = learn(CRFConfig("tree", True, "mlp", hidden=4), quickly(epochs=1), LABELS, data["train"])
    path = tmp_path / "crf.safetensors"
    save_crf(path, CRFFile(model, features=({"backbone": "x"},), training={"clips": 120}))
    file = load_crf(path)
    assert (file.model.labels, file.model.edges, file.model.config) == (model.labels, [(0, 1)], model.config)
    assert (file.features, file.training["clips"]) == (({"backbone": "x"},), 120) and "torch" in file.provenance
    one, two = (predict(crf, data["dev"])[0] for crf in (model, file))
    assert all(np.array_equal(one.nodes[name].log_prob, two.nodes[name].log_prob) for name in LABELS)
    assert all(np.array_equal(one.nodes[name].best, two.nodes[name].best) for name in LABELS)


def test_crf_files_that_cannot_be_read(tmp_path: Path) -> None:
    """One line says what is wrong; nothing is guessed."""
    import safetensors.torch

    model = CRF(CRFConfig(), LABELS, 3, [(0, 1)])
    good = tmp_path / "crf.safetensors"
    save_crf(good, CRFFile(model))
    with safetensors.safe_open(good, "pt") as stream:
        header, tensors = json.loads(stream.metadata()[FORMAT]), model.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}

    def refused(
        match: str, tensors: dict[str, Tensor] = tensors, key: str = "captioner-crf", **changes: object
    ) -> None:
        bad = tmp_path / "bad.safetensors"
        safetensors.torch.save_file(tensors, bad, {key: json.dumps(header | changes)})
        with pytest.raises(CheckpointError, match=match):
            load_crf(bad)

    refused("version 2", version=2)
    refused("not a CRF of captioner", key="other")
    refused("graph", config={"graph": "loopy"})
    refused("unknown key", config={"grpah": "tree"})
    refused("size mismatch", feature_size=4)
    refused("not finite", tensors | {"model.output.bias": torch.full((5,), torch.nan)})
    refused("Missing key", {name: one for name, one in tensors.items() if name != "model.output.bias"})
    refused("edges", edges=[[0, 7]])
    (tmp_path / "cut").write_bytes(good.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_crf(tmp_path / "cut")
    with pytest.raises(CheckpointError, match="no such CRF file"):
        load_crf(tmp_path / "none")
    with pytest.raises(ConfigError, match="unary: 'deep' is not one of linear, mlp"):
        CRFConfig(unary="deep")
    with pytest.raises(DataError, match="features of 2 numbers, the CRF was trained on 3"):
        predict(model, Clips(["a"], ["a"], np.zeros((1, 2), np.float32), np.zeros((1, 2), np.int64)))


# The commands, on clips as preprocess.tacos writes them.


def write_corpus(folder: Path) -> Path:
    """A clips file of 24 videos with four clips each; one clip without labels."""
    recipes = {
        "carrot": [("wash", "hand"), ("peel", "peeler"), ("cut", "knife"), ("move", NULL)],
        "egg": [("take out", NULL), ("crack", "knife"), ("stir", "spoon"), ("move", NULL)],
    }
    clips = []
    for number in range(24):
        thing = ("carrot", "egg")[number % 2]
        for place, (activity, tool) in enumerate(recipes[thing]):
            source = "fridge" if activity == "take out" else NULL
            labels = (activity, tool, thing, source, "bowl" if activity == "move" else NULL)
            split = "train" if number < 16 else "val" if number < 20 else "test"
            name = f"s{number:02}"
            clip_id = f"{name}_{place * 10}_{place * 10 + 9}"
            known = None if (number, place) == (3, 0) else labels
            clips.append(Clip(clip_id, name, place, place + 0.9, ("He works.",), split, labels=known))
    path = folder / "clips.jsonl"
    write_clips(path, reversed(clips))  # the order of the file is not that of time
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and stdout."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips = write_corpus(folder)
    assert simulate_main([str(clips), "-o", str(folder / "features.h5"), "--snr", "0.2"]) == 0
    return folder


QUICK = ("--epochs", 4, "--batch-size", 16, "--lr", 0.05)


def test_train_predict_score(corpus: Path, tmp_path: Path) -> None:
    """Would catch labels, clips or videos that lose their order between the clips file and the potentials."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    status, text = run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--chain", "--folds", 2, *QUICK)
    assert status == 0 and text.startswith("dev  activity ") and "loopy belief propagation" in text
    file = load_crf(model)
    assert list(file.model.labels) == list(NODES) and file.model.labels["object"] == (NULL, OTHER, "carrot", "egg")
    assert len(file.folds) == 2 and file.training["clips"] == 63 and file.training["dev"]["clips"] == 16

    output = tmp_path / "potentials.h5"
    predicting = ["crf", "predict", str(model), "-f", str(features), "--clips", str(clips), "-o", str(output)]
    result = CliRunner().invoke(app, predicting)
    assert "1 clips" in str(result.exception)  # the one without labels has no simulated feature
    potentials = read_potentials(output)
    assert len(potentials) == 95 and "simulated:snr=0.2" in potentials.source
    status, text = run("crf", "score", output, "--clips", clips)
    assert (
        status == 0
        and text == result.stdout
        and [line.split()[:2] for line in text.splitlines()]
        == [
            ["train", "63"],
            ["val", "16"],
            ["test", "16"],
        ]
    )
    row = potentials.rows["s20_20_29"]
    assert potentials.tuple_of(row)[2] == "carrot" and "carrot" in potentials.words(row)

    mixed = CliRunner().invoke(app, [*predicting, "--truth", "0.5"])
    assert mixed.stdout == result.stdout  # how right the CRF is, not what was mixed in
    taught = read_potentials(output)
    known = [clip for clip in read_clips("clips", clips) if clip.labels is not None]
    train, others = ([one.clip_id for one in known if (one.split == "train") == wanted] for wanted in (True, False))
    truth = {clip.clip_id: clip.labels for clip in known}
    assert all(taught.tuple_of(taught.rows[name]) == truth[name] for name in train)
    assert (taught.subset(others).vector("prob") == potentials.subset(others).vector("prob")).all()


def test_a_sentence_has_the_features_and_the_fold_of_its_clip(corpus: Path, tmp_path: Path) -> None:
    """Would catch a sentence that another clip's belief is mixed with, or one predicted by a CRF that saw its video."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    assert run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--folds", 2, *QUICK)[0] == 0
    known = [clip for clip in read_clips("clips", clips) if clip.labels is not None]
    names = {c.clip_id: [f"{c.clip_id}#{n}" for n in (1, 2)] if c.split == "train" else [c.clip_id] for c in known}
    apart = [replace(clip, clip_id=name) for clip in known for name in names[clip.clip_id]]
    write_clips(tmp_path / "sentences.jsonl", apart)
    predicting = ["crf", "predict", model, "-f", features, "-o", tmp_path / "p.h5", "--clips"]
    assert run(*predicting, tmp_path / "sentences.jsonl")[0] == 0
    sentences = read_potentials(tmp_path / "p.h5")
    write_clips(tmp_path / "known.jsonl", known)
    assert run(*predicting, tmp_path / "known.jsonl")[0] == 0
    whole = read_potentials(tmp_path / "p.h5")
    write_clips(tmp_path / "single.jsonl", [replace(clip, clip_id=names[clip.clip_id][0]) for clip in known])
    assert run(*predicting, tmp_path / "single.jsonl")[0] == 0  # as many sentences as clips
    assert set(read_potentials(tmp_path / "p.h5").ids) == {own[0] for own in names.values()}
    store = FeatureStore(features)
    with FeatureWriter(tmp_path / "odd.h5", store.spec, store.weights_digest) as writer:
        writer.add("cut#1", store.get(store.ids[:1])[0])  # a name of its own, of no other clip
    assert run("crf", "predict", model, "-f", tmp_path / "odd.h5", "-o", tmp_path / "p.h5")[0] == 0
    assert read_potentials(tmp_path / "p.h5").ids == ["cut#1"]
    found = sentences.subset([own[-1] for own in names.values()])
    assert (found.vector("prob") == whole.subset([c.clip_id for c in known]).vector("prob")).all()


def test_what_the_command_refuses(corpus: Path, tmp_path: Path) -> None:
    """Features of another kind, or a chain without an order, would give potentials that mean nothing."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    assert run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--graph", "none", *QUICK)[0] == 0
    status, _ = run("crf", "predict", model, "-f", features, "-o", tmp_path / "p.h5")
    assert status == 0 and len(read_potentials(tmp_path / "p.h5")) == 95
    assert simulate_main([str(clips), "-o", str(tmp_path / "other.h5"), "--snr", "0.3"]) == 0
    for arguments, error, match in (
        (("-f", tmp_path / "other.h5"), FeatureStoreError, "simulated:snr=0.3"),
        (("-f", features, "-f", features), FeatureStoreError, "2 feature stores"),
    ):
        result = CliRunner().invoke(app, ["crf", "predict", str(model), *map(str, arguments), "-o", "x.h5"])
        assert isinstance(result.exception, error) and match in str(result.exception)
    chained = ["crf", "train", "--clips", clips, "-f", features, "-o", model, "--graph", "none", "--chain", *QUICK]
    assert run(*chained)[0] == 0
    result = CliRunner().invoke(app, ["crf", "predict", str(model), "-f", str(features), "-o", "x.h5"])
    assert isinstance(result.exception, UsageError) and "give --clips" in str(result.exception)
    result = CliRunner().invoke(app, ["crf", "predict", str(model), "-f", str(features), "-o", "x.h5", "--truth", "1"])
    assert isinstance(result.exception, UsageError) and "give --clips" in str(result.exception)


def test_several_stores_are_joined(corpus: Path, tmp_path: Path) -> None:
    """Would catch a second store that is ignored: here it alone tells something."""
    store = FeatureStore(corpus / "features.h5")
    spec = BackboneSpec("nothing", size=1, dimension=2)
    with FeatureWriter(tmp_path / "nothing.h5", spec, "zeros") as writer:
        for name in store.ids:
            writer.add(name, np.zeros(2, np.float32))
    model = tmp_path / "crf.safetensors"
    stores = ("-f", tmp_path / "nothing.h5", "-f", corpus / "features.h5")
    status, _ = run("crf", "train", "--clips", corpus / "clips.jsonl", *stores, "-o", model, "--graph", "tree", *QUICK)
    assert status == 0
    file = load_crf(model)
    assert [fact["backbone"] for fact in file.features] == ["nothing", "simulated:snr=0.2"]
    assert file.training["dev"]["accuracy"]["object"] > 0.6


# Simulated vision.


def test_the_noise_has_the_power_that_was_asked_for() -> None:
    """Would catch a ratio of amplitudes in place of powers, or prototypes that change with the noise."""
    tuples = [(a, b) for a in "xyz" for b in "uvw"] * 30
    clean = simulate(tuples, 1e9, seed=1)
    noisy = simulate(tuples, 0.25, seed=1)
    assert clean.var(0).mean() / (noisy - clean).var() == pytest.approx(0.25, rel=0.03)
    assert np.array_equal(noisy, simulate(tuples, 0.25, seed=1))
    assert not np.allclose(clean, simulate(tuples, 1e9, seed=2))
    assert np.allclose(clean[:9], clean[9:18], atol=1e-3)  # equal labels, equal prototypes


def test_labels_of_one_company_look_alike() -> None:
    """Would catch confusions at random: carrots are to be taken for cucumbers rather than for plates."""
    peeled = [(verb, thing) for thing in ("carrot", "cucumber") for verb in ("peel", "cut", "cut")]
    tuples = [*peeled, ("wash", "plate"), ("dry", "plate"), ("wash", "pan"), ("dry", "pan")]
    names, vectors = prototypes(tuples, 1, np.random.default_rng(0), 0.7)
    assert names == ["carrot", "cucumber", "pan", "plate"]
    angles = vectors @ vectors.T
    assert min(angles[0, 1], angles[2, 3]) > 0.4 > 0.2 > angles[:2, 2:].max()


def test_simulated_stores_say_so(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a store that could be taken for real features, or mixed with one of other labels."""
    store = FeatureStore(corpus / "features.h5")
    assert store.spec.key == "simulated:snr=0.2" and "labels" in store.spec.weights
    assert (
        store.unfinished == ["s03_0_9"]
        and len(store) == 95
        and store.verify() == ["1 rows are unfinished, first s03_0_9"]
    )
    clips = write_corpus(tmp_path)
    lines = clips.read_text().splitlines()
    clips.write_text("\n".join(lines[:-1]) + "\n")
    assert simulate_main([str(clips), "-o", str(corpus / "features.h5"), "--snr", "0.2"]) == 1
    assert "weights digest" in capsys.readouterr().err
    assert simulate_main([str(clips), "-o", str(tmp_path / "x.h5"), "--snr", "0"]) == 2
