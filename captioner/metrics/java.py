"""METEOR 1.5 and SPICE, by the Java programs of the package pycocoevalcap.

These are the authors' own programs, and no other metric goes by their names here. If Java, the package or a model is
missing, or the program fails, ``MissingDependency`` gives the reason.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from captioner.errors import MissingDependency
from captioner.java import find_jar, run_java
from captioner.metrics.base import Array
from captioner.metrics.corpus import Corpus

STAGES = np.array([1.0, 0.6, 0.8, 0.6])
"""Weights of exact, stem, synonym and paraphrase matches, tuned for English (Denkowski and Lavie 2014, table 2)."""
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
"""Weight of recall, the two parameters of the fragmentation penalty, and weight of content words; same table."""


class Meteor:
    """METEOR 1.5 ``-l en -norm`` (Denkowski and Lavie 2014) over the tokens, against the best of the references.

    The program aligns caption and reference; the scores are computed here from its counts and equal its own. As with
    BLEU, the score of a corpus is computed from sums and is not the mean over images. 5,000 images take about a minute.
    """

    names = ("METEOR",)
    settings = "lang:en|norm:yes|version:1.5"

    def __init__(self) -> None:
        self._jar = find_jar("METEOR", "meteor/meteor-1.5.jar")

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 23): words of caption and reference, function words of both, matches of each stage (content words of
        caption and reference, function words of both), chunks, matched words of both."""
        lines = []
        for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True):
            parts = ["SCORE", *(" ".join(tokens) for tokens in [*references, hypothesis])]
            lines.append(" ||| ".join(part.replace("|||", "") for part in parts))
        options = ["-", "-", "-stdio", "-l", "en", "-norm"]
        answer = run_java("METEOR", self._jar, options, "2G", "".join(f"{line}\n" for line in lines))
        rows = np.array([line.split() for line in answer.splitlines()], np.float64)
        if rows.shape != (corpus.size, 23):
            raise MissingDependency(f"METEOR: {self._jar} gave {rows.shape} numbers for {corpus.size} captions")
        whole = (rows[:, 20] == 1) & (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1])
        rows[whole, 20] = 0  # as METEOR does: a caption equal to its reference has no fragmentation penalty
        return rows

    def aggregate(self, sums: Array) -> dict[str, Array]:
        words, function = sums[..., 0:2], sums[..., 2:4]  # (..., 2), caption and reference
        matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # stage, content or function, side
        matched = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 if nothing matches
            found = np.einsum("s,...sk->...k", STAGES, matched) / (DELTA * (words - function) + (1 - DELTA) * function)
            precision, recall = found[..., 0], found[..., 1]
            mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
            fragments = 2 * sums[..., 20] / (sums[..., 21] + sums[..., 22])
        return {"METEOR": 100 * np.nan_to_num((1 - GAMMA * fragments**BETA) * mean)}


class Spice:
    """SPICE 1.0 (Anderson et al. 2016): F-measure over propositions of scene graphs, averaged over images.

    Needs Stanford CoreNLP 3.6.0 with its models beside the program; pycocoevalcap downloads them when it is first asked
    for SPICE. It runs without its cache, which fails on modern Java. Needs up to 8 GB of memory and many minutes.
    """

    names = ("SPICE",)
    settings = "cache:no|version:1.0"

    def __init__(self) -> None:
        self._jar = find_jar("SPICE", "spice/spice-1.0.jar")
        if not (self._jar.parent / "lib" / "stanford-corenlp-3.6.0-models.jar").exists():
            raise MissingDependency(
                "SPICE: needs Stanford CoreNLP 3.6.0; download it (400 MB) with: python -c 'from "
                "pycocoevalcap.spice.get_stanford_models import get_stanford_models as get; get()'"
            )

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 2): the image's score, 0 to 1, and 1. If no scene graph has a proposition, there is no score and both are
        0."""
        asked = [
            {"image_id": number, "test": " ".join(hypothesis), "refs": [" ".join(tokens) for tokens in references]}
            for number, (hypothesis, references) in enumerate(zip(corpus.hypotheses, corpus.references, strict=True))
        ]
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder) / "in.json", Path(folder) / "out.json"
            question.write_text(json.dumps(asked), encoding="utf-8")
            run_java("SPICE", self._jar, [str(question), "-out", str(answer), "-silent"], "8G")
            found = json.loads(answer.read_text(encoding="utf-8"))
        rows = np.zeros((corpus.size, 2))
        for item in found:
            score = float(item["scores"]["All"]["f"])  # the string "NaN" if there is nothing to compare
            if not math.isnan(score):
                rows[item["image_id"]] = score, 1
        return rows

    def aggregate(self, sums: Array) -> dict[str, Array]:
        return {"SPICE": 100 * sums[..., 0] / np.maximum(sums[..., 1], 1e-12)}
