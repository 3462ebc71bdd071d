"""eval.smt and eval.tuples on a made-up kitchen whose right sentences are known."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks import smt
from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.data.clips import NODES, NULL, OTHER, Clip, write_clips
from captioner.errors import DataError
from eval import tuples
from eval.ngram import KneserNey
from eval.smt import __main__ as command
from eval.smt import train_smt
from eval.smt.alignment import HEURISTICS, align, symmetrize
from eval.smt.decoder import FEATURES, Decoder, _Decoding
from eval.smt.phrases import Option, extract, phrase_table
from eval.smt.translator import START, Translator
from eval.smt.tuning import coordinate_ascent
from tests.oracles.translation import best_translations

nltk = pytest.importorskip("nltk", reason="needs nltk")

END = "</s>"

VERBS = {"take out": "takes out", "wash": "washes", "cut": "cuts"}
THINGS = ("knife", "carrot", "plum", "cutting board")
PLACES = {"drawer": "from the drawer", "sink": "in the sink"}


def said(verb: str, thing: str, place: str, article: str = "the") -> str:
    return f"the person {VERBS[verb]} {article} {thing} {PLACES[place]}"


TUPLES = list(itertools.product(VERBS, THINGS, PLACES))
HELD_OUT = [("wash", "plum", "drawer"), ("cut", "knife", "sink"), ("take out", "carrot", "sink")]
TAUGHT = [labels for labels in TUPLES if labels not in HELD_OUT]
PAIRS = [(labels, said(*labels, article).split()) for labels in TAUGHT for article in ("the", "a", "the")]


@pytest.fixture(scope="module")
def kitchen() -> Translator:
    return train_smt(PAIRS, order=3)


# --- alignment and phrases


def test_alignment_finds_the_counterparts() -> None:
    """Would catch directions that are exchanged when two alignments become one."""
    for heuristic in HEURISTICS:
        points = align(PAIRS, "ibm2", heuristic)
        labels, words = PAIRS[0]
        assert labels == ("take out", "knife", "drawer")
        found = {(labels[i], words[j]) for i, j in points[0]}
        assert {("knife", "knife"), ("drawer", "drawer")} <= found


def test_symmetrization_on_a_known_case() -> None:
    """Would catch a "grow" that takes any neighbor, as nltk's does, or a "final" that aligns a word twice."""
    forward, backward = frozenset({(0, 0), (0, 1), (1, 3), (3, 6)}), frozenset({(0, 0), (1, 3), (2, 4), (1, 0)})
    both = {(0, 0), (1, 3)}
    assert symmetrize(forward, backward, "intersection") == both
    grown = both | {(0, 1), (2, 4)}  # (1, 0) touches, but both its words are taken
    assert symmetrize(forward, backward, "grow-diag") == grown
    assert symmetrize(forward, backward, "grow-diag-final-and") == grown | {(3, 6)}
    assert symmetrize(forward, backward, "union") == forward | backward


def test_phrases_are_those_of_nltk() -> None:
    """Would catch a pair that is inconsistent, one that is missed, and a limit that cuts instead of leaving out."""
    from nltk.translate.phrase_based import phrase_extraction

    draws = random.Random(0)
    for _ in range(200):
        source, target = draws.randint(1, 5), draws.randint(1, 9)
        points = frozenset((draws.randrange(source), draws.randrange(target)) for _ in range(draws.randint(1, 6)))
        theirs = phrase_extraction(" ".join("s" * source), " ".join("t" * target), sorted(points), 10)
        wanted = {(mine, other) for mine, other, *_ in theirs}
        assert set(extract(source, target, points, 10)) == wanted
        short = {(mine, (c, d)) for mine, (c, d) in wanted if d - c <= 3}
        assert set(extract(source, target, points, 3)) == short


def test_unaligned_words_join_either_phrase() -> None:
    """Would catch articles and prepositions that are lost because no label stands for them."""
    pair = (("wash", "knife"), "washes the knife".split())
    table = phrase_table([pair], [frozenset({(0, 0), (1, 2)})])
    assert {option.target for option in table["wash",]} == {("washes",), ("washes", "the")}
    assert {option.target for option in table["knife",]} == {("knife",), ("the", "knife")}


