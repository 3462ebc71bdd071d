"""How sentences are decoded: the one record of it, in YAML, in checkpoints, in Python and on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from captioner.config import within


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding settings; names as in transformers' ``generate``. Every method reads the fields that it uses."""

    method: str = "beam"
    """beam, greedy or sample: a name in captioner.decoding.METHODS."""
    beam_size: int = 3
    """Hypotheses of a sentence that are kept at each step; beam only."""
    num_samples: int = 100
    """Sentences that are sampled for each image, of which the most probable are kept (the paper: 100); sample only."""
    temperature: float = 1.0
    """Divides log probabilities before sampling. The paper's T multiplies: its T = 1.5 is 0.667. Sample only."""
    num_return_sequences: int = 1
    """Sentences returned for each image, best first."""
    max_length: int = 20
    """Maximum number of tokens, without the end token."""
    length_penalty: float = 0.0
    """Hypotheses are ranked by log probability / length ** this; 0 is the paper's plain log probability. Beam only."""
    no_repeat_ngram_size: int = 0
    """N-grams of this many tokens occur at most once in a sentence; 0 allows all, as the paper does."""
    seed: int = 0
    """Seed of sampling; every image starts from it, so its sentences do not depend on the images beside it."""

    def __post_init__(self) -> None:
        within("decoding.beam_size", self.beam_size, 1)
        within("decoding.num_samples", self.num_samples, 1)
        within("decoding.temperature", self.temperature, 0.001, 1000)  # float32 overflows far outside
        within("decoding.num_return_sequences", self.num_return_sequences, 1)
        within("decoding.max_length", self.max_length, 1)
        within("decoding.length_penalty", self.length_penalty, 0, 2)
        within("decoding.no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        within("decoding.seed", self.seed, 0, 2**63 - 1)
