"""captioner score: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.cli.app import main
from captioner.tables import render

SPLITS = (("1.jpg", "test", "A red dog."), ("2.jpg", "test", "A blue cat runs."), ("3.jpg", "train", "a red dog"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A Karpathy file of three images with two references each, and results for the two of the test split."""
    images = [
        {"filename": name, "split": split, "cocoid": int(name[0]), "sentences": [{"raw": text}, {"raw": "An animal."}]}
        for name, split, text in SPLITS
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    results = [{"image_id": 1, "caption": "a red dog"}, {"image_id": "photos/2.jpg", "caption": "a cat"}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status; typer leaves by ``SystemExit``."""
    monkeypatch.setattr(sys, "argv", ["captioner", *map(str, arguments)])
    try:
        return main()
    except SystemExit as leave:
        return int(leave.code or 0)


FAST = ("--metrics", "bleu,cider,rouge")


def test_json_has_scores_signatures_and_fractions(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    references = data / "dataset.json"
    common = ("score", data / "results.json", "-r", references, "--split", "test", *FAST)
    assert run(monkeypatch, *common, "--json", "--per-image", data / "each.jsonl", "--tokenizer", "plain") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert list(found) == ["scores", "diversity", "provenance"]
    scores = found["scores"]
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D", "ROUGE-L"]
    assert scores["BLEU-1"]["value"] == pytest.approx(100) and scores["BLEU-1"]["fraction"] == pytest.approx(1)
    assert scores["BLEU-1"]["length"] == 5
    signature = scores["CIDEr-D"]["signature"]
    assert signature.startswith("images:2|refs:2|tok:plain-1|case:lc|split:test|data:")
    assert signature.endswith("|n:4|sigma:6|df:corpus|version:2")
    assert found["diversity"] == pytest.approx(
        {"distinct": 100, "novel": 50, "vocabulary": 50, "words": 4, "length": 2.5}
    )
    each = [json.loads(line) for line in (data / "each.jsonl").read_text().splitlines()]
    assert [(one["image"], one["caption"]) for one in each] == [("1.jpg", "a red dog"), ("2.jpg", "a cat")]
    assert sum(one["CIDEr-D"] for one in each) / 2 == pytest.approx(scores["CIDEr-D"]["value"])


def test_scores_of_images_never_replace_something_else(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch --per-image over the references or the captions, by their name or through a link."""
    results, references = data / "results.json", data / "dataset.json"
    (data / "link.jsonl").symlink_to(references)
    (data / "own.jsonl").write_text('{"image": "1.jpg", "caption": "a dog", "split": "test"}\n')
    before = references.read_bytes()
    common = ("score", results, "-r", references, "--split", "test", "--metrics", "bleu", "--per-image")
    for name, words in (
        ("dataset.json", "is the same file as"),
        ("results.json", "is the same file as"),
        ("link.jsonl", "is the same file as"),
        ("own.jsonl", "exists and is not a file of images' scores"),
    ):
        assert run(monkeypatch, *common, data / name) == 2
        assert words in capsys.readouterr().err
    assert references.read_bytes() == before
    for _ in range(2):
        assert run(monkeypatch, *common, data / "each.jsonl") == 0


def test_tables_say_their_scale_and_signature(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("score", data / "results.json", "-r", data / "dataset.json", "--split", "test", "--metrics", "bleu,rouge")
    assert run(monkeypatch, *common) == 0
    plain = capsys.readouterr().out
    header, row, _, *notes = plain.splitlines()
    assert header.split() == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    assert row.split()[:2] == ["results", "100.00"]
    assert "0 to 100" in notes[0] and "50.0 % in no training caption" in notes[1]
    assert notes[2].startswith("BLEU-1,BLEU-2,BLEU-3,BLEU-4|images:2|") and notes[3].startswith("ROUGE-L|images:2|")
    assert run(monkeypatch, *common, "--markdown") == 0
    assert capsys.readouterr().out.split()[:3] == ["|", "|", "BLEU-1"]
    assert run(monkeypatch, *common, "--latex") == 0
    assert capsys.readouterr().out.startswith("\\begin{tabular}{lrrrrr}")
    assert run(monkeypatch, *common, "--latex", "--json") == 2


def test_what_cannot_run_is_a_line_and_what_is_asked_for_an_error(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    common = ("score", data / "results.json", "-r", data / "dataset.json", "--split", "test")
    assert run(monkeypatch, *common) == 0
    out, err = capsys.readouterr()
    assert "ROUGE-L" in out and "METEOR" not in out and "SPICE" not in out
    assert [line.partition(": needs")[0] for line in err.splitlines()] == ["note: METEOR", "note: SPICE"]
    assert run(monkeypatch, *common, "--metrics", "meteor") == 1
    assert capsys.readouterr().err.startswith("error: METEOR: needs a Java runtime")
    assert run(monkeypatch, *common, "--metrics", "bleu,bleu") == 2


def test_missing_captions_need_a_choice(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("score", data / "results.json", "-r", data / "dataset.json", *FAST)
    assert run(monkeypatch, *common) == 1
    assert "1 of 3 images (3.jpg) have no caption" in capsys.readouterr().err
    assert run(monkeypatch, *common, "--missing", "skip") == 0
    out, err = capsys.readouterr()
    assert "missing:skip-1" in out and "images:2" in out and "split:test|" in out
    assert err.startswith("note: 1 of 3 images (3.jpg) have no caption and are left out")
    assert run(monkeypatch, *common, "--missing", "empty") == 0
    out = capsys.readouterr().out
    assert "missing:empty-1" in out and "images:3" in out and "split:test+train|" in out


def test_one_image_has_no_cider(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless its words are weighed by another corpus, which the signature names."""
    (data / "one.tsv").write_text("3.jpg\ta red dog\n")
    common = ("score", data / "one.tsv", "-r", data / "dataset.json", "--split", "train", *FAST)
    assert run(monkeypatch, *common) == 1
    assert "is 0 for a single image" in capsys.readouterr().err
    assert run(monkeypatch, *common, "--df", data / "dataset.json") == 0
    assert "|df:dataset-" in capsys.readouterr().out
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(monkeypatch, *common[:-2]) == 0
    out, err = capsys.readouterr()
    assert "ROUGE-L" in out and "CIDEr-D" not in out.splitlines()[0] and "is 0 for a single image" in err


def test_named_training_captions_say_what_is_new(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train.tsv").write_text("7.jpg\ta cat\n8.jpg\tA red dog!\n")
    common = ("score", data / "results.json", "-r", data / "dataset.json", "--split", "test", *FAST)
    assert run(monkeypatch, *common, "--train", data / "train.tsv") == 0
    assert " 0.0 % in no training caption" in capsys.readouterr().out


def test_tables_are_aligned_and_escaped() -> None:
    plain = render(["", "x"], [["a", "1"], ["bb", "22"]]).splitlines()
    assert [line.split() for line in plain] == [["x"], ["a", "1"], ["bb", "22"]] and len({*map(len, plain)}) == 1
    header, rule, row = render(["a|b", "x"], [["1.50", "2"]], style="markdown").splitlines()
    assert header.split() == ["|", "a\\|b", "|", "x", "|"] and rule.endswith("-:|") and row.split()[1] == "1.50"
    latex = render(["", "x_1"], [["50 %", "1 & 2"]], style="latex")
    assert r"\begin{tabular}{lr}" in latex and r"x\_1" in latex and r"50 \%" in latex and r"1 \& 2" in latex


def test_scoring_does_not_load_torch(data: Path) -> None:
    """Loading it takes longer than scoring."""
    arguments = ["captioner", "score", str(data / "results.json"), "-r", str(data / "dataset.json"), "--split", "test"]
    code = (
        f"import sys; from captioner.cli.app import main; sys.argv = {[*arguments, *FAST]!r}; status = main(); "
        "assert status == 0, status; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
