"""Self-critical training: the reward is the metric, the gradient is exact, the reward rises, a stopped run resumes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from captioner.checkpoint import load_checkpoint
from captioner.errors import ConfigError
from captioner.experiment import Experiment
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.tasks.sentences.learner import SentenceLearner, sentence_loss
from captioner.tasks.sentences.self_critical import END_WORD, CaptionReward, advantages
from captioner.text.vocabulary import END, PAD, START, UNK
from captioner.train.distributed import World
from captioner.train.runlog import read_log
from captioner.train.trainer import Trainer, train
from tests.oracles.cider import cider_d
from tests.toy import experiment, make_data

CPU = torch.device("cpu")
CRITICAL = {"loss__objective": "self_critical", "train__batch_size": 20, "train__lr": 0.01, "train__log_every": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that a few passes of cross-entropy left."""
    folder = tmp_path_factory.mktemp("start")
    return str(train(experiment(data, folder / "run", train__epochs=4), progress=False).checkpoint)


def continued(data: Path, output: Path, start: str, **settings: object) -> Experiment:
    return experiment(data, output, **CRITICAL | {"train__init_from": start} | settings)


def test_the_reward_is_the_metric_with_the_end_as_a_word() -> None:
    """Would catch other document frequencies, and an end that only one side has."""
    references = {
        7: ["a man in a red hat".split(), "the man wears a hat".split()],
        2: ["a dog runs".split(), "a brown dog on grass".split()],
        5: ["two dogs play in a field of grass".split()],
    }
    captions = {7: [*"a man in a".split(), END_WORD], 2: "a dog runs on a grass".split(), 5: [END_WORD]}
    ended = {row: [[*line, END_WORD] for line in lines] for row, lines in references.items()}
    wanted = cider_d([(captions[row], ended[row]) for row in references])
    reward = CaptionReward(references)
    assert reward(list(references), list(captions.values())) == pytest.approx(wanted, rel=1e-12)
    assert [reward([row], [captions[row]])[0] for row in references] == pytest.approx(wanted, rel=1e-12)
    assert wanted[0] > 0.1
    whole, open_ended = reward([7, 7], [[*references[7][0], END_WORD], references[7][0]])
    assert whole > open_ended


@pytest.mark.parametrize("most", [30, 3], ids=["long", "short"])
def test_the_reward_by_bleu_is_the_slope_of_bleu(most: int) -> None:
    """Against BLEU-4 in loops with a caption counted a little more; would catch a wrong brevity penalty and a mean that
    is not the score. ``short`` captions are shorter than their references."""
    references = {
        1: ["he cuts the red carrot".split(), "she slices a carrot".split()],
        4: ["he waits a little".split()],
    }
    lines = [(1, "he cuts the carrot"), (4, "he waits a little"), (4, ""), (1, "he cuts the red carrot on a board")]
    captions = [(row, [*line.split()[:most], END_WORD]) for row, line in lines]
    captions += [(4, ["he", "waits", "a", "little", END_WORD])] * 2

    def bleu(weights: list[float]) -> float:
        sums = [0.0] * 10
        for weight, (row, caption) in zip(weights, captions, strict=True):
            ended = [[*line, END_WORD] for line in references[row]]
            closest = min((abs(len(line) - len(caption)), len(line)) for line in ended)[1]
            counts = [len(caption), closest]
            for n in range(1, 5):
                grams, *seen = (
                    Counter(tuple(line[i : i + n]) for i in range(len(line) - n + 1)) for line in [caption, *ended]
                )
                counts.append(sum(min(count, max(one[gram] for one in seen)) for gram, count in grams.items()))
            counts += [max(0, len(caption) - n) for n in range(4)]
            sums = [total + weight * count for total, count in zip(sums, counts, strict=True)]
        precision = math.prod(sums[2 + n] / sums[6 + n] for n in range(4)) ** 0.25
        return math.exp(min(0, 1 - sums[1] / sums[0])) * precision

    found = CaptionReward(references, "bleu4")([row for row, _ in captions], [caption for _, caption in captions])
    whole, step = bleu([1.0] * 6), 1e-6
    assert sum(found) / 6 == pytest.approx(whole)
    for place in range(6):
        up, down = ([1 + (i == place) * sign * step for i in range(6)] for sign in (1, -1))
        slope = (math.log(bleu(up)) - math.log(bleu(down))) / (2 * step)
        assert found[place] == pytest.approx(whole * (1 + 6 * slope), rel=1e-5)


