"""LRCN: word vectors and a projected image feature, a recurrent stack, and a linear layer over the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captioner.config import choose, within
from captioner.errors import ConfigError
from captioner.models.stack import RecurrentStack, drop
from captioner.models.stack import State as StackState
from captioner.models.wirings import find_wiring
from captioner.skip_init import is_skipping
from captioner.text.vocabulary import NEVER


@dataclass(frozen=True)
class LRCNConfig:
    """The sentence decoder: the inputs of its layers, and their sizes."""

    architecture: str = "lrcn"
    """lrcn: the feature is an input of the layers that the wiring names. encoder_decoder: the words of the labels that
    a one-hot feature names (FILE@map) are read by an encoder, and decoding starts from its last state; for wiring 2e.
    A name in captioner.models.MODELS."""
    wiring: str = "4f"
    """1u, 2u, 2f, 4f or 2e: a line of captioner.models.wirings."""
    cell: str = "lstm"
    """Recurrent cell of every layer: lstm, gru or rnn, a line of captioner.models.stack."""
    embedding_dim: int = 512
    """Size of a word vector."""
    hidden_dim: int = 512
    """Units in each recurrent layer."""
    image_dim: int = 512
    """Size of the learned projection of the feature; 0 feeds the feature itself, as the paper does."""
    dropout: float = 0.0
    """Probability of dropping a unit of the word vectors, between layers and before the last layer; paper: 0."""
    image_dropout: float = 0.0
    """Probability of dropping a unit of the feature before its projection; paper: 0."""
    residual: bool = False
    """Add a layer's input to its output if the layer reads only the layer below (layers 3 and 4 of 4f, 2 of 2u)."""
    tied: bool = False
    """Share the word vectors with the last layer, through a projection of the top recurrent layer; paper: no."""
    normalize: str = "dimension"
    """How features are normalized first, by statistics of the training set that the checkpoint keeps. none: not at all
    (the paper); dimension: each dimension to mean 0 and deviation 1; backbone: each dimension to mean 0 and all of one
    backbone to a common deviation of 1; signed_sqrt: the signed square root of each number, then as backbone."""
    init: str = "orthogonal"
    """orthogonal (recurrent weights, forget bias 1) or uniform (-0.08 to 0.08, biases 0: the paper)."""

    def __post_init__(self) -> None:
        choose("model.architecture", self.architecture, ("lrcn", "encoder_decoder"))
        if self.architecture == "encoder_decoder" and self.normalize != "none":
            raise ConfigError("model.architecture encoder_decoder reads labels: model.normalize must be none")
        choose("model.init", self.init, ("orthogonal", "uniform"))
        choose("model.normalize", self.normalize, ("none", "dimension", "backbone", "signed_sqrt"))
        within("model.embedding_dim", self.embedding_dim, 1, 2**14)
        within("model.hidden_dim", self.hidden_dim, 1, 2**14)
        within("model.image_dim", self.image_dim, 0, 2**14)
        within("model.dropout", self.dropout, 0, 0.95)
        within("model.image_dropout", self.image_dropout, 0, 0.95)


class State(NamedTuple):
    """The state of decoding for N captions in progress."""

    image: Tensor
    """Image input of the stack, (N, I)."""
    stack: tuple[Tensor, ...]
    """Recurrent state, several tensors (N, H)."""


