"""Decoding settings: one record for YAML files, checkpoints, Python and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

from captioner.config import choose
from captioner.errors import ConfigError

METHODS: dict[str, str] = {
    "beam": "captioner.decoding.beam:beam_search",
    "greedy": "captioner.decoding.greedy:greedy",
    "sample": "captioner.decoding.sampling:best_of_samples",
}
"""Decoding methods by name."""

T = TypeVar("T")


def _setting(default: T, text: str, low: float | None = None, high: float | None = None) -> T:
    """A field with its help text and the range of its values (None: unbounded) in ``metadata``."""
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding settings, named as in transformers' ``generate``. A method reads the fields that it uses.

    The help text of each field is also that of the command-line option. Raises ``ConfigError`` for a value out of
    range, and if ``num_return_sequences`` is more than the method can return.
    """

    method: str = _setting("beam", "Decoding method: beam, greedy or sample.")
    beam_size: int = _setting(3, "Hypotheses kept at each step of beam search.", 1, 1000)
    num_samples: int = _setting(
        100,
        "Sentences sampled for each image; the most probable ones are returned. The LRCN paper samples 100.",
        1,
        100_000,
    )
    temperature: float = _setting(  # beyond these bounds log probabilities overflow float32
        1.0,
        "Log probabilities are divided by this before sampling. The LRCN paper multiplies by its T, so its T = 1.5 is "
        "temperature 0.667.",
        0.001,
        1000,
    )
    num_return_sequences: int = _setting(1, "Sentences returned for each image, best first.", 1)
    max_length: int = _setting(
        20, "Maximum number of tokens in a sentence, not counting the end token; longer sentences are cut.", 1, 10_000
    )
    length_penalty: float = _setting(
        0.0,
        "Beam search ranks by log probability / length ** X; 0 is plain log probability, as in the LRCN paper.",
        0,
        2,
    )
    no_repeat_ngram_size: int = _setting(0, "N-grams of this size occur at most once in a sentence; 0 for no limit.", 0)
    seed: int = _setting(
        0,
        "Seed of sampling. Sampling restarts from it for each image, so the batch does not change the sentences.",
        0,
        2**63 - 1,
    )

    def __post_init__(self) -> None:
        choose("decoding.method", self.method, METHODS)
        for item in fields(self):
            low, high = item.metadata["low"], item.metadata["high"]
            if low is None:
                continue
            value = getattr(self, item.name)
            if not low <= value <= (float("inf") if high is None else high):
                wanted = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ConfigError(f"decoding.{item.name} must be {wanted}, not {value}")
        most = max_sequences(self.method, self.beam_size, self.num_samples)
        if most is not None and self.num_return_sequences > most:
            raise ConfigError(
                f"decoding.num_return_sequences must be at most {most} with method {self.method}, not "
                f"{self.num_return_sequences}"
            )


def max_sequences(method: str, beam_size: int | None, num_samples: int | None) -> int | None:
    """Largest ``num_return_sequences`` of a method with these settings; None if it is unknown."""
    return {"beam": beam_size, "greedy": 1, "sample": num_samples}.get(method)
