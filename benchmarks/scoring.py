"""Scoring, compared with pycocoevalcap: tokens, BLEU, CIDEr-D and ROUGE-L of 5,000 captions with five references each.

Both score the same captions in a fresh process and report the time from texts to scores, without imports and reading;
nothing is warm, neither our tokenizer's cache of words nor Java. The captions are drawn from the words of the default
model, frequent ones more often. Needs Java and the extra ``java``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from benchmarks.measure import AT_MOST, Measurement, compare, run_command
from benchmarks.memory import peak_memory
from captioner.java import find_jar
from captioner.metrics import score_captions
from captioner.text.ptb_java import JAR

SPEED, MEMORY = 3.0, 0.5
References = dict[str, list[str]]


def measure(count: int = 5000, rounds: int = 3) -> list[Measurement]:
    """Captions per second of ours over pycocoevalcap's."""
    with captions_in_files(count) as [path]:

        def run(who: str) -> Callable[[], float]:
            return lambda: count / float(run_command(command(who, path)))

        name = f"scoring {count:,} captions over pycocoevalcap"
        # The first round warms the disk's cache, from which both read their programs.
        return [compare(name, "captions/s", run("ours"), run("theirs"), rounds=rounds, target=SPEED)]


def measure_memory(count: int = 5000) -> list[Measurement]:
    """Growth of the largest process from a tenth of the captions to all, ours over pycocoevalcap's.

    Captions and references must be in memory together, so every scorer's memory grows with their number.
    """
    few = count // 10
    with captions_in_files(few, count) as paths:

        def growth(who: str) -> float:
            """KiB per caption, including its references."""
            least, most = (peak_memory(command(who, path)) for path in paths)
            return 1024 * (most - least) / (count - few)

        return [
            compare(
                f"memory of a caption among {count:,} over pycocoevalcap",
                "KiB",
                lambda: growth("ours"),
                lambda: growth("theirs"),
                rounds=1,
                warm_up=False,
                target=MEMORY,
                direction=AT_MOST,
            )
        ]


@contextlib.contextmanager
def captions_in_files(*counts: int) -> Iterator[list[Path]]:
    """For each of ``counts``, a file with that many drawn captions and their references."""
    find_jar("pycocoevalcap", JAR)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{count}.json" for count in counts]
        for path, count in zip(paths, counts, strict=True):
            path.write_text(json.dumps(draw(count)), encoding="utf-8")
        yield paths


def command(who: str, path: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.scoring", who, str(path)]


def draw(count: int, references: int = 5) -> tuple[dict[str, str], References]:
    """Captions and references that share many of their words, capitalized and with a full stop."""
    from captioner.checkpoint import load_checkpoint
    from captioner.predictors import find_model
    from captioner.text.vocabulary import SPECIALS

    known = load_checkpoint(find_model("default")).outputs.words[len(SPECIALS) :]
    words = [word for word in known if word.isalpha()]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    rng = random.Random(0)

    def vary(sentence: Sequence[str]) -> str:
        kept = [word if rng.random() < 0.7 else rng.choices(words, cum_weights=weights)[0] for word in sentence]
        return f"{' '.join(kept).capitalize()} outdoors."  # "a." may be an abbreviation, by what the next caption is

    found: dict[str, list[str]] = {}
    for number in range(count):
        sentence = rng.choices(words, cum_weights=weights, k=rng.randint(7, 15))
        found[str(number)] = [vary(sentence) for _ in range(references + 1)]
    return {key: texts[0] for key, texts in found.items()}, {key: texts[1:] for key, texts in found.items()}


def ours(hypotheses: dict[str, str], references: References) -> dict[str, float]:
    return {name: score.fraction for name, score in score_captions(hypotheses, references).scores.items()}


def theirs(hypotheses: dict[str, str], references: References) -> dict[str, float]:
    """Scores by the same calls as in ``pycocoevalcap.eval``."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    gts = tokenizer.tokenize({key: [{"caption": text} for text in texts] for key, texts in references.items()})
    res = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    found = {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)}
    return found | {
        "CIDEr-D": float(Cider().compute_score(gts, res)[0]),
        "ROUGE-L": float(Rouge().compute_score(gts, res)[0]),
    }


def main(who: str, path: str) -> None:
    """Score the captions of a file; stdout gets the seconds, stderr the scores."""
    hypotheses, references = json.loads(Path(path).read_text(encoding="utf-8"))
    if who == "theirs":
        import pycocoevalcap.bleu.bleu
        import pycocoevalcap.cider.cider
        import pycocoevalcap.rouge.rouge
        import pycocoevalcap.tokenizer.ptbtokenizer  # noqa: F401
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # pycocoevalcap prints
        began = time.perf_counter()
        found = {"ours": ours, "theirs": theirs}[who](hypotheses, references)
        seconds = time.perf_counter() - began
    print(seconds)
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