def test_advantages_are_against_the_other_captions_of_the_image() -> None:
    rewards = torch.tensor([[0.5, 1.0, 3.0], [2.0, 2.0, 2.0]])
    found = advantages(rewards)
    torch.testing.assert_close(found[0], torch.tensor([0.5 - 2.0, 1.0 - 1.75, 3.0 - 0.75]))
    torch.testing.assert_close(found.sum(1), torch.zeros(2))


def log_likelihood(model: LRCN, features: Tensor, caption: tuple[int, ...]) -> Tensor:
    """Of drawing ``caption`` word by word from those that can be drawn: ``END`` and what follows ``UNK``."""
    total = torch.zeros(())
    for length, token in enumerate(caption):
        logits = model(features, torch.tensor([[START, *caption[:length]]]))[0, -1]  # (V,)
        choices = [END, *range(UNK + 1, len(logits))]
        total = total + logits[choices].log_softmax(0)[choices.index(token)]
    return total


def test_the_expected_step_is_the_gradient_of_the_expected_reward() -> None:
    """Over all pairs of captions that two draws can give; would catch wrong signs, masks, baselines and padding."""
    torch.manual_seed(0)
    config = LRCNConfig(wiring="2f", embedding_dim=3, hidden_dim=4, image_dim=2, normalize="none")
    learner = SentenceLearner(LRCN(config, 6, 3))
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(2)
    model, features = learner.model, torch.randn(1, 3)
    words = (4, 5)
    captions = [(END,), *((w, END) for w in words), *itertools.product(words, words)]  # at most two tokens
    reward = dict(zip(captions, torch.rand(len(captions)).tolist(), strict=True))
    likelihood = {c: log_likelihood(model, features, c).exp() for c in captions}
    assert float(sum(likelihood.values()).detach()) == pytest.approx(1, abs=1e-6)
    expected_reward = sum(likelihood[c] * reward[c] for c in captions)
    parameters = [*learner.parameters()]
    wanted = torch.autograd.grad(expected_reward, parameters, retain_graph=True, materialize_grads=True)

    total = torch.zeros(())
    for pair in itertools.product(captions, repeat=2):
        worth = advantages(torch.tensor([[reward[c] for c in pair]])).flatten()
        loss = learner.sampled_loss(features.expand(2, -1), pair, worth)
        total = total + (likelihood[pair[0]] * likelihood[pair[1]]).detach() * loss / 2
    found = torch.autograd.grad(total, parameters, materialize_grads=True)
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(-gradient, other, rtol=1e-4, atol=1e-6)


def test_sampled_captions(data: Path, tmp_path: Path, start: str) -> None:
    """Would catch tokens that must not be sampled, captions without their end, and rewards of other captions."""
    run = Trainer(continued(data, tmp_path / "run", start, train__precision="auto"), World(), CPU, False, False)
    learner, sampler = run.learner.train(), run.learner.sampler
    (batch, *_) = run.data.batches(0)
    features, rows = batch.images["input"], batch.rows.tolist()
    captions, rewards = sampler(learner, features, rows, 3)
    assert learner.training
    assert [len(some) for some in captions] == [5] * len(rows) and rewards.shape == (len(rows), 5)
    words = run.data.outputs.words
    for row, some, earned in zip(rows, captions, rewards.tolist(), strict=True):
        for caption, reward in zip(some, earned, strict=True):
            assert not {PAD, START, UNK} & set(caption)
            assert END not in caption[:-1] and (caption[-1] == END or len(caption) == 10)
            assert [reward] == pytest.approx(sampler.reward([row], [[words[word] for word in caption]]))
    assert sampler(learner, features, rows, 3)[0] == captions
    assert sampler(learner, features, rows, 4)[0] != captions


def test_a_step_counts_and_shows_what_it_sampled(data: Path, tmp_path: Path, start: str) -> None:
    """Would catch tokens of the empty captions that batches hold, and a mean reward of other captions."""
    run = Trainer(continued(data, tmp_path / "run", start), World(), CPU, False, False)
    (batch, *_) = run.data.batches(0)
    captions, rewards = run.learner.sampler(run.learner, batch.images["input"], batch.rows.tolist(), batch.seed)
    loss = sentence_loss(run.learner.train(), batch)
    assert loss.count == sum(len(caption) for some in captions for caption in some)
    assert loss.shown == {"reward": (pytest.approx(float(rewards.sum())), 5.0 * len(batch))}


