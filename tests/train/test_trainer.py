"""Training: the loss, the schedules, and whole tiny runs, one of them killed on the way."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from captioner.backbones import load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.checkpoint import load_checkpoint
from captioner.cli import train as command
from captioner.config import TrainConfig
from captioner.decoding import DecodingConfig, decode
from captioner.errors import CaptionerError, ConfigError, DataError, UsageError
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.tasks.sentences.data import load_captions
from captioner.tasks.sentences.evaluate import encode_rows
from captioner.tasks.sentences.learner import SentenceLearner
from captioner.tasks.sentences.losses import token_loss
from captioner.tasks.sentences.starting_weights import set_statistics
from captioner.text.vocabulary import END, PAD, START
from captioner.train import trainer
from captioner.train.distributed import World
from captioner.train.ema import WeightAverage
from captioner.train.optim import make_optimizer, rate_factor
from captioner.train.runlog import read_log
from captioner.train.state import load_state, save_state
from captioner.train.trainer import Trainer, train
from tests.conftest import CHECKOUT
from tests.toy import DIMENSION, experiment, make_data, write_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("toy"))


def test_a_run_never_replaces_what_it_reads(data: Path, tmp_path: Path) -> None:
    """Would catch a run in the folder of the model that it starts from, which would be removed first."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("best.safetensors", "last.safetensors"):
        (folder / name).write_bytes((CHECKOUT / "tests/fixtures/checkpoint-v2.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"best\.safetensors is the same file as"):
        train(experiment(data, folder, train__init_from=str(folder / "." / "best.safetensors")), progress=False)
    for name, words in (("log.jsonl", "the log of a run"), ("curve.png", "a plot"), ("best.safetensors", "a safetens")):
        other = tmp_path / name[:4]
        other.mkdir()
        (other / name).write_text("notes")
        with pytest.raises(UsageError, match=f"{name} exists and is not {words}"):
            train(experiment(data, other), progress=False)
        assert (other / name).read_text() == "notes"
    assert len(list(folder.iterdir())) == 2


def test_loss_equals_the_formula_written_out() -> None:
    """Would catch a mean for a sum, and smoothing that is spread otherwise than in Szegedy et al. 2016, section 7."""
    torch.manual_seed(0)
    logits, targets, smoothing = torch.randn(6, 5, dtype=torch.bfloat16), torch.tensor([0, 4, 2, 2, 1, 3]), 0.1
    expected = 0.0
    for row, target in zip(logits.double(), targets.tolist(), strict=True):
        log_p = [float(x) - math.log(sum(math.exp(y) for y in row.tolist())) for x in row]
        expected -= (1 - smoothing) * log_p[target] + smoothing * sum(log_p) / len(log_p)
    assert float(token_loss(logits, targets, smoothing)) == pytest.approx(expected, rel=1e-6)


def test_padding_changes_neither_loss_nor_gradients() -> None:
    torch.manual_seed(0)
    learner = SentenceLearner(LRCN(LRCNConfig(embedding_dim=6, hidden_dim=7, image_dim=5), 11, 4))
    features = torch.randn(2, 4)
    inputs = torch.tensor([[START, 5, 6, 7], [START, 8, PAD, PAD]])
    targets = torch.tensor([[5, 6, 7, END], [8, END, PAD, PAD]])
    both = learner({"input": features}, inputs, targets)
    alone = learner({"input": features[:1]}, inputs[:1], targets[:1])
    alone = alone + learner({"input": features[1:]}, inputs[1:, :2], targets[1:, :2])
    torch.testing.assert_close(both, alone)
    one, other = (torch.autograd.grad(loss, [*learner.parameters()]) for loss in (both, alone))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 999, 1.0),
        ("cosine", 0, 1 / 20),  # 2 % of 1,000 steps climb
        ("cosine", 19, 1.0),
        ("cosine", 510, 0.5),
        ("cosine", 1000, 0.0),
        ("halve", 199, 1.0),
        ("halve", 200, 0.5),
        ("halve", 650, 0.125),
    ],
)
def test_schedules(schedule: str, step: int, factor: float) -> None:
    config = TrainConfig(schedule=schedule, halve_every=200)
    assert rate_factor(config, step, 1000) == pytest.approx(factor)