class LRCN(nn.Module):
    """p(sentence | feature), word by word, by recurrent layers (Donahue et al., arXiv 1411.4389, section 5).

    A feature (D,) is normalized as the configuration says, projected to ``image_dim`` (0: not projected) and enters the
    layers that the wiring names, equally at every step. Features of ``None`` mean "no image": the image input is then
    zero *after* the projection, so that the language layers can be trained on text alone.
    """

    starts_from_feature: ClassVar[bool] = False
    """Whether the recurrent state before the first word depends on the feature."""
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: LRCNConfig, vocabulary_size: int, feature_size: int, names: Sequence[str] = ()) -> None:
        """``vocabulary_size`` V words and ``feature_size`` D numbers, 1 for a model that is only trained on text.

        ``names`` (D) are the meanings of a feature's numbers; only the encoder-decoder uses them. Raises
        ``ConfigError`` if the wiring or the cell is not in its table.
        """
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.feature_size = feature_size
        image_dim = config.image_dim or feature_size
        wiring = find_wiring(config.wiring)
        projected = config.image_dim and any("image" in inputs for inputs in wiring)
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim)
        self.image = nn.Linear(feature_size, image_dim) if projected else nn.Identity()
        self.stack = RecurrentStack(
            wiring,
            config.cell,
            config.embedding_dim,
            image_dim,
            config.hidden_dim,
            config.dropout,
            config.residual,
        )
        self.add_encoder(names)
        # Tied (Press & Wolf 2017; Inan et al. 2017): the top layer is projected to the size of a word vector.
        self.pre_output = nn.Linear(config.hidden_dim, config.embedding_dim) if config.tied else nn.Identity()
        self.lm_head = nn.Linear(config.embedding_dim if config.tied else config.hidden_dim, vocabulary_size)
        if config.tied:
            self.lm_head.weight = self.embedding.weight
        self.register_buffer("feature_mean", torch.zeros(feature_size))
        self.register_buffer("feature_std", torch.ones(feature_size))
        if not is_skipping():
            self.initialize()

    def add_encoder(self, names: Sequence[str]) -> None:
        """Add the modules that turn a feature into a recurrent state, in subclasses that have such modules."""

    def initial_state(self, features: Tensor) -> StackState:
        """Recurrent state before the first word for features (B, D), several tensors (B, H); empty means zeros."""
        return ()

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the training features' mean and deviation, (D,) each; dimensions that never vary are only centered."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def compress(self, features: Tensor) -> Tensor:
        """Features (N, D) on the scale of ``feature_mean``: with ``signed_sqrt``, their signed square roots.

        Square roots keep a few large activations from dominating the others (Perronnin et al. 2010, section 3).
        """
        return features.sign() * features.abs().sqrt() if self.config.normalize == "signed_sqrt" else features

    def forward(self, features: Tensor | None, tokens: Tensor) -> Tensor:
        """Logits of the next tokens (B, T, V), given features (B, D) and the tokens so far (B, T), from ``START`` on.

        Position t depends on tokens 0 to t. In training, ``project(hidden(features, tokens)[targets != PAD])`` is
        faster, because it computes nothing for padding.
        """
        return self.project(self.hidden(features, tokens))

    def hidden(self, features: Tensor | None, tokens: Tensor) -> Tensor:
        """The top layer's output (B, T, H) for features (B, D) and tokens (B, T), with dropout for the last layer."""
        self._check(features, tokens)
        image = self._image_input(features, tokens.shape[0])
        words = drop(self.embedding(tokens.t()), self.config.dropout, self.training)  # (T, B, E)
        state = () if features is None else self.initial_state(features.to(self.device))
        output: Tensor = self.stack(words, image, state)
        return drop(output, self.config.dropout, self.training).transpose(0, 1)  # (T, B, H) -> (B, T, H)

    def project(self, hidden: Tensor) -> Tensor:
        """From outputs (..., H) of ``hidden``, logits (..., V)."""
        logits: Tensor = self.lm_head(self.pre_output(hidden))
        return logits

    def start(self, features: Tensor | None, count: int = 1) -> State:
        """The state before the first word for features (N, D), or for ``count`` captions without an image."""
        if features is not None:
            self._check(features, None)
            count = features.shape[0]
        image = self._image_input(features, count)
        state = () if features is None else self.initial_state(features.to(self.device))
        return State(image, state or self.stack.start(count, image))

    def step(self, tokens: Tensor | NDArray[Any], state: State) -> tuple[Tensor, State]:
        """From tokens (N,) and state, log probabilities of the next ones (N, V), in nats, and the next state.

        ``PAD``, ``START`` and ``UNK`` get -inf; the others keep their probability in training, so that the sum over a
        caption is its log likelihood under ``forward``.
        """
        log_probs, following = self.predict(tokens, state)
        log_probs[:, NEVER] = -math.inf
        return log_probs, following

    def predict(self, tokens: Tensor | NDArray[Any], state: State) -> tuple[Tensor, State]:
        """``step``, with the probabilities of ``PAD``, ``START`` and ``UNK`` too."""
        words = self.embedding(torch.as_tensor(tokens, device=self.device))  # (N, E)
        output, stack = self.stack.step(words, state.image, state.stack)
        return self.project(output).float().log_softmax(-1), State(state.image, stack)

    def select(self, state: State, rows: Tensor | NDArray[Any]) -> State:
        """The state of the captions ``rows`` (M,), in that order; rows may repeat or be left out."""
        rows = torch.as_tensor(rows, device=self.device)
        return State(state.image.index_select(0, rows), tuple(x.index_select(0, rows) for x in state.stack))

    def initialize(self) -> None:
        """Draw all weights from torch's global generator, as ``config.init`` says."""
        if self.config.init == "uniform":  # the paper's released solver: uniform in +-0.08, biases 0
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.uniform_(parameter, -0.08, 0.08)
                else:
                    nn.init.zeros_(parameter)
            return
        for module in (self.image, self.pre_output, self.lm_head):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Last, since initializing lm_head overwrote tied word vectors; unit vectors keep the first logits small.
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=self.config.embedding_dim**-0.5)
        for layer in self.modules():
            if isinstance(layer, nn.RNNBase):
                _initialize_layer(layer, self.stack.kind.gates)

    def _image_input(self, features: Tensor | None, count: int) -> Tensor:
        """The stack's image input (B, I), from features (B, D) or from None and a count."""
        if features is None:
            return self.feature_mean.new_zeros(count, self.config.image_dim or self.feature_size)
        features = features.to(self.device, torch.float32)
        if self.config.normalize != "none":
            features = (self.compress(features) - self.feature_mean) / self.feature_std
        image: Tensor = self.image(drop(features, self.config.image_dropout, self.training))
        return image

    def _check(self, features: Tensor | None, tokens: Tensor | None) -> None:
        """Check the shapes of public calls."""
        if features is not None and (features.ndim != 2 or features.shape[1] != self.feature_size):
            raise ValueError(f"features: expected (N, {self.feature_size}), got {tuple(features.shape)}")
        if tokens is not None and (tokens.ndim != 2 or (features is not None and len(features) != len(tokens))):
            rows = "N" if features is None else len(features)
            raise ValueError(f"tokens: expected ({rows}, T), got {tuple(tokens.shape)}")


def _initialize_layer(layer: nn.Module, gates: int) -> None:
    """Orthogonal recurrent weights (Saxe et al. 2014) and Xavier inputs gate by gate; an LSTM's forget bias is 1.

    The forget gate starts open (Gers et al. 2000; Jozefowicz et al. 2015); it comes second in torch's order i f g o.
    torch has two bias vectors; one of them stays 0.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = (layer.get_parameter(f"{name}_l0") for name in _WEIGHTS)
    for weight in weight_ih.chunk(gates):
        nn.init.xavier_uniform_(weight)
    for weight in weight_hh.chunk(gates):
        nn.init.orthogonal_(weight)
    nn.init.zeros_(bias_ih)
    nn.init.zeros_(bias_hh)
    if isinstance(layer, nn.LSTM):
        nn.init.ones_(bias_ih.chunk(gates)[1])


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