def test_an_epoch_sees_every_image_once(data: Path, tmp_path: Path, start: str) -> None:
    """Two processes share a batch, and every step and process samples from another seed."""
    run = Trainer(continued(data, tmp_path / "run", start), World(), CPU, False, False)
    batches = list(run.data.batches(0))
    rows = [batch.rows.tolist() for batch in batches]
    assert sorted(itertools.chain(*rows)) == run.data.train_rows.tolist()
    shares = [list(run.data.batches(0, 0, rank, 2)) for rank in range(2)]
    for rank, share in enumerate(shares):
        assert [batch.rows.tolist() for batch in share] == [r[rank::2] for r in rows]
    seeds = [batch.seed for share in [*shares, list(run.data.batches(1))] for batch in share]
    assert len(set(seeds)) == len(seeds)


def test_the_reward_rises_and_the_checkpoint_is_continued(data: Path, tmp_path: Path, start: str) -> None:
    more = {"train__epochs": 10, "loss__num_samples": 10, "train__batch_size": 40, "data__min_count": 9}
    settings = continued(data, tmp_path / "run", start, **more)
    run = Trainer(settings, World(), CPU, False, False)
    source = load_checkpoint(start)
    assert run.data.outputs == source.outputs
    for name, value in source.model.state_dict().items():
        assert torch.equal(run.learner.model.state_dict()[name], value), name
    run.fit()
    log = read_log(tmp_path / "run/log.jsonl")
    rewards = [r["train_reward"] for r in log if r["kind"] == "epoch"]
    assert sum(rewards[-3:]) / 3 > 1.2 * rewards[0]
    assert all("reward" in r for r in log if r["kind"] == "steps")
    assert (tmp_path / "run/curve.png").exists()


def test_a_stopped_run_ends_with_the_numbers_of_one_left_alone(
    data: Path, tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch draws that depend on anything but the seed, the step and the weights."""
    settings = {"train__save_minutes": 0, "train__ema": 0.9, "model__dropout": 0.3}
    whole = train(continued(data, tmp_path / "whole", start, **settings), progress=False)
    optimize = Trainer.optimize

    def stop_at_8(self: Trainer, step: object) -> Tensor:
        if self.position.step == 8:  # in the second of two epochs of six steps
            raise KeyboardInterrupt
        return optimize(self, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "optimize", stop_at_8)
        with pytest.raises(KeyboardInterrupt):
            train(continued(data, tmp_path / "stopped", start, **settings), progress=False)
    resumed = train(continued(data, tmp_path / "stopped", start, **settings), progress=False)
    assert (resumed.score, resumed.epoch) == (whole.score, whole.epoch)
    ours, theirs = (load_file(tmp_path / name / "state.safetensors") for name in ("stopped", "whole"))
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    logs = [
        [(r["step"], r.get("reward"), r.get("train_reward")) for r in read_log(tmp_path / name / "log.jsonl")]
        for name in ("stopped", "whole")
    ]
    assert logs[0] == [tuple(x if x is None else pytest.approx(x) for x in record) for record in logs[1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train__init_from": ""}, r"name it in train\.init_from"),
        ({"finetune__backbone": "compact"}, r"finetune\.backbone must be empty"),
        ({"train__batch_size": 21}, r"train\.batch_size: 21 is not a multiple of loss\.num_samples, 5"),
        ({"loss__num_samples": 1}, r"loss\.num_samples: 1 is outside 2"),
        ({"loss__objective": "cider"}, r"not one of cross_entropy, self_critical"),
        ({"data__vocabulary_from": "other.safetensors"}, r"empty data\.vocabulary_from"),
        (
            {"model__hidden_dim": 25, "model__residual": True},
            r"model\.hidden_dim is 24 there, 25 here; model\.residual is False",
        ),
    ],
)
def test_what_cannot_go_right_is_refused(
    data: Path, tmp_path: Path, start: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(continued(data, tmp_path / "run", start, **settings), progress=False)
