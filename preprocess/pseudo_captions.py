"""Assign captions to photos that have none, from sentences that people wrote about other photos.

    python -m preprocess.pseudo_captions --photos photos --sentences sentences.tsv --detections detections.jsonl \\
        --features lite2.h5 --imagenet imagenet_class_index.json -o captions.jsonl
    python -m preprocess.pseudo_captions ... --learned captions.jsonl -o better.jsonl

Every photo gets the five sentences whose nouns best match the classes that networks recognize in it: those of a
detector, and the ImageNet classes of a network with a classifier, which stand for WordNet's nouns for them and for
their hypernyms. Both sides are compared as vectors weighted by inverse document frequency. With ``--learned``, the
captions of an earlier run, a linear map from features to words is learned from these captions; its words count as well,
with a larger weight. Errors in single captions average out, so each run's captions are better than the last one's.

No sentence is given to more than ``--most`` photos. Photos with sentences of their own keep these. ``--dev`` of them,
chosen by a digest of their names, become the split val, and their sentences are given to no other photo. The data sets
``--more`` are added to the file. At the end the sentences found for the photos of val are scored as captions.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from captioner.backbones import load_backbone
from captioner.cli.program import create_app, run
from captioner.data import read_dataset
from captioner.data.records import bare_name, parse_json, read_lines
from captioner.errors import DataError, print_error
from captioner.features.store import FeatureStore
from captioner.files import Kind, check_output, read_text, write_text
from captioner.metrics import score_captions
from captioner.text.tokenizers import join_pairs, tokenize
from preprocess.sentences import SENTENCES

CAPTIONS = Kind("captions in JSON lines", rb'\{"image": ')
LEVELS = 8
"""Most steps up WordNet's hypernyms."""
FADE = 0.85
"""Weight of a hypernym relative to the noun one step below it."""
LEAST_SENTENCES = 8
"""Fewest sentences that a word must occur in to count."""
LEAST_WEIGHT = 0.05
"""Nouns with a smaller weight count as not seen."""
CLASS_WEIGHT = 0.8
"""Weight of an ImageNet class relative to a detection."""
RIDGE = 1.0
"""Penalty of the linear map of ``--learned``, relative to the mean variance of the features."""
FIRST = 200
"""Best sentences of each photo from which its captions are chosen."""
GENERAL = frozenset("animal entity object whole unit artifact thing matter substance structure device organism".split())
"""Hypernyms of nearly everything."""
FUNCTION_WORDS = frozenset(
    "a an the of in on at is are it its to and with by be am as no he has over top front side back area view next one "
    "two three four out up down off or image picture photo close way lot some have so do go can will other".split()
)
"""Words that WordNet lists as nouns but that name nothing visible in these sentences."""


