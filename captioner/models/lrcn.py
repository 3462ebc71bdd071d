"""The image captioner: word vectors and a projected image feature, a recurrent stack, a softmax over words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.config import ModelConfig
from captioner.models.encoder_decoder import LabelEncoder
from captioner.models.stack import RecurrentStack, drop
from captioner.models.wirings import find_wiring
from captioner.skip_init import Undrawn
from captioner.text.vocabulary import PAD, START, UNK

NEVER = [PAD, START, UNK]
"""Numbers that decoding never chooses."""


class State(NamedTuple):
    """What decoding carries from step to step for N captions in progress."""

    image: Tensor
    """Image input of the stack, (N, I)."""
    stack: tuple[Tensor, ...]
    """Recurrent state, (N, H) each."""


class ImageCaptioner(nn.Module):
    """p(caption | image) by recurrent layers, word by word; the options are those of ``ModelConfig``.

    A feature (D,) is normalized as the configuration says, projected to size ``image`` (0 feeds it as it is)
    and goes into the layers that the wiring names, the same at every step. Features of ``None`` stand for "no image":
    the image input is zero *after* the projection, so that the language layers can be trained on text alone.
    The sizes of the softmax and the feature are ``vocabulary_size`` words and ``feature_size`` numbers; a model that
    only ever sees text may take any size, 1 for example.
    ``names`` say what each number of a feature means, for ``config.encoder``, which reads the words in them instead
    of feeding the numbers.
    Raises ``ConfigError`` where the wiring or the cell is not in its table.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        feature_size: int,
        names: Sequence[str] = (),
        *,
        initialize: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.feature_size = feature_size
        image = config.image or feature_size
        wiring = find_wiring(config.wiring)
        projected = config.image and any("image" in inputs for inputs in wiring)
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        self.image = nn.Linear(feature_size, image) if projected else nn.Identity()
        self.stack = RecurrentStack(
            wiring,
            config.cell,
            config.embedding,
            image,
            config.hidden,
            config.dropout,
            config.residual,
        )
        self.encoder = LabelEncoder(names, self.stack, config.embedding) if config.encoder else None
        # Tied (Press & Wolf 2017; Inan et al. 2017): the top layer is projected to the size of a word vector.
        self.bridge = nn.Linear(config.hidden, config.embedding) if config.tied else nn.Identity()
        self.softmax = nn.Linear(config.embedding if config.tied else config.hidden, vocabulary_size)
        if config.tied:
            self.softmax.weight = self.embedding.weight
        self.register_buffer("feature_mean", torch.zeros(feature_size))
        self.register_buffer("feature_std", torch.ones(feature_size))
        if initialize:
            self.initialize()

    @classmethod
    def empty(
        cls, config: ModelConfig, vocabulary_size: int, feature_size: int, names: Sequence[str] = ()
    ) -> ImageCaptioner:
        """A model whose weights are yet to be filled in, made in milliseconds."""
        with Undrawn():
            return cls(config, vocabulary_size, feature_size, names, initialize=False)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the training features' mean and deviation, (D,) each; dimensions that never vary are only centered."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def rooted(self, features: Tensor) -> Tensor:
        """Features (N, D) on the scale of ``feature_mean``: their signed square roots where the model takes roots.

        Roots keep a few large activations from drowning the others (Perronnin et al. 2010, section 3).
        """
        return features.sign() * features.abs().sqrt() if self.config.normalize == "root" else features

    def forward(self, features: Tensor | None, tokens: Tensor) -> Tensor:
        """Features (B, D) and the tokens so far (B, T), from ``START`` on, to logits of the next ones (B, T, V).

        Position t knows tokens 0 to t. Training is faster by ``project(hidden(features, tokens)[targets != PAD])``,
        which spends nothing on padding.
        """
        return self.project(self.hidden(features, tokens))

    def hidden(self, features: Tensor | None, tokens: Tensor) -> Tensor:
        """Features (B, D) and tokens (B, T) to the top layer's output (B, T, H), dropped out for the softmax."""
        self._check(features, tokens)
        image = self._image_input(features, tokens.shape[0])
        words = drop(self.embedding(tokens.t()), self.config.dropout, self.training)  # (T, B, E)
        state = () if self.encoder is None or features is None else self.encoder(features.to(self.device))
        output: Tensor = self.stack(words, image, state)
        return drop(output, self.config.dropout, self.training).transpose(0, 1)  # (T, B, H) -> (B, T, H)

    def project(self, hidden: Tensor) -> Tensor:
        """Outputs (..., H) of ``hidden`` to logits (..., V)."""
        logits: Tensor = self.softmax(self.bridge(hidden))
        return logits

    def start(self, features: Tensor | None, count: int = 1) -> State:
        """State before the first word for features (N, D), or for ``count`` captions without an image."""
        if features is not None:
            self._check(features, None)
            count = features.shape[0]
        image = self._image_input(features, count)
        if self.encoder is not None and features is not None:
            return State(image, self.encoder(features.to(self.device)))
        return State(image, self.stack.start(count, image))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Tokens (N,) and state to log probabilities of the next ones (N, V), in nats, and the next state.

        ``PAD``, ``START`` and ``UNK`` get -inf; the others keep the probability they have in training, so that the
        sum over a caption is its log likelihood under ``forward``.
        """
        output, stack = self.stack.step(self.embedding(tokens.to(self.device)), state.image, state.stack)
        log_probs = self.project(output).float().log_softmax(-1)
        log_probs[:, NEVER] = -math.inf
        return log_probs, State(state.image, stack)

    def select(self, state: State, rows: Tensor) -> State:
        """The captions ``rows`` (M,) of a state, in that order; a row may come several times or not at all."""
        rows = rows.to(self.device)
        return State(state.image.index_select(0, rows), tuple(x.index_select(0, rows) for x in state.stack))

    def initialize(self) -> None:
        """Draw all weights anew from torch's global generator, as ``config.init`` says."""
        if self.config.init == "uniform":  # the paper's released solver: uniform in +-0.08, biases 0
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    nn.init.uniform_(parameter, -0.08, 0.08)
                else:
                    nn.init.zeros_(parameter)
            return
        for module in (self.image, self.bridge, self.softmax):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Last, because a tied softmax has just written into it; unit vectors keep its first logits small as well.
        nn.init.normal_(self.embedding.weight, std=self.config.embedding**-0.5)
        layers = [*self.stack.layers]
        if self.encoder is not None:
            nn.init.normal_(self.encoder.embedding.weight, std=self.config.embedding**-0.5)
            layers += self.encoder.layers
        for layer in layers:
            _initialize_layer(layer, self.stack.kind.gates)

    def _image_input(self, features: Tensor | None, count: int) -> Tensor:
        """Features (B, D), or None and a count, to the image input (B, I) of the stack."""
        if features is None:
            return self.feature_mean.new_zeros(count, self.config.image or self.feature_size)
        features = features.to(self.device, torch.float32)
        if self.config.normalize != "none":
            features = (self.rooted(features) - self.feature_mean) / self.feature_std
        image: Tensor = self.image(drop(features, self.config.image_dropout, self.training))
        return image

    def _check(self, features: Tensor | None, tokens: Tensor | None) -> None:
        """Shapes at the public door."""
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