def test_phrase_probabilities() -> None:
    """Would catch the two directions exchanged, or counts that are divided by the wrong total."""
    one = frozenset({(0, 0)})
    pairs = [(("a",), ["x"]), (("a",), ["x"]), (("a",), ["y"]), (("b",), ["y"])]
    found = {option.target: option.features for option in phrase_table(pairs, [one] * 4)["a",]}
    assert found["x",] == pytest.approx((math.log(2 / 3), 0.0) * 2)
    assert found["y",] == pytest.approx((math.log(1 / 3), math.log(1 / 2)) * 2)


# --- decoder


def random_table(
    seed: int, source: tuple[str, ...], order: int
) -> tuple[dict[tuple[str, ...], list[Option]], KneserNey[str]]:
    """Two options for every phrase of ``source``, and a model of a few sentences over the same words."""
    draws = random.Random(seed)
    table = {
        source[a:b]: [
            Option(tuple(words), tuple(-3 * draws.random() for _ in range(4)))  # type: ignore[arg-type]
            for words in draws.sample((["x"], ["y"], ["y", "x"]), 2)
        ]
        for a, b in itertools.combinations(range(len(source) + 1), 2)
    }
    return table, KneserNey([draws.choices("xy", k=4) for _ in range(6)], order, "<s>", END)


@pytest.mark.parametrize("seed", range(4))
def test_decoder_equals_trying_everything(seed: int) -> None:
    """Would catch wrong merging, a jump or an end that is not counted, and n-best lists with gaps or repeats."""
    source = ("a", "b", "c", "d")
    table, language = random_table(seed, source, order=2)
    weights = np.array([0.3, 0.2, 0.1, 0.2, 0.6, 0.4, -0.3, 0.5])
    wanted = best_translations(source, table, lambda words: language.score(language.start, (*words, END))[0], weights)
    found = Decoder(table, language, stack=10_000, options=10).n_best(source, weights, 40)
    assert [one.score for one in found] == pytest.approx([score for score, _ in wanted[: len(found)]])
    assert [one.words for one in found] == [words for _, words in wanted[: len(found)]]
    assert len(found) >= 20


@pytest.mark.parametrize("seed", range(4))
def test_what_is_still_to_come_is_exact_without_context(seed: int) -> None:
    """Would catch an estimate that counts a word twice or not at all, and so prunes the wrong hypotheses."""
    source = ("a", "b", "c", "d")
    table, language = random_table(seed, source, order=1)
    weights = np.array([0.3, 0.2, 0.1, 0.2, 0.6, 0.4, 0.3, 0.0])  # order does not matter
    decoder = Decoder(table, language, stack=10_000)
    expected = _Decoding(decoder, source, tuple(weights)).future[0] + weights[4] * language.step((), END)[0]
    assert expected == pytest.approx(decoder.n_best(source, weights)[0].score)


def test_small_stacks_cost_little(kitchen: Translator) -> None:
    """Would catch an estimate of what is still to come that throws the right hypothesis away."""
    weights = START[: len(FEATURES)]
    wide = Decoder(kitchen.decoder.table, kitchen.decoder.language, stack=2000, options=100)
    for labels in TUPLES:
        assert kitchen.n_best(labels, 1)[0].score >= wide.n_best(labels, weights)[0].score - 1e-9


def test_more_weight_on_the_language_model_gives_more_fluent_sentences(kitchen: Translator) -> None:
    """Would catch a language model whose weight has the wrong sign or never reaches the decoder."""
    place = FEATURES.index("language")
    for labels in HELD_OUT:
        fluency = []
        for weight in (0.0, 0.3, 1.0, 3.0):
            weights = START[: len(FEATURES)].copy()
            weights[place] = weight
            fluency.append(kitchen.decoder.n_best(labels, weights)[0].features[place])
        assert fluency == sorted(fluency) and fluency[-1] > fluency[0]


def test_a_word_without_translation_is_copied(kitchen: Translator) -> None:
    """Would catch decoding that ends without a hypothesis at a label that training never had."""
    assert {"mixing", "bowl"} <= set(kitchen.translate(["wash", "mixing bowl"]))
    assert kitchen.translate([]) == []


# --- the whole model