def test_weight_decay_spares_biases_and_scales() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    groups = make_optimizer(TrainConfig(weight_decay=0.3), [(model, 1e-3)]).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in groups] == [(0.3, [2]), (0.0, [1, 1, 1])]


def test_average_is_the_formula_and_the_weights_come_back() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(layer, 0.9), layer.weight.item()
    for step in range(1, 200):
        nn.init.constant_(layer.weight, float(step))
        average.update(step)
        decay = min(0.9, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5)
    assert layer.weight.item() == 199


def test_a_run_without_matplotlib_says_so_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a run that stops for want of an image, one that says so twice, and a name that pip does not know."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(trainer, "DRAW_SECONDS", 0.0)
    command.train(str(write_config(data, tmp_path / "run", train__epochs=2)))
    lines = [line for line in capsys.readouterr().err.splitlines() if "curve" in line]
    assert lines == [
        "no training curve: this needs the package matplotlib; install it with: pip install 'captioner[plots]'"
    ]
    assert (tmp_path / "run/best.safetensors").exists()


def test_a_run_learns_and_leaves_its_files(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch features mixed up with captions, lost statistics, and a checkpoint that is not what was scored."""
    path = write_config(data, tmp_path / "run", train__epochs=25, train__ema=0.9, loss__label_smoothing=0.05)
    state = torch.get_rng_state()
    command.train(str(path))
    assert torch.equal(state, torch.get_rng_state()), "the caller's random numbers were touched"
    out, err = capsys.readouterr()
    assert out.startswith("best dev cider ")
    assert "next: captioner caption --model" in out
    assert err.count("\nepoch ") == 25
    epochs = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == list(range(1, 26))
    assert epochs[-1]["dev_loss"] < 0.4 * epochs[0]["dev_loss"]
    assert max(r["bleu4"] for r in epochs) > 90
    assert (tmp_path / "run/curve.png").read_bytes().startswith(b"\x89PNG")

    checkpoint = load_checkpoint(tmp_path / "run/best.safetensors")
    store = FeatureStore(data / "features.h5")
    dev = [name for i, name in enumerate(sorted(store.ids)) if i % 3 == 2]
    model = checkpoint.model
    config = DecodingConfig("greedy", max_length=10)
    state = model.start(torch.from_numpy(store.get(dev)))
    found = decode(model, state, len(dev), config, start=START, end=END)
    captions = [checkpoint.outputs.decode(hypothesis.ids) for (hypothesis,) in found]
    assert sum("red" in caption for caption in captions) == 3
    train_rows = [name for name in store.ids if name not in dev]
    mean = torch.from_numpy(store.get(train_rows)).mean(0)
    torch.testing.assert_close(model.feature_mean, mean, rtol=1e-3, atol=1e-3)
    assert checkpoint.extra["dev"]["cider"] == max(r["cider"] for r in epochs)


HARD = {"train__ema": 0.95, "train__log_every": 1, "train__save_minutes": 0, "train__batch_size": 2}
DROPOUT = {"model__dropout": 0.3, "model__image_dropout": 0.2}


def test_a_killed_run_ends_with_the_numbers_of_one_left_alone(data: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch, with dropout, mirrored features, AdamW and the moving average at work."""
    mirrored = {"data__features_mirrored": [str(data / "mirrored.h5")]}
    path = write_config(data, tmp_path / "killed", **HARD, **DROPOUT, **mirrored)
    state = tmp_path / "killed/state.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "captioner", "train", str(path)],
        cwd=CHECKOUT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    log = tmp_path / "killed/log.jsonl"
    deadline = time.monotonic() + 300
    try:
        while not (state.exists() and log.exists() and log.read_text().count("\n") > 31):  # 24 steps an epoch
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run did not reach its second epoch in 5 minutes"
            time.sleep(0.005)
    finally:  # always, so that a run that stands still fails this test and does not hold up the others
        process.kill()
        status = process.wait()
    assert status == -signal.SIGKILL, "the run ended before it could be killed"
    run = Trainer(experiment(data, tmp_path / "killed", **HARD, **DROPOUT, **mirrored), World(), CPU, True, False)
    assert 0 < run.position.batch < 24, "the kill did not fall into an epoch"
    resumed = run.fit()

    whole = train(experiment(data, tmp_path / "whole", **HARD, **DROPOUT, **mirrored), progress=False)
    assert (resumed.score, resumed.epoch) == (whole.score, whole.epoch)
    for name in ("last", "best", "state"):
        ours, theirs = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("killed", "whole"))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), f"{name}: {key}"
    logs = [[_comparable(r) for r in read_log(tmp_path / folder / "log.jsonl")] for folder in ("killed", "whole")]
    assert logs[0] == logs[1]


