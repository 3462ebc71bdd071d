"""Captions to beat: what is to be had without a captioning model. Results files as `captioner caption -o` writes them.

    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k -o nn1.json
    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k -k 30 -o nn30.json
    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k --each -o nn1-each.json
    python -m eval.baselines typical --data data/flickr8k -o typical.json
    python -m eval.baselines ngram --data data/flickr8k -o ngram.json
    python -m eval.baselines human --data data/flickr8k -o human.json

neighbor: of all captions of the k most similar training images, the one with which the others agree most (Devlin et
al. 2015). k = 1 is the 1-NN of Donahue et al. 2015, whose score is the mean BLEU of all captions of the neighbor:
--each writes a file for each of them (nn1-each-caption1.json, ...), and `eval.report` prints their mean as one row.
typical: the training caption that would score best if every training image were given it.
ngram: the sentence of a Kneser-Ney language model with the highest log probability a word; or one drawn an image.
human: each reference in turn, one file each; `eval.report` scores it against the image's other references, whereas
`captioner score` would hold it against itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from captioner.data import READERS, SPLITS, read_dataset
from captioner.data.records import Captioned, of_split
from captioner.errors import DataError, UsageError, exit_status
from captioner.features.store import FeatureStore
from captioner.files import write_text
from captioner.metrics.base import find_metric
from captioner.metrics.corpus import Corpus
from captioner.text.tokenizers import DEFAULT, tokenizer
from eval.consensus import Agreement

AT_ONCE = 256  # images compared with all of training together


def neighbors(stores: Sequence[FeatureStore], train: Sequence[str], test: Sequence[str], k: int) -> np.ndarray:
    """(len(test), k) indices into ``train``: the most similar images, nearest first.

    Similarity is the cosine of the features as they are stored; of several stores, its mean over them.
    """
    parts = []
    for store in stores:
        near, far = (_unit(store.get(list(ids))) for ids in (test, train))
        parts.append((near, far))
    found = []
    for start in range(0, len(test), AT_ONCE):
        similarity = sum(near[start : start + AT_ONCE] @ far.T for near, far in parts)  # (B, len(train))
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def consensus(train: Sequence[Captioned], near: np.ndarray, metric: str, cut: str) -> list[str]:
    """For each row of ``near`` (T, k) the caption of those images that agrees most with all others of them.

    By CIDEr-D the mean over the others, n-grams weighed by how many training images have them; by BLEU-4 the
    score against all others as references. The first of equals, in the order of the neighbors.
    """
    captions, first = _pool(train)
    split = tokenizer(cut)
    tokens = [split(caption) for caption in captions]
    candidates = [[i for image in row for i in range(first[image], first[image + 1])] for row in near]
    if metric == "bleu":
        best = [_by_bleu(tokens, row) for row in candidates]
    else:
        agreement = Agreement([tokens[start:end] for start, end in pairwise(first)])
        best = [_by_cider(agreement, row) for row in candidates]
    return [captions[index] for index in best]


def typical(train: Sequence[Captioned], cut: str) -> str:
    """The training caption whose mean CIDEr-D against all training captions is highest."""
    split = tokenizer(cut)
    captions = [caption for record in train for caption in record.captions]
    return captions[Agreement([[split(caption) for caption in record.captions] for record in train]).center()]


def ngram(train: Sequence[Captioned], count: int, options: argparse.Namespace) -> list[str]:
    """``count`` sentences of a language model of the training captions: the likeliest of a beam, or drawn."""
    from captioner.decoding import DecodingConfig, decode
    from captioner.decoding.sampling import sample
    from captioner.text.vocabulary import END, START, Vocabulary
    from eval.ngram import KneserNey

    split = tokenizer(options.tokenizer)
    sentences = [split(caption) for record in train for caption in record.captions]
    words = Vocabulary.build(sentences, options.min_count)
    model = KneserNey([words.encode(sentence) for sentence in sentences], len(words), options.order)
    if options.sample is not None:
        config = DecodingConfig("sample", num_samples=count, seed=options.sample)
        (found,) = sample(model, [()], 1, config, start=START, end=END)
        return [words.decode(one.ids) for one in found]
    config = DecodingConfig(beam_size=options.beam, length_penalty=options.length_penalty)
    ((best,),) = decode(model, [()], 1, config, start=START, end=END)
    return [words.decode(best.ids)] * count


def write_results(path: Path, records: Sequence[Captioned], captions: Sequence[str]) -> None:
    """COCO results: the data set's number of an image where it has one, else the image's id."""
    entries = [
        {"image_id": record.image_id if record.number is None else record.number, "caption": caption}
        for record, caption in zip(records, captions, strict=True)
    ]
    write_text(path, json.dumps(entries, indent=0) + "\n")
    print(f"{path}: {len(entries)} captions, {len(set(captions))} different", file=sys.stderr)


def write_each(path: Path, records: Sequence[Captioned], captions: Sequence[Sequence[str]]) -> None:
    """A file for each place that all lists of ``captions`` have: NAME-caption1.json, NAME-caption2.json, ..."""
    for place in reversed(range(min(map(len, captions)))):  # the first comes last: where it is, all are
        name = path.with_name(f"{path.stem}-caption{place + 1}{path.suffix}")
        write_results(name, records, [own[place] for own in captions])


def run(options: argparse.Namespace) -> None:
    """One baseline, from the data set to its file."""
    records = read_dataset(options.format, options.data)
    train = [record for record in of_split(records, "train") if record.captions]
    test = of_split(records, options.split)
    if options.baseline == "human":
        if min(len(record.captions) for record in test) < 2:
            raise DataError("human agreement needs two captions or more of every image")
        write_each(options.output, test, [record.captions for record in test])
    elif options.baseline == "typical":
        write_results(options.output, test, [typical(train, options.tokenizer)] * len(test))
    elif options.baseline == "ngram":
        write_results(options.output, test, ngram(train, len(test), options))
    else:
        _neighbor(train, test, options)


def _neighbor(train: Sequence[Captioned], test: Sequence[Captioned], options: argparse.Namespace) -> None:
    if not 1 <= options.k <= len(train):
        raise UsageError(f"-k must be between 1 and the {len(train)} training images, not {options.k}")
    if options.each and options.k > 1:
        raise UsageError("--each writes all captions of the one nearest image; leave -k out")
    stores = [FeatureStore(path) for path in options.features]
    near = neighbors(stores, [r.image_id for r in train], [r.image_id for r in test], options.k)
    if options.each:
        write_each(options.output, test, [train[row[0]].captions for row in near])
    else:
        write_results(options.output, test, consensus(train, near, options.consensus, options.tokenizer))


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _pool(records: Sequence[Captioned]) -> tuple[list[str], np.ndarray]:
    """All captions, and where each record's begin among them, with the end behind: (len(records) + 1,)."""
    captions = [caption for record in records for caption in record.captions]
    return captions, np.cumsum([0, *(len(record.captions) for record in records)])


