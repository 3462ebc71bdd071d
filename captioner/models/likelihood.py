"""log p(caption | image) for all pairs of captions and images, without repeated computation.

Captions with the same beginning share the branches of a prefix tree. The inputs of a layer enter its gates as a sum.
The part of the word, and the output of all layers below the first one that sees the image, is computed once per prefix;
the part of the image once per image; only the combination of both once per pair of a prefix and an image. Of the
softmax, only the log-normalizer and the words that follow are computed. There is no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from captioner.config import choose
from captioner.models.lrcn import LRCN
from captioner.models.stack import State
from captioner.text.vocabulary import END, START

PRECISIONS = ("float32", "bfloat16")
ROWS = 1024
"""Most pairs of a prefix and an image that pass a layer together, so that their states fit into a CPU's cache."""
SOFTMAX_ROWS = 512
"""The same for the softmax, whose rows are longer."""


class Level(NamedTuple):
    """The P distinct prefixes of one length, and the E distinct words that follow each of them in some caption."""

    words: Tensor
    """(P,) last word of each prefix; ``START`` for the empty one."""
    parents: Tensor
    """(P,) row, in the previous level, of the prefix without that word."""
    rows: Tensor
    """(E,) row of the prefix before each word."""
    targets: Tensor
    """(E,) the words that follow prefixes."""
    onward: Tensor
    """(P',) indices of the E words that complete a prefix of the next level."""
    ends: Tensor
    """(C,) indices of the E words that complete a caption."""
    captions: Tensor
    """(C,) numbers of these captions."""


def log_likelihoods(
    model: LRCN, features: Tensor, captions: Sequence[Sequence[int]], precision: str = "float32"
) -> Tensor:
    """Log probabilities (N, M), float32, in nats, of M captions, word ids without start and end, given features (N, D).

    Each is the sum of the log softmax of ``model.forward`` over a caption and its ``END``, with the model in evaluation
    mode. Precision bfloat16 rounds the factors of matrix products, not the sums, on CPUs that support it; elsewhere it
    is float32. Fastest with some dozens of captions with the same beginning, such as neighbors in a sorted list. Raises
    ``ConfigError`` for another precision.
    """
    choose("precision", precision, PRECISIONS)
    training = model.training
    try:
        with torch.inference_mode(), _products(precision):
            return _Scorer(model.eval(), captions).score(features)
    finally:
        model.train(training)


def prefix_tree(captions: Sequence[Sequence[int]]) -> Iterator[Level]:
    """The levels of the prefix tree of ``captions``, each ended by ``END``, from the empty prefix on."""
    complete = [(*caption, END) for caption in captions]
    prefixes: dict[tuple[int, ...], int] = {(): 0}
    parents = [0]
    for length in range(1, max(map(len, complete), default=0) + 1):
        edges: dict[tuple[int, ...], int] = {}
        for caption in complete:
            if len(caption) >= length:
                edges.setdefault(caption[:length], len(edges))
        rows = [prefixes[edge[:-1]] for edge in edges]
        longer = {caption[:length] for caption in complete if len(caption) > length}
        onward = [number for edge, number in edges.items() if edge in longer]
        ending = [number for number, caption in enumerate(complete) if len(caption) == length]
        columns = (
            [prefix[-1] if prefix else START for prefix in prefixes],
            parents,
            rows,
            [edge[-1] for edge in edges],
            onward,
            [edges[complete[number]] for number in ending],
            ending,
        )
        yield Level(*(torch.tensor(column, dtype=torch.long) for column in columns))
        parents = [rows[number] for number in onward]
        prefixes = {edge: row for row, edge in enumerate(edge for edge in edges if edge in longer)}