def _comparable(record: dict[str, object]) -> dict[str, object]:
    """A log record without what time and place change; losses of a resumed epoch may be summed in other pieces."""
    kept = {k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second", "experiment", "provenance")}
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in kept.items()}


def test_a_finished_run_is_not_run_again_and_a_changed_one_is_refused(data: Path, tmp_path: Path) -> None:
    settings = experiment(data, tmp_path / "run")
    first = train(settings, progress=False)
    written = (tmp_path / "run/best.safetensors").stat().st_mtime_ns
    assert train(settings, progress=False) == first
    assert (tmp_path / "run/best.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"train\.lr was 0\.01, now 0\.02"):
        train(experiment(data, tmp_path / "run", train__lr=0.02), progress=False)
    train(experiment(data, tmp_path / "run", train__lr=0.02), resume=False, progress=False)
    [start] = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "start"]
    assert start["inputs"] == [load_checkpoint(tmp_path / "run/best.safetensors").inputs[0].key]


def test_early_stopping(data: Path, tmp_path: Path) -> None:
    result = train(
        experiment(data, tmp_path / "run", train__lr=0.0, train__patience=2, train__epochs=9), progress=False
    )
    assert (result.epoch, result.epochs) == (1, 3)
    rarely = {"train__evaluate_every": 2, "train__patience": 1}  # less patience than evaluations need
    result = train(experiment(data, tmp_path / "rare", train__lr=0.0, train__epochs=9, **rarely), progress=False)
    assert (result.epoch, result.epochs) == (2, 4)


def test_more_patience_continues_a_run_that_stopped_early(data: Path, tmp_path: Path) -> None:
    """Would catch a run that stays finished after the setting that finished it was changed."""
    calm = {"train__lr": 0.0, "train__epochs": 4}
    assert train(experiment(data, tmp_path / "run", **calm, train__patience=1), progress=False).epochs == 2
    assert train(experiment(data, tmp_path / "run", **calm, train__patience=0), progress=False).epochs == 4


def test_auto_precision_and_the_papers_solver_run(data: Path, tmp_path: Path) -> None:
    paper = {"model__init": "uniform", "model__image_dim": 0, "model__normalize": "none", "train__optimizer": "sgd"}
    rates = {"train__loss_scale": 20, "train__clip": 10, "train__schedule": "halve", "train__halve_every": 6}
    result = train(
        experiment(data, tmp_path / "run", **paper, **rates, train__precision="auto", train__metric="bleu4"),
        progress=False,
    )
    log = read_log(tmp_path / "run/log.jsonl")
    losses = [r["train_loss"] for r in log if r["kind"] == "epoch"]
    assert losses[1] < losses[0]
    assert [r["lr"] for r in log if r["kind"] == "steps"][-1] == 0.01 / 2
    assert result.metric == "bleu4"


