"""Rules and a plain matcher on sentences that were labeled by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from captioner.data.clips import NODES

pytest.importorskip("spacy")

from preprocess import label_accuracy
from preprocess.label_accuracy import PlainMatcher
from preprocess.lexicon import Lexicon
from tests.conftest import CHECKOUT

GOLDEN = CHECKOUT / "tests" / "fixtures" / "tacos_golden.tsv"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("He takes out a knife from the drawer", "take_out - knife drawer -"),
        ("The man cuts the two large carrots with a knife on the board", "cut knife carrot - board"),
        ("The egg is carefully cracked into a bowl", "crack - egg - bowl"),
        ("He puts away the plate", "put_away - plate - -"),
        ("The film ends.", "- - - - -"),
        ("", "- - - - -"),
    ],
)
def test_plain_sentences(sentence: str, expected: str) -> None:
    """Would catch a matcher that is worse than it need be: what patterns can read it reads."""
    found = PlainMatcher(Lexicon())(sentence)
    assert [label.replace(" ", "_") for label in found] == expected.split()


def test_both_are_scored_on_the_same_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch rows that are swapped; the rules read all of these, the matcher most verbs."""
    assert label_accuracy.main([str(GOLDEN)]) == 0
    header, rules, matcher = (line.split() for line in capsys.readouterr().out.splitlines() if "---" not in line)
    assert header[:8] == ["file", "by", "sentences", *NODES]
    assert rules[1:3] == ["rules", "100"] and float(rules[-1]) == 100
    assert matcher[1:3] == ["matcher", "100"] and 60 < float(matcher[3]) < 100 and float(matcher[-1]) < 80


def test_a_pipeline_is_compared_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a parser that is left out; one that finds no verb has right what has no labels."""
    import spacy

    spacy.blank("en").to_disk(tmp_path / "empty")
    table = tmp_path / "table.tsv"
    head = "\t".join(["sentence", *NODES])
    table.write_text(f"{head}\nShe peels the plum.\tpeel\t-\tplum\t-\t-\nThe film ends.\t-\t-\t-\t-\t-\n")
    assert label_accuracy.main([str(table), "--parser", str(tmp_path / "empty")]) == 0
    rules, _, parser = (line.split() for line in capsys.readouterr().out.splitlines()[-3:])
    assert (rules[1], parser[1]) == ("rules", "parser")
    assert (rules[-1], parser[-1]) == ("100.0", "50.0")
    assert label_accuracy.main([str(table), "--parser", "en_core_nowhere"]) == 1


def test_sentences_of_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch scores on sentences of another edition of the corpus, and a crash where it was not given."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "video_info.json").write_text('{"a": 25}')
    (corpus / "train.txt").write_text("a.avi_1_2:He waits.#She peels the plum.\n")
    digest = hashlib.sha256(b"She peels the plum.").hexdigest()[:16]
    table = tmp_path / "table.tsv"
    head = "\t".join(["clip_id", "index", "sha256", *NODES])
    table.write_text(f"{head}\na_1_2\t1\t{digest}\tpeel\t-\tplum\t-\t-\n")
    assert label_accuracy.main([str(table), "--corpus", str(corpus)]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[-2:]] == ["100.0", "100.0"]
    assert label_accuracy.main([str(table)]) == 1
    assert "line 2: no such sentence" in capsys.readouterr().err
    table.write_text(table.read_text().replace("\t1\t", "\t0\t"))
    assert label_accuracy.main([str(table), "--corpus", str(corpus)]) == 1
    assert "another sentence was labeled" in capsys.readouterr().err
