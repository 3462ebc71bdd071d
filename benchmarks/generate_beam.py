"""Our beam search, compared with that of transformers' ``generate`` on the same LSTM, the default model's decoder.

Both search with the same beam for the same features, without the CNN; only the search differs. ``generate`` calls the
model's own ``step``, and its cache is the model's own state, so neither side runs a prefix again. They keep finished
sentences differently, so a few captions differ: 4 of 64 with the default model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.decoding import BATCH, BEAM_SIZE, decode, random_features
from benchmarks.measure import Measurement, compare, rate
from captioner.checkpoint import load_checkpoint
from captioner.optional import require
from captioner.predictors import find_model
from captioner.text.vocabulary import END, PAD, START

TARGET = 1.0


def measure(model: str = "default", count: int = 64, rounds: int = 5) -> list[Measurement]:
    """Captions/s of our beam search over those of ``generate``."""
    checkpoint = load_checkpoint(find_model(model))
    network = checkpoint.model
    features = random_features(network, count)
    theirs = generate_beam(checkpoint)

    def run(search: Callable[[Tensor], object]) -> Callable[[], float]:
        @torch.inference_mode()
        def work() -> None:
            for batch in torch.split(features, BATCH):
                search(batch)

        return rate(count, work)

    ours = run(lambda batch: decode(network, network.start(batch), len(batch), checkpoint))
    name = f"beam {BEAM_SIZE} over generate's on the same LSTM"
    return [compare(name, "captions/s", ours, run(theirs), rounds=rounds, target=TARGET)]


def generate_beam(checkpoint: Any) -> Callable[[Tensor], list[list[int]]]:
    """A function from features (N, D) to the words of each best caption, by transformers' beam search."""
    transformers = require("transformers", "transformers")
    network, longest = checkpoint.model, checkpoint.config.decoding.max_length
    output = transformers.modeling_outputs.CausalLMOutputWithPast
    name = "cache" if "cache" in output.__dataclass_fields__ else "past_key_values"  # renamed in transformers 5

    class State(transformers.Cache):  # type: ignore[misc, name-defined]
        """The model's state for all beams, in place of keys and values."""

        def __init__(self, state: Any) -> None:
            super().__init__(layers=[])
            self.state, self.steps = state, 0

        def reorder_cache(self, beam_idx: Tensor) -> None:
            self.state = network.select(self.state, beam_idx)

        def get_seq_length(self, layer_idx: int = 0, *_: Any) -> int:
            return self.steps

    class Decoder(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc, name-defined]
        config_class = transformers.PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
            return {"input_ids": input_ids[:, -1], name: kwargs[name]}

        def forward(
            self,
            input_ids: Tensor,
            attention_mask: Any = None,
            cache: Any = None,
            past_key_values: Any = None,
            **_: Any,
        ) -> Any:
            state = past_key_values if cache is None else cache
            log_probs, state.state = network.step(input_ids, state.state)
            state.steps += 1
            return output(logits=log_probs[:, None], **{name: state})

    words = len(checkpoint.outputs)
    decoder = Decoder(transformers.PretrainedConfig(vocab_size=words, num_hidden_layers=1)).eval()

    def search(features: Tensor) -> list[list[int]]:
        rows = torch.arange(len(features)).repeat_interleave(BEAM_SIZE)
        ids = decoder.generate(
            torch.full((len(features), 1), START),
            attention_mask=torch.ones(len(features), 1, dtype=torch.int64),
            **{name: State(network.select(network.start(features), rows))},
            num_beams=BEAM_SIZE,
            max_new_tokens=longest,
            length_penalty=0.0,
            early_stopping="never",
            do_sample=False,
            eos_token_id=END,
            pad_token_id=PAD,
        )
        return [[word for word in row[1:].tolist() if word not in (END, PAD)] for row in ids]

    return search