def test_text_first_then_images_with_another_vocabulary(data: Path, tmp_path: Path) -> None:
    """Words are matched by name: would catch rows copied by number when the vocabularies differ."""
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("\n".join(["zebras like the green square", "a white zebra is there", "the left is red"] * 9))
    first = train(
        experiment(data, tmp_path / "text", task="language_model", data__text=str(sentences), train__epochs=1),
        progress=False,
    )
    assert first.metric == "dev_loss"
    source = load_checkpoint(first.checkpoint)
    run = Trainer(experiment(data, tmp_path / "run", train__init_from=str(first.checkpoint)), World(), CPU, True, False)
    own, given = run.data.outputs, source.outputs
    common = set(own.words) & set(given.words)
    assert {"green", "square", "left"} <= common
    assert "zebra" not in own.words
    decoder = run.learner.model
    for word in common:
        i, j = own.words.index(word), given.words.index(word)
        assert torch.equal(decoder.embedding.weight[i], source.model.embedding.weight[j])
        assert torch.equal(decoder.lm_head.bias[i], source.model.lm_head.bias[j])
    name = "stack.layers.0.weight_hh_l0"
    assert torch.equal(decoder.state_dict()[name], source.model.state_dict()[name])
    assert float(decoder.feature_mean.abs().max()) > 1, "the statistics are those of the features, not of the text"
    (note,) = run.notes
    assert f"{len(common)} of {len(own)} words; initialized: image.weight (8, 9) ((8, 1) there)" in note


def test_vocabulary_can_be_taken_over(data: Path, tmp_path: Path) -> None:
    first = train(experiment(data, tmp_path / "a", train__epochs=1, data__min_count=9), progress=False)
    second = load_captions(experiment(data, tmp_path / "b", data__vocabulary_from=str(first.checkpoint)))
    assert second.outputs == load_checkpoint(first.checkpoint).outputs


def test_mirrored_features_are_for_training_only(data: Path, tmp_path: Path) -> None:
    run = Trainer(
        experiment(data, tmp_path / "run", data__features_mirrored=[str(data / "mirrored.h5")]),
        World(),
        CPU,
        True,
        False,
    )
    seen = torch.cat([batch.images["input"] for batch in run.data.batches(0)])
    assert 10 < int((seen < 0).all(1).sum()) < 38  # of 48 captions
    assert (encode_rows(run.learner, run.data, run.data.dev_rows) > 0).all()
    again = torch.cat([batch.images["input"] for batch in run.data.batches(0, 3)])
    assert torch.equal(again, seen[-len(again) :]), "what is mirrored depends on where a run was resumed"


def test_a_teacher_sees_images_through_its_own_features(data: Path, tmp_path: Path) -> None:
    """Would catch stores that are mixed up, mirrored images for one of the two only, and a model too wide."""
    own, other = [str(data / "features.h5")], [str(data / "features.h5"), str(data / "features.h5")]
    flipped = [str(data / "mirrored.h5")]
    teacher = train(experiment(data, tmp_path / "teacher", data__features=other, train__epochs=1), progress=False)
    settings = {
        "data__features": own,
        "data__features_mirrored": flipped,
        "data__vocabulary_from": str(teacher.checkpoint),
        "loss__teachers": [str(teacher.checkpoint)],
        "loss__teacher_features": other,
        "train__epochs": 1,
    }
    with pytest.raises(ConfigError, match=r"loss\.teacher_features_mirrored"):
        load_captions(experiment(data, tmp_path / "run", **settings))
    settings["loss__teacher_features_mirrored"] = flipped * 2
    result = train(experiment(data, tmp_path / "run", **settings), progress=False)
    size = FeatureStore(data / "features.h5").spec.dimension
    assert load_checkpoint(result.checkpoint).model.feature_size == size


def test_finetuning_trains_the_cnn_and_keeps_its_statistics(data: Path, tmp_path: Path) -> None:
    """The checkpoint must hold the trained CNN, or captions would come from the one it started as."""
    torch.manual_seed(3)
    weights = tmp_path / "cnn.safetensors"
    before = CompactCNN().state_dict()
    save_file(before, weights)
    small = data / "small.jsonl"
    small.write_text("\n".join((data / "captions.jsonl").read_text().splitlines()[:3]))
    settings = {"finetune__backbone": "compact", "finetune__weights": str(weights)}
    result = train(
        experiment(
            small,
            tmp_path / "run",
            data__root=str(small),
            data__features=[],
            train__epochs=1,
            finetune__workers=1,
            **settings,
        ),
        progress=False,
    )
    checkpoint = load_checkpoint(result.checkpoint)
    after = checkpoint.backbone_states[0]
    assert after is not None
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert any(name.endswith("weight") for name in moved)
    assert not any("running" in name or "num_batches" in name for name in moved)
    backbone = load_backbone(checkpoint.inputs[0].key, state=after)
    assert backbone.spec.dimension == checkpoint.model.feature_size