class _Scorer:
    """A model, with the parts of its computation on captions that do not depend on images."""

    def __init__(self, model: LRCN, captions: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.stack = model.stack
        self.layers = range(len(self.stack.wiring))
        self.first = self._first()
        self.count = len(captions)
        self.tree = [Level(*(column.to(model.device) for column in level)) for level in prefix_tree(captions)]
        self.language = list(self._read())

    def _first(self) -> int:
        """The first layer with a state for each image; 0 if all layers start from an encoder's state."""
        seeing = [index for index in self.layers if "image" in self.stack.wiring[index]]
        return seeing[0] if seeing and not self.model.starts_from_feature else 0

    def score(self, features: Tensor) -> Tensor:
        """From features (N, D), log probabilities (N, M)."""
        image, state = self.model.start(features)  # (N, I), (N, H) each
        scores = image.new_empty(len(image), self.count)
        together = max(1, ROWS // max((len(level.words) for level in self.tree), default=1))
        for start in range(0, len(image), together):
            part = slice(start, start + together)
            self._look(image[part], tuple(x[part] for x in state), scores[part])
        return scores

    def _read(self) -> Iterator[list[Tensor]]:
        """For each level, the parts of the gates' inputs that depend only on language: (P, 1, G), or (G,) for a bias.

        The list begins with the first layer that sees the image; those below it are run here, once for all images.
        """
        state = tuple(x.unsqueeze(1) for x in self.stack.start(1, self.model.embedding.weight))  # (1, 1, H)
        for level in self.tree:
            sources = {"word": self.model.embedding(level.words).unsqueeze(1)}  # (P, 1, E)
            before = tuple(x.index_select(0, level.parents) for x in state)
            state = ()
            for index in self.layers[: self.first]:
                inputs = self._product(index, sources, self._bias(index))
                state += self._step(index, inputs, before[len(state) :], sources)
            parts = []
            for index in self.layers[self.first :]:
                parts.append(self._product(index, sources, self._bias(index)))
                sources.pop("below", None)  # above this layer, "below" depends on the image
            yield parts

    def _look(self, image: Tensor, start: State, scores: Tensor) -> None:
        """Fill in the log probabilities (N, M) of all captions with a few images (N, I) and their first states."""
        layers = self.layers[self.first :]
        seen = [self._product(index, {"image": image}, image.new_zeros(())) for index in layers]  # (N, G), or 0
        state = tuple(x.unsqueeze(0) for x in start[self.stack.kind.states * self.first :])  # (1, N, H)
        totals = image.new_zeros(1, len(image))  # log probabilities of the prefixes
        for level, language in zip(self.tree, self.language, strict=True):
            before = tuple(x.index_select(0, level.parents) for x in state)  # (P, N, H)
            state = ()
            sources: dict[str, Tensor] = {}
            for index, read, looked in zip(layers, language, seen, strict=True):
                inputs = self._product(index, sources, read + looked)  # (P, N, G)
                state += self._step(index, inputs, before[len(state) :], sources)
            longer = totals.index_select(0, level.rows) + self._word_log_probs(sources["below"], level)  # (E, N)
            scores[:, level.captions] = longer[level.ends].t()
            totals = longer[level.onward]

    def _product(self, index: int, sources: Mapping[str, Tensor], total: Tensor) -> Tensor:
        """``total`` (..., G) plus the contribution to a layer's gates of the ``sources`` (..., size) that it reads."""
        names = self.stack.wiring[index]
        image = self.model.config.image_dim or self.model.feature_size
        sizes = {"word": self.model.config.embedding_dim, "image": image, "below": self.stack.hidden}
        weight = self.stack.layers[index].get_parameter("weight_ih_l0")  # (G, sum of sizes)
        blocks = torch.split(weight, [sizes[name] for name in names], 1)
        for name, block in zip(names, blocks, strict=True):
            if name in sources:
                total = total + functional.linear(sources[name], block)
        return total

    def _bias(self, index: int) -> Tensor:
        return self.stack.layers[index].get_parameter("bias_ih_l0")

    def _step(self, index: int, inputs: Tensor, state: State, sources: dict[str, Tensor]) -> State:
        """Inputs (P, N, G) and states (P, N, H), its own first, to a layer's next state; ``sources`` get its output."""
        layer = self.stack.layers[index]
        weight, bias = layer.get_parameter("weight_hh_l0"), layer.get_parameter("bias_hh_l0")
        after = self.stack.kind.gate(inputs, functional.linear(state[0], weight, bias), state)
        sources["below"] = after[0] + sources["below"] if self.stack.skips[index] else after[0]
        return after

    def _word_log_probs(self, hidden: Tensor, level: Level) -> Tensor:
        """From outputs (P, N, H) of the top layer, log probabilities (E, N) of the words that follow."""
        top = self.model.pre_output(hidden)
        normalizers = torch.cat([self._normalizer(rows) for rows in torch.split(top.flatten(0, 1), SOFTMAX_ROWS)])
        weights = functional.embedding(level.targets, self.model.lm_head.weight)  # (E, H)
        logits = torch.bmm(top.index_select(0, level.rows), weights.unsqueeze(2)).squeeze(2)  # (E, N)
        logits += self.model.lm_head.bias[level.targets].unsqueeze(1)
        return logits - normalizers.view(hidden.shape[:2]).index_select(0, level.rows)

    def _normalizer(self, rows: Tensor) -> Tensor:
        """For rows (R, H), the logarithm of the sum over the vocabulary, (R,)."""
        # torch.logsumexp finds the maximum first, which takes as long as this and is needed only for large logits.
        found: Tensor = self.model.lm_head(rows).exp_().sum(-1).log_()
        return found if (found.abs() < 60).all() else torch.logsumexp(self.model.lm_head(rows), -1)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Compute matrix products of float32 numbers in this precision within the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