def test_new_tuples_get_their_sentences(kitchen: Translator) -> None:
    """Would catch a model that knows only whole tuples of training, or loses articles and prepositions."""
    kitchen.tune([[(labels, 0.0)] for labels in TUPLES], [[said(*labels).split()] for labels in TUPLES])
    for labels in HELD_OUT:
        assert " ".join(kitchen.translate(labels)) == said(*labels)


def test_nothing_to_align_is_an_error() -> None:
    """Would catch a crash inside nltk when no clip has labels."""
    with pytest.raises(DataError, match="no sentence has a tuple"):
        train_smt([((), ["a", "b"])])


def test_the_probability_of_a_tuple_decides_as_its_weight_says(kitchen: Translator) -> None:
    """Would catch n best assignments of which always the first, or always the shortest, is told."""
    clip = [(("wash", "carrot", "sink"), math.log(0.6)), (("wash", "plum", "sink"), math.log(0.4))]
    turned = [(labels, -log_prob) for labels, log_prob in clip]
    model = Translator(kitchen.decoder)
    model.weights[8] = 50.0
    first, second = model.translate_all([clip, turned])
    assert "carrot" in first and "plum" in second


def test_climbing_finds_better_weights_and_always_the_same() -> None:
    """Would catch steps that are judged by another weight than the one moved, and unseeded draws."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(40, 6, 3))
    good = (features[..., 1] - 0.5 * features[..., 2]).argmax(1)  # the right candidate, by unknown weights
    statistics = np.ones((40, 6, 10)) * [9, 9, 4, 3, 2, 1, 9, 8, 7, 6]
    statistics[np.arange(40), good, 2:6] = [9, 8, 7, 6]
    start = np.array([1.0, 0.1, 0.1])
    score, weights = coordinate_ascent(features, statistics, start, np.random.default_rng(1))
    assert score > 90
    again = coordinate_ascent(features, statistics, start, np.random.default_rng(1))
    assert again[0] == score and (again[1] == weights).all()


# --- baselines and commands


def clips() -> list[Clip]:
    found = []
    for number, (verb, thing, place) in enumerate(TUPLES):
        labels = (verb, NULL, thing, place, NULL)
        sentences = (said(verb, thing, place), said(verb, thing, place), said(verb, thing, place, "a"))
        for split in ("train", "val", "test"):
            found.append(Clip(f"{split}_{number}", split, 0.0, 1.0, sentences, split, labels=labels))
    return found


def predictions(known: list[Clip], sure: float = 0.9) -> LabelPredictions:
    """LabelPredictions that give each clip's label probability ``sure`` and share the rest."""
    nodes = {}
    for node, name in enumerate(NODES):
        labels = tuple(sorted({clip.labels[node] for clip in known if clip.labels} | {OTHER}))
        best = np.array([labels.index(clip.labels[node]) for clip in known if clip.labels])
        probability = np.full((len(known), len(labels)), (1 - sure) / (len(labels) - 1), np.float32)
        probability[np.arange(len(known)), best] = sure
        nodes[name] = NodePredictions(labels, np.log(probability), best)
    return LabelPredictions([clip.clip_id for clip in known], nodes)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    write_clips(tmp_path / "clips.jsonl", clips())
    write_label_predictions(tmp_path / "label-predictions.h5", predictions(clips()))
    paths = {"clips": "clips.jsonl", "label-predictions": "label-predictions.h5", "output": "out.json"}
    return [word for name, file in paths.items() for word in (f"--{name}", str(tmp_path / file))]


def results(files: list[str]) -> dict[str, str]:
    return {entry["image_id"]: entry["caption"] for entry in json.loads(Path(files[-1]).read_text())}