def test_state_file_round_trip(tmp_path: Path) -> None:
    """Every optimizer slot must come back bit by bit, in both solvers."""
    for optimizer in ("adamw", "sgd"):
        torch.manual_seed(0)
        net, config = nn.Linear(3, 2), TrainConfig(optimizer=optimizer)
        solver = make_optimizer(config, [(net, 1e-3)])
        for _ in range(3):
            net(torch.randn(4, 3)).square().sum().backward()
            solver.step()
        save_state(tmp_path / "s", net, solver, [torch.ones(2)], {"position": 7})
        other = nn.Linear(3, 2)
        fresh, average = make_optimizer(config, [(other, 1e-3)]), [torch.zeros(2)]
        assert load_state(tmp_path / "s", other, fresh, average) == {"position": 7}
        assert torch.equal(average[0], torch.ones(2))
        torch.testing.assert_close(fresh.state_dict(), solver.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__features": []}, r"data\.features is empty"),
        ({"data__features": ["mirrored.h5"]}, "made of mirrored images"),
        ({"data__features_mirrored": ["features.h5"]}, "made of images as they are"),
        ({"train__metric": "rouge"}, r"train\.metric: 'rouge' is not one of cider"),
        ({"train__device": "abacus"}, r"train\.device 'abacus' is not available.*use train\.device=cpu"),
        ({"train__lr": 1e30, "train__clip": 0}, "loss is (nan|inf)"),
    ],
)
def test_errors_say_what_to_do(data: Path, tmp_path: Path, settings: dict[str, object], message: str) -> None:
    settings = {
        name: [str(data / store) for store in value] if isinstance(value, list) else value
        for name, value in settings.items()
    }
    with pytest.raises(CaptionerError, match=message):
        train(experiment(data, tmp_path / "run", **settings), progress=False)


def test_a_data_set_without_dev_images_is_refused(data: Path, tmp_path: Path) -> None:
    bare = data / "bare.jsonl"
    bare.write_text((data / "captions.jsonl").read_text().replace('"val"', '"test"'))
    with pytest.raises(DataError, match="no captioned image is in split val"):
        train(experiment(data, tmp_path / "run", data__root=str(bare)), progress=False)


def test_store_width_reaches_the_decoder(data: Path, tmp_path: Path) -> None:
    """Two stores are laid side by side in the order of the configuration."""
    other = tmp_path / "other.h5"
    store = FeatureStore(data / "features.h5")
    with FeatureWriter(other, store.spec, "toy") as writer:
        for name, vector in zip(store.ids, store.get(store.ids), strict=True):
            writer.add(name, -vector)
    stores = [str(data / "features.h5"), str(other)]
    loaded = load_captions(experiment(data, tmp_path / "run", data__features=stores))
    assert sum(spec.dimension for spec in loaded.inputs) == 2 * DIMENSION
    (row,) = next(iter(loaded.images.stream([torch.tensor([0])])))["input"]
    assert torch.equal(row[:DIMENSION], -row[DIMENSION:])


def test_statistics_scale_each_backbone_as_a_whole() -> None:
    """Would catch a backbone of small numbers that is drowned by one of large numbers, or weak dimensions blown up."""
    model = LRCN(LRCNConfig(embedding_dim=4, hidden_dim=4, image_dim=4, normalize="backbone"), 9, 4)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=generator) * torch.tensor([100.0, 1.0, 0.01, 0.01]) + 3
    set_statistics(model, features, [2, 2])
    scaled = (features - model.feature_mean) / model.feature_std
    deviations = scaled.var(0)
    torch.testing.assert_close(deviations[:2].mean(), deviations[2:].mean(), rtol=1e-3, atol=0)
    assert deviations[0] > 1000 * deviations[1]
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
