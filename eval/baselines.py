"""Baselines without a captioning model, written as results files like those of `captioner caption -o`.

    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k -o nn1.json
    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k -k 30 -o nn30.json
    python -m eval.baselines neighbor --features features/a.h5 --data data/flickr8k --each -o nn1-each.json
    python -m eval.baselines typical --data data/flickr8k -o typical.json
    python -m eval.baselines ngram --data data/flickr8k -o ngram.json
    python -m eval.baselines human --data data/flickr8k -o human.json

neighbor: of all captions of the k most similar training images, the one that agrees most with the others (Devlin et
al. 2015). With k = 1, Donahue et al. 2015 score all captions of the nearest image and report their mean BLEU: --each
writes a file for each of them (nn1-each-caption1.json, ...), and `eval.report` prints their mean as one row.
typical: the training caption that would score best if it were the caption of every training image.
ngram: the sentence of a Kneser-Ney language model with the highest log probability per word, or one sample per image.
human: each reference in turn, one file each; `eval.report` scores it against the image's other references, whereas
`captioner score` would compare it with itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from captioner.cli.program import choice, create_app, run
from captioner.data import read_dataset
from captioner.data.records import Captioned, of_split
from captioner.decoding import DecodingConfig, decode
from captioner.decoding.sampling import sample as sample_sentences
from captioner.errors import DataError, UsageError, print_error
from captioner.features.store import FeatureStore
from captioner.files import RESULTS, check_output, write_text
from captioner.metrics.base import find_metric
from captioner.metrics.corpus import Corpus
from captioner.text.tokenizers import DEFAULT, tokenize_groups
from captioner.text.tokenizers import tokenizer as find_tokenizer
from captioner.text.vocabulary import END, START, Vocabulary
from eval.command import DataFormat, Output, Split, Tokenizer
from eval.consensus import Agreement
from eval.ngram import NgramDecoder, train_ngram

BATCH_SIZE = 256  # images compared with the training images at a time


def neighbors(stores: Sequence[FeatureStore], train: Sequence[str], test: Sequence[str], k: int) -> np.ndarray:
    """(len(test), k) indices into ``train``: the most similar images, nearest first.

    Similarity is the cosine of the features as they are stored; for several stores, the mean over them.
    """
    parts = []
    for store in stores:
        near, far = (_unit(store.get(list(ids))) for ids in (test, train))
        parts.append((near, far))
    found = []
    for start in range(0, len(test), BATCH_SIZE):
        similarity = sum(near[start : start + BATCH_SIZE] @ far.T for near, far in parts)  # (B, len(train))
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def consensus(
    train: Sequence[Captioned], near: Sequence[Sequence[int]] | np.ndarray, metric: str, tokenizer: str
) -> list[str]:
    """For each row of ``near`` (T, k), the caption of those images that agrees most with all their other captions.

    Agreement is the mean CIDEr-D with the others, with the document frequencies of the training images, or the BLEU-4
    with all others as references. Ties go to the first in the order of the neighbors.
    """
    captions, first = _pool(train)
    tokens = find_tokenizer(tokenizer)(captions)
    candidates = [[i for image in row for i in range(first[image], first[image + 1])] for row in near]
    if metric == "bleu":
        best = [_by_bleu(tokens, row) for row in candidates]
    else:
        agreement = Agreement([tokens[start:end] for start, end in pairwise(first)])
        best = [_by_cider(agreement, row) for row in candidates]
    return [captions[index] for index in best]


def typical(train: Sequence[Captioned], tokenizer: str) -> str:
    """The training caption whose mean CIDEr-D against all training captions is highest."""
    captions = [caption for record in train for caption in record.captions]
    tokens = tokenize_groups([record.captions for record in train], find_tokenizer(tokenizer))
    return captions[Agreement(tokens).center()]


def ngram(train: Sequence[Captioned], order: int, min_count: int, tokenizer: str) -> tuple[NgramDecoder, Vocabulary]:
    """A language model of the training captions, and its vocabulary."""
    sentences = find_tokenizer(tokenizer)([caption for record in train for caption in record.captions])
    words = Vocabulary.build(sentences, min_count)
    return train_ngram([words.encode(sentence) for sentence in sentences], len(words), order), words


def write_results(path: Path, records: Sequence[Captioned], captions: Sequence[str]) -> None:
    """Write COCO results, under an image's number in the data set if it has one, else under its id."""
    entries = [
        {"image_id": record.image_id if record.number is None else record.number, "caption": caption}
        for record, caption in zip(records, captions, strict=True)
    ]
    check_output("-o", path, RESULTS)
    write_text(path, json.dumps(entries, indent=0) + "\n")
    print_error(f"{path}: {len(entries)} captions, {len(set(captions))} different")


def write_each(path: Path, records: Sequence[Captioned], captions: Sequence[Sequence[str]]) -> None:
    """One file for each position in the lists of ``captions``: NAME-caption1.json, NAME-caption2.json, ..."""
    for place in reversed(range(min(map(len, captions)))):  # the first is written last: if it exists, all do
        name = path.with_name(f"{path.stem}-caption{place + 1}{path.suffix}")
        write_results(name, records, [own[place] for own in captions])