@pytest.mark.parametrize("kind", ["map", "marginals"])
def test_the_command_describes_the_clips(files: list[str], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch captions that go to other clips, or a split that is left out."""
    assert command.main([*files[:-2], "--input", kind, "--processes", "1", "--n-best", "3", *files[-2:]]) == 0
    assert results(files) == {f"test_{number}": said(*labels) for number, labels in enumerate(TUPLES)}
    assert "BLEU-4" in capsys.readouterr().err


def test_without_tuning_no_dev_score_is_read(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a control that is tuned all the same: its weights are those before tuning."""
    assert command.main([*files[:-2], "--no-tune", "--processes", "1", *files[-2:]]) == 0
    said_weights = capsys.readouterr().err.split("weights: ")[1].split("\n")[0]
    assert [float(part.split()[-1]) for part in said_weights.split(", ")] == START.tolist()
    assert len(results(files)) == len(TUPLES)


def test_predictions_are_learned_from_in_turn() -> None:
    """Would catch one observation for all sentences of a clip, or gold labels that are lost."""
    clip = Clip("a", "a", 0, 1, ("x", "y", "z"), "train", labels=("cut", NULL, "egg", NULL, NULL))
    nodes = {
        node: NodePredictions(labels, np.log(np.full((3, 2), 0.5)), np.array(best))
        for node, labels, best in (("activity", ("cut", "wash"), [0, 1, 1]), ("object", ("egg", "pan"), [1, 0, 1]))
    }
    found = LabelPredictions(["a", "b", "a~2"], nodes)
    sentences = [[("x",), ("y",), ("z",)]]
    gold = [(("cut", "egg"), (word,)) for word in "xyz"]
    drawn = [(("cut", "pan"), ("x",)), (("wash", "pan"), ("y",)), (("cut", "pan"), ("z",))]
    for labels, expected in (("gold", gold), ("predictions", drawn), ("both", gold + drawn)):
        assert command.training_pairs([clip], sentences, found, labels) == expected


def test_errors_are_one_line(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a traceback for predictions of other clips, and a results file written all the same."""
    write_label_predictions(tmp_path / "label-predictions.h5", predictions(clips()[:9]))
    assert command.main(files) == 1
    assert tuples.main(["template", *files]) == 1
    errors = capsys.readouterr().err.strip().split("\n")
    assert len(errors) == 2 and all(line.startswith("error: no label predictions for") for line in errors)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_several_processes_give_the_same(kitchen: Translator) -> None:
    """Would catch results that come back in another order than the sources went."""
    given = [[(labels, 0.0)] for labels in TUPLES * 2]
    assert kitchen.translate_all(given, processes=2) == kitchen.translate_all(given)


def test_the_benchmark_measures_both_decoders() -> None:
    """Would catch a baseline that translates nothing, which would be the fastest of all."""
    [one] = smt.measure(sentences=60, tuples=3, rounds=1)
    assert one.ours > 0 and one.baseline > 0
    translator = train_smt(smt.corpus(60))
    assert smt.nltk_decoder(translator).translate(("wash", "knife", "sink"))


def test_most_probable_assignments_are_those_of_enumeration() -> None:
    """Would catch a best assignment that is lost because one of its labels is not among a node's first."""
    draws = np.random.default_rng(0)
    logs = [np.log(draws.dirichlet(np.ones(size)))[None] for size in (4, 3, 5)]
    nodes = {
        f"node{k}": NodePredictions(tuple(f"{k}{i}" for i in range(log.shape[1])), log, log.argmax(1))
        for k, log in enumerate(logs)
    }
    everything = sorted(
        (sum(float(log[0, i]) for log, i in zip(logs, choice, strict=True)), choice)
        for choice in itertools.product(*(range(log.shape[1]) for log in logs))
    )[::-1]
    found = tuples.most_probable(LabelPredictions(["clip"], nodes), 0, 7)
    assert [labels for labels, _ in found] == [tuple(f"{k}{i}" for k, i in enumerate(c)) for _, c in everything[:7]]
    assert [log_prob for _, log_prob in found] == pytest.approx([log_prob for log_prob, _ in everything[:7]])


def test_template() -> None:
    """Would catch a part that is said without a label, or labels in each other's places."""
    whole = ("cut off", "knife", "top", "carrot", "bowl")
    assert tuples.template(whole) == "the person cuts off the top with the knife from the carrot into the bowl"
    assert tuples.template((OTHER, NULL, "plum", NULL, OTHER)) == "the person uses the plum"
    forms = {"wash": "washes", "dry": "dries", "lay": "lays", "put in": "puts in", "mix": "mixes"}
    assert {verb: tuples.third_person(verb) for verb in forms} == forms


def test_nearest_tells_what_people_agree_on(files: list[str]) -> None:
    """Would catch a neighbor by the wrong similarity, or a sentence that is no consensus."""
    for kind in ("map", "marginals"):
        assert tuples.main(["nearest", "--input", kind, *files]) == 0
        assert results(files) == {f"test_{number}": said(*labels) for number, labels in enumerate(TUPLES)}
