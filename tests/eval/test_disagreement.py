"""eval.disagreement: the table of docs/scores.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import sacrebleu

from captioner.data.results import Matched
from captioner.metrics import score_captions
from eval.disagreement import disagreement, main, table

HYPOTHESES = {"1": "a dog runs on the grass.", "2": "two men (in red) play with a ball."}
REFERENCES = {
    "1": ("A dog runs on green grass.", "The dog runs on the grass.", "Dog on grass"),
    "2": ("Two men in red play ball.", "Men play with a ball."),
}


def test_rows_are_what_their_names_say() -> None:
    """Would catch a table that blames a tool for what it does not do."""
    pytest.importorskip("nltk")
    rows = dict(disagreement(Matched(HYPOTHESES, REFERENCES)))
    usual, *_ = rows.values()
    ours = score_captions(HYPOTHESES, REFERENCES)
    assert usual == {name: pytest.approx(ours[name].value) for name in usual}
    padded = [[texts[k] if k < len(texts) else None for texts in REFERENCES.values()] for k in range(3)]
    default = sacrebleu.corpus_bleu([*HYPOTHESES.values()], padded)
    assert rows["sacreBLEU's 13a tokens (its default)"]["BLEU-4"] == pytest.approx(default.score)
    assert rows["nltk's corpus_bleu"]["BLEU-4"] == pytest.approx(usual["BLEU-4"])
    assert rows["one reference of each image, the first"]["BLEU-4"] < usual["BLEU-4"]
    assert rows["the full stop at the end kept as a token"]["BLEU-1"] > usual["BLEU-1"]
    lines = table([*rows.items()]).splitlines()
    assert len(lines) == 2 + len(rows) and lines[2].split()[-2:] == ["+0.00", "|"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nltk")
    (tmp_path / "a.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in HYPOTHESES.items()))
    (tmp_path / "r.tsv").write_text("".join(f"{key}\t{t}\n" for key, texts in REFERENCES.items() for t in texts))
    assert main([str(tmp_path / "a.tsv"), "-r", str(tmp_path / "r.tsv")]) == 0
    assert capsys.readouterr().out.split()[:4] == ["|", "how", "|", "BLEU-1"]
    assert main([str(tmp_path / "none"), "-r", str(tmp_path / "r.tsv")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