Data = Annotated[Path, typer.Option("--data", help="The data set's folder or file.")]


def neighbor_command(
    data: Data,
    output: Output,
    features: Annotated[list[Path], typer.Option(help="A feature store; repeat the option for several.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many neighbors' captions to choose from.")] = 1,
    agreement: Annotated[str, choice(("cider", "bleu"), "--consensus", help="The measure of agreement.")] = "cider",
    each: Annotated[bool, typer.Option("--each", help="Write all captions of the nearest image, a file each.")] = False,
    data_format: DataFormat = "flickr8k",
    split: Split = "test",
    tokenizer: Tokenizer = DEFAULT,
) -> None:
    """Choose a caption of the nearest training images."""
    train, test = _read(data, data_format, split)
    if not 1 <= k <= len(train):
        raise UsageError(f"-k must be between 1 and the {len(train)} training images, not {k}")
    if each and k > 1:
        raise UsageError("--each writes all captions of the one nearest image; leave -k out")
    stores = [FeatureStore(path) for path in features]
    near = neighbors(stores, [r.image_id for r in train], [r.image_id for r in test], k)
    if each:
        write_each(output, test, [train[row[0]].captions for row in near])
    else:
        write_results(output, test, consensus(train, near, agreement, tokenizer))


def typical_command(
    data: Data,
    output: Output,
    data_format: DataFormat = "flickr8k",
    split: Split = "test",
    tokenizer: Tokenizer = DEFAULT,
) -> None:
    """Give all images the same training caption."""
    train, test = _read(data, data_format, split)
    write_results(output, test, [typical(train, tokenizer)] * len(test))


def ngram_command(
    data: Data,
    output: Output,
    order: Annotated[int, typer.Option(min=1, max=10, help="Length of the longest n-grams.")] = 3,
    min_count: Annotated[int, typer.Option(min=1, help="Rarer words are unknown, and never generated.")] = 5,
    beam_size: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    length_penalty: Annotated[float, typer.Option(help="Rank by log probability / words ** this.")] = 1.0,
    sample: Annotated[int | None, typer.Option(metavar="SEED", help="Sample one sentence per image instead.")] = None,
    data_format: DataFormat = "flickr8k",
    split: Split = "test",
    tokenizer: Tokenizer = DEFAULT,
) -> None:
    """Write sentences of a language model that does not see the image."""
    train, test = _read(data, data_format, split)
    model, words = ngram(train, order, min_count, tokenizer)
    if sample is not None:
        config = DecodingConfig("sample", num_samples=len(test), seed=sample)
        (found,) = sample_sentences(model, [()], 1, config, start=START, end=END)
    else:
        config = DecodingConfig(beam_size=beam_size, length_penalty=length_penalty)
        ((best,),) = decode(model, [()], 1, config, start=START, end=END)
        found = [best] * len(test)
    write_results(output, test, [words.decode(one.ids) for one in found])


def human_command(data: Data, output: Output, data_format: DataFormat = "flickr8k", split: Split = "test") -> None:
    """Write each reference in turn."""
    test = of_split(read_dataset(data_format, data), split)
    if min(len(record.captions) for record in test) < 2:
        raise DataError("human agreement needs two captions or more of every image")
    write_each(output, test, [record.captions for record in test])


def _read(data: Path, data_format: str, split: str) -> tuple[list[Captioned], list[Captioned]]:
    """The training images with captions, and the images of ``split``."""
    records = read_dataset(data_format, data)
    return [record for record in of_split(records, "train") if record.captions], of_split(records, split)


def _unit(features: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.maximum(np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True), 1e-12)
    unit: np.ndarray = features.astype(np.float32) / norms
    return unit


def _pool(records: Sequence[Captioned]) -> tuple[list[str], np.ndarray]:
    """All captions, and the offset (len(records) + 1,) of each record's first caption."""
    captions = [caption for record in records for caption in record.captions]
    return captions, np.cumsum([0, *(len(record.captions) for record in records)])


def _by_cider(agreement: Agreement, row: Sequence[int]) -> int:
    """The caption of ``row`` with the highest mean CIDEr-D with its other captions."""
    scores = agreement.among(row)
    return row[int((scores.sum(1) - scores.diagonal()).argmax())]


def _by_bleu(tokens: Sequence[Sequence[str]], row: Sequence[int]) -> int:
    """The caption of ``row`` with the highest BLEU-4 against its other captions."""
    bleu = find_metric("bleu")
    corpus = Corpus([tokens[one] for one in row], [[tokens[other] for other in row if other != one] for one in row])
    return row[int(bleu.aggregate(bleu.statistics(corpus))["BLEU-4"].argmax())]


app = create_app(__doc__, neighbor_command, typical_command, ngram_command, human_command)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