@dataclass(frozen=True)
class WordNet:
    """Synonyms and hypernyms of nouns, from WordNet's file ``data.noun``."""

    words: Mapping[str, Sequence[str]]
    """Lower-case words of each synset, by the synset's number."""
    above: Mapping[str, Sequence[str]]
    """Numbers of each synset's hypernyms."""

    @classmethod
    def read(cls, path: Path) -> WordNet:
        words, above = {}, {}
        for line in read_lines(path):
            if line.startswith(" "):  # the license
                continue
            cells = line.partition("|")[0].split()
            count = int(cells[3], 16)
            words[cells[0]] = [cells[4 + 2 * k].lower().replace("_", " ") for k in range(count)]
            first = 4 + 2 * count
            pointers = [cells[first + 1 + 4 * k : first + 3 + 4 * k] for k in range(int(cells[first]))]
            above[cells[0]] = [number for kind, number in pointers if kind in ("@", "@i")]
        return cls(words, above)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """The words of all synsets."""
        return frozenset(word for held in self.words.values() for word in held)

    def singular(self, word: str) -> str:
        """``dogs`` gives ``dog``, ``women`` stays: the word itself or, if a plural ending can be removed, the noun."""
        for end, instead in (("", ""), ("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
            stem = word[: len(word) - len(end)] + instead
            if word.endswith(end) and stem in self.nouns:
                return stem
        return word

    def kinds(self, number: str) -> dict[str, float]:
        """The words of a synset and of its hypernyms, with weights that fall at each step up."""
        found: dict[str, float] = {}
        level, seen = [number], {number}
        for step in range(LEVELS):
            for each in level:
                names = self.words[each]
                for word in [*names, *(name.split()[-1] for name in names if step == 0)]:
                    found.setdefault(word, FADE**step)
            level = [up for each in level for up in self.above[each] if up not in seen]
            seen.update(level)
        return {word: weight for word, weight in found.items() if word not in GENERAL}


class Nouns:
    """Nouns of sentences and photos, as vectors over one vocabulary.

    ``classes`` maps a detector's classes to the words that people use for them.
    """

    def __init__(self, wordnet: WordNet, classes: Mapping[str, Sequence[str]], sentences: Sequence[str]) -> None:
        self.wordnet = wordnet
        self.names = {word: name for name, words in reversed(list(classes.items())) for word in words}
        found = [self.of(sentence) for sentence in sentences]
        self.vectors = Weighted(found)
        known = [self.vectors.column[name] for name in classes if name in self.vectors.column]
        self.classes = torch.tensor(known, dtype=torch.long)
        """Columns of the detector's classes."""

    def of(self, sentence: str) -> set[str]:
        """The things that a sentence names: classes of the detector, and other nouns."""
        found: set[str] = set()
        for word in join_pairs(re.findall(r"[a-z]+", sentence.lower()), self.names):
            if word not in FUNCTION_WORDS:
                stem = self.wordnet.singular(word)
                if name := self.names.get(word) or self.names.get(stem) or (stem if stem in self.wordnet.nouns else ""):
                    found.add(name)
        return found

    def of_classes(self, synsets: Sequence[str]) -> np.ndarray:
        """Weights of all nouns for each of C ImageNet classes, (C, V)."""
        weights = np.zeros((len(synsets), len(self.vectors.column)), np.float32)
        for row, number in enumerate(synsets):
            for word, weight in self.wordnet.kinds(number).items():
                at = self.vectors.column.get(self.names.get(word, word))
                if at is not None:
                    weights[row, at] = max(weights[row, at], weight)
        return weights

    def of_photographs(self, probabilities: np.ndarray, classes: np.ndarray, boxes: Sequence[Sequence[Any]]) -> Tensor:
        """Unit vectors (N, V), from class probabilities (N, C), ``of_classes`` (C, V) and each photo's detections."""
        seen = probabilities @ classes * CLASS_WEIGHT
        for row, found in enumerate(boxes):
            for box in found:
                left, top, right, bottom = box["box"]
                size = min(1.0, 4 * max(0.0, (right - left) * (bottom - top))) ** 0.5
                at = self.vectors.column.get(box["class"])
                if at is not None:
                    seen[row, at] = max(seen[row, at], box["score"] * (0.6 + 0.4 * size))
        seen[seen < LEAST_WEIGHT] = 0
        return self.vectors.unit(torch.from_numpy(seen))

    def unseen(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """A part for ``shortlist``: minus the number of detector classes that a sentence names and the photo lacks.

        ``seen`` (N, V), from ``of_photographs``, is 0 for nouns that neither the detector nor the classifier finds.
        """
        named = self.vectors.matrix.index_select(1, self.classes).coalesce()
        named = torch.sparse_coo_tensor(
            named.indices(), torch.ones_like(named.values()), named.shape, check_invariants=True
        )
        return -(seen[:, self.classes] == 0).float(), named.coalesce()


class Weighted:
    """Sets of words as unit vectors, weighted by inverse document frequency."""

    def __init__(self, sets: Sequence[set[str]]) -> None:
        counts = Counter(word for words in sets for word in words)
        common = [word for word, count in counts.most_common() if count >= LEAST_SENTENCES]
        self.column = {word: index for index, word in enumerate(common)}
        self.weights = torch.tensor([np.log(len(sets) / counts[word]) for word in common], dtype=torch.float32)
        self.matrix = self.of(sets)
        """Unit vectors of ``sets``, (M, V), sparse."""

    def of(self, sets: Sequence[set[str]]) -> Tensor:
        """Sets as unit vectors (M, V), sparse."""
        at = [(row, self.column[word]) for row, words in enumerate(sets) for word in sorted(words & self.column.keys())]
        rows, columns = torch.tensor(at, dtype=torch.long).reshape(-1, 2).t()
        values = self.weights[columns]
        norms = torch.zeros(len(sets)).index_add_(0, rows, values.square()).sqrt().clamp(min=1e-6)
        shape = (len(sets), len(self.column))
        places = torch.stack([rows, columns])
        return torch.sparse_coo_tensor(places, values / norms[rows], shape, check_invariants=True).coalesce()

    def unit(self, seen: Tensor) -> Tensor:
        """Unit vectors (N, V) from weights of words (N, V)."""
        weighted = seen * self.weights
        unit: Tensor = weighted / weighted.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return unit


@dataclass(frozen=True)
class Photographs:
    """N photos, with the sentences that people wrote about some of them."""

    names: Sequence[str]
    own: Mapping[str, Sequence[str]]
    """Sentences of the photos that have some."""
    dev: frozenset[str]


def read_sentences(path: Path, photos: Path, dev: int) -> tuple[Photographs, list[str]]:
    """The photos in a folder, and all sentences except those of the dev photos.

    Lines are ``name <tab> sentence``; a number stands for the file of that number (``9`` for ``000000000009.jpg``).
    """
    files = {
        bare_name(file.name): file.name for file in photos.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png")
    }
    said: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(read_lines(path), start=1):
        name, tab, sentence = line.partition("\t")
        if not tab or not sentence.strip():
            raise DataError(f"{path}, line {number}: expected image<TAB>sentence")
        said[bare_name(name)].append(" ".join(sentence.split()))
    own = {files[name]: sentences for name, sentences in said.items() if name in files}
    first = sorted(own, key=lambda name: hashlib.sha256(bare_name(name).encode()).digest())[:dev]
    dev_keys = {bare_name(name) for name in first}
    pool = [sentence for name, sentences in said.items() if name not in dev_keys for sentence in sentences]
    return Photographs(sorted(files.values()), own, frozenset(first)), list(dict.fromkeys(pool))


def read_detections(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """The detections of each photo, from JSON lines with ``id`` (a name or its number) and ``detections``."""
    lines = (parse_json(line, f"{path}, line {number}") for number, line in enumerate(read_lines(path), start=1))
    found = {bare_name(str(item["id"])): item["detections"] for item in lines}
    return [found.get(bare_name(name), []) for name in names]


def class_probabilities(store: FeatureStore, names: Sequence[str], weights: Path | None = None) -> np.ndarray:
    """ImageNet probabilities (N, C), by the classifier of the network that computed the features."""
    classifier: Any = getattr(load_backbone(store.spec.key, weights).network, "classifier", None)
    if classifier is None:
        raise DataError(f"{store.spec.key}: its network has no classifier; give features of efficientnet-lite:2")
    with torch.inference_mode():
        found: np.ndarray = classifier(torch.from_numpy(store.get(names)).float()).softmax(-1).numpy()
    return found


def linear_words(features: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
    """Weights of words (N, V) that ridge regression predicts from features (N, D).

    It is trained on ``wanted`` (R, V), the words of ``rows`` (R,), in two halves; each half's rows are predicted by the
    model of the other half.
    """
    features = torch.cat(
        [(features - features.mean(0)) / features.std(0).clamp(min=1e-6), torch.ones(len(features), 1)], 1
    )
    half = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % 2
    found = torch.zeros(len(features), wanted.shape[1])
    for part in (0, 1):
        x, y = features[rows[half != part]], wanted[half != part]
        gram = x.t() @ x
        gram += torch.eye(len(gram)) * RIDGE * gram.diagonal().mean()
        fitted = torch.linalg.solve(gram, x.t() @ y)
        others = torch.ones(len(features), dtype=torch.bool)
        others[rows] = False
        found[others] += features[others] @ fitted / 2
        found[rows[half == part]] = features[rows[half == part]] @ fitted
    return found.clamp(min=0)


def shortlist(parts: Sequence[tuple[Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """The best ``count`` sentences of each photo, (N, K), and their scores.

    Each part has vectors of the photos (N, V) and of the sentences (M, V), sparse; the score is the sum of the parts'
    products.
    """
    found = []
    for rows in torch.split(torch.arange(len(parts[0][0])), 256):
        score = torch.stack([torch.sparse.mm(said, seen[rows].t()) for seen, said in parts]).sum(0).t()  # (n, M)
        found.append(score.topk(min(count, score.shape[1]), 1))
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])


def assign(chosen: Tensor, score: Tensor, count: int, most: int) -> list[list[int]]:
    """At most ``count`` sentences for each photo, the best pairs first, and no sentence more than ``most`` times."""
    given: list[list[int]] = [[] for _ in chosen]
    used: Counter[int] = Counter()
    for place in score.flatten().argsort(descending=True, stable=True).tolist():
        row, column = divmod(place, chosen.shape[1])
        sentence = int(chosen[row, column])
        if len(given[row]) < count and used[sentence] < most and score[row, column] > -torch.inf:
            given[row].append(sentence)
            used[sentence] += 1
    return given


def lines_of(
    photographs: Photographs, given: Mapping[str, Sequence[str]], more: Iterable[Path]
) -> list[dict[str, Any]]:
    """The lines of the output: each photo with its own or its given sentences, and the data sets ``more``."""
    lines = []
    for name in photographs.names:
        captions = list(dict.fromkeys(photographs.own.get(name) or given.get(name, ())))
        split = "val" if name in photographs.dev else "train"
        if captions:
            lines.append({"image": name, "captions": captions, "split": split})
    for record in (record for root in more for record in read_dataset("flickr8k", root)):
        captions = list(dict.fromkeys(" ".join(caption.split()) for caption in record.captions))
        lines.append({"image": record.image_id, "captions": captions, "split": record.split})
    return lines


def write_captions(
    photos: Annotated[Path, typer.Option(help="Folder of photographs.")],
    sentences: Annotated[Path, typer.Option(help="Lines of a photograph's name or number, a tab, and a sentence.")],
    detections: Annotated[Path, typer.Option(help="JSON lines of what a detector found in each photograph.")],
    class_words: Annotated[Path, typer.Option(help="JSON: the words that people use for each of its classes.")],
    imagenet: Annotated[Path, typer.Option(help="JSON: WordNet's number and the name of each ImageNet class.")],
    features: Annotated[list[Path], typer.Option(help="Feature stores; the first of a network with a classifier.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Captions to write, as own data (docs/own-data.md).")],
    weights: Annotated[Path | None, typer.Option(help="That network's weights, if not the usual ones.")] = None,
    wordnet: Annotated[Path, typer.Option(help="WordNet's data.noun.")] = Path("/usr/share/wordnet/data.noun"),
    learned: Annotated[Path | None, typer.Option(help="Captions that an earlier run wrote, to learn from.")] = None,
    more: Annotated[list[Path] | None, typer.Option(help="Data set in Flickr8k's format to add.")] = None,
    count: Annotated[int, typer.Option(min=0, help="Sentences that each photograph without its own gets.")] = 5,
    text: Annotated[Path | None, typer.Option(help="File for all sentences but those of val, one per line.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Photographs that a sentence may be given to.")] = 6,
    unseen_weight: Annotated[float, typer.Option(help="Penalty for each detector class named but not seen.")] = 0.5,
    words_weight: Annotated[float, typer.Option(help="Weight of the words of --learned relative to the nouns.")] = 4.0,
    dev: Annotated[int, typer.Option(min=0, help="Photographs with sentences that become the split val.")] = 150,
) -> None:
    """Give photographs captions that people wrote of others."""
    inputs = [sentences, detections, class_words, imagenet, wordnet, learned, *features, *(more or [])]
    check_output("-o", output, CAPTIONS, inputs)
    if text:
        check_output("--text", text, SENTENCES, [*inputs, output])
    photographs, pool = read_sentences(sentences, photos, dev)
    if text:
        write_text(text, "".join(f"{sentence}\n" for sentence in pool))
    nouns = Nouns(WordNet.read(wordnet), parse_json(read_text(class_words), str(class_words)), pool)
    synsets = [number.removeprefix("n") for number, _ in parse_json(read_text(imagenet), str(imagenet)).values()]
    stores = [FeatureStore(path) for path in features]
    seen = nouns.of_photographs(
        class_probabilities(stores[0], photographs.names, weights),
        nouns.of_classes(synsets),
        read_detections(detections, photographs.names),
    )
    unseen, named = nouns.unseen(seen)
    parts = [(seen, nouns.vectors.matrix), (unseen_weight * unseen, named)]
    vectors = torch.cat([torch.from_numpy(store.get(photographs.names)).float() for store in stores], 1)
    if learned:
        parts.append(learned_words(learned, photographs, vectors, pool, words_weight))
    chosen, score = shortlist(parts, FIRST)
    bare = [row for row, name in enumerate(photographs.names) if name not in photographs.own]
    given = assign(chosen[bare], score[bare], count, most)
    captions = {photographs.names[row]: [pool[k] for k in some] for row, some in zip(bare, given, strict=True)}
    lines = lines_of(photographs, captions, more or ())
    write_text(output, "".join(json.dumps(line) + "\n" for line in lines))
    counts = Counter(map(len, given))
    print_error(
        f"{output}: {len(bare)} photographs got {counts[count]} times {count} sentences, {counts[0]} times none"
    )
    best = {name: pool[chosen[row, 0]] for row, name in enumerate(photographs.names) if name in photographs.dev}
    if len(best) > 1:  # CIDEr-D needs two images
        scores = score_captions(best, {name: list(photographs.own[name]) for name in best}, ("bleu", "cider"))
        print_error(
            f"the best sentence of each val photograph, which is given to none: BLEU-4 {scores['BLEU-4'].value:.1f}, "
            f"CIDEr-D {scores['CIDEr-D'].value:.1f}"
        )


def learned_words(
    path: Path, photographs: Photographs, features: Tensor, pool: Sequence[str], weight: float
) -> tuple[Tensor, Tensor]:
    """A part for ``shortlist``: words that a linear map predicts from the photos, and the words of the sentences."""
    said = {item["image"]: item["captions"] for item in (json.loads(line) for line in read_lines(path))}
    rows = [row for row, name in enumerate(photographs.names) if name in said and name not in photographs.dev]
    vectors = Weighted([set(tokenize(sentence)) for sentence in pool])
    wanted = [
        vectors.of([set(tokenize(text)) for text in said[photographs.names[row]]]).to_dense().mean(0) for row in rows
    ]
    found = linear_words(features, torch.tensor(rows), torch.stack(wanted))
    return found / found.norm(dim=1, keepdim=True).clamp(min=1e-6) * weight, vectors.matrix


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, write_captions), arguments)


if __name__ == "__main__":
    sys.exit(main())