def _by_cider(agreement: Agreement, row: Sequence[int]) -> int:
    """The caption of ``row`` with the highest mean CIDEr-D against all others of it."""
    agrees = agreement.among(row)
    return row[int((agrees.sum(1) - agrees.diagonal()).argmax())]


def _by_bleu(tokens: Sequence[Sequence[str]], row: Sequence[int]) -> int:
    """The caption of ``row`` with the highest BLEU-4 against all others of it."""
    bleu = find_metric("bleu")
    corpus = Corpus([tokens[one] for one in row], [[tokens[other] for other in row if other != one] for one in row])
    return row[int(bleu.aggregate(bleu.statistics(corpus))["BLEU-4"].argmax())]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, required=True, help="the data set's folder or file")
    shared.add_argument("--format", default="flickr8k", choices=sorted(READERS))
    shared.add_argument("--split", default="test", choices=SPLITS, help="images to caption")
    shared.add_argument("--tokenizer", default=DEFAULT, help="how captions are cut into words")
    shared.add_argument("-o", "--output", type=Path, required=True)
    kinds = parser.add_subparsers(dest="baseline", required=True)
    near = kinds.add_parser("neighbor", parents=[shared], help="a caption of the nearest training images")
    near.add_argument("--features", type=Path, nargs="+", required=True, help="feature stores")
    near.add_argument("-k", type=int, default=1, help="how many neighbors' captions to choose from")
    near.add_argument("--consensus", default="cider", choices=("cider", "bleu"), help="what agreement is measured by")
    near.add_argument("--each", action="store_true", help="write all captions of the nearest image, a file each")
    kinds.add_parser("typical", parents=[shared], help="one training caption for all")
    words = kinds.add_parser("ngram", parents=[shared], help="a language model without the image")
    words.add_argument("--order", type=int, default=3)
    words.add_argument("--min-count", type=int, default=5, help="rarer words are unknown, and never said")
    words.add_argument("--beam", type=int, default=20)
    words.add_argument("--length-penalty", type=float, default=1.0, help="rank by log probability / words ** this")
    words.add_argument("--sample", type=int, metavar="SEED", help="draw a sentence for each image instead")
    kinds.add_parser("human", parents=[shared], help="each reference in turn")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return exit_status(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
