"""Override a model's decoding settings with a caller's options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from captioner.decoding.config import METHODS, DecodingConfig, max_sequences
from captioner.errors import ConfigError, UsageError, shorten

OPTIONS = tuple(item.name for item in fields(DecodingConfig))
"""Names of the options: the fields of ``DecodingConfig``."""
SELECTS = {"beam_size": "beam", "num_samples": "sample"}
"""Options that select a method when ``method`` is not given."""
USED_BY = {**SELECTS, "temperature": "sample", "length_penalty": "beam"}
"""Options that only one of the built-in methods uses."""
BUILT_IN = ("beam", "greedy", "sample")


def with_options(config: DecodingConfig, options: Mapping[str, Any]) -> DecodingConfig:
    """``config`` with the fields that ``options`` sets; None leaves a field unchanged.

    ``num_samples`` alone selects method sample, ``beam_size`` alone selects beam. If ``options`` sets
    ``num_return_sequences``, the beam size or number of samples is raised to it unless ``options`` sets that too. If
    only ``config`` sets it, it is lowered to what the method can return.

    Raises ``UsageError`` for unknown options, values out of range, and options that contradict each other or the
    method.
    """
    options = {name: value for name, value in options.items() if value is not None}
    method = check_options(options) or config.method
    for name in USED_BY:
        _check_used(name, method, options)
    size, samples = options.get("beam_size", config.beam_size), options.get("num_samples", config.num_samples)
    wanted = options.get("num_return_sequences")
    if wanted is None:
        wanted = min(config.num_return_sequences, max_sequences(method, size, samples) or config.num_return_sequences)
    merged = {"num_return_sequences": wanted, **options, "method": method}
    for name, value in (("beam_size", size), ("num_samples", samples)):
        if name not in options and (method == SELECTS[name] or method not in BUILT_IN):
            merged[name] = max(value, wanted)
    try:
        return replace(config, **merged)
    except ConfigError as error:
        raise UsageError(str(error).removeprefix("decoding.")) from None


def check_options(options: Mapping[str, Any]) -> str | None:
    """The decoding method that ``options`` select, or None if they leave it to the model.

    Raises ``UsageError`` for every error that can be found without the model's own settings.
    """
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"no decoding option {shorten(name)}; {hint}choose from {', '.join(OPTIONS)}")
    selecting = [name for name in SELECTS if name in options]
    if "method" not in options and len(selecting) > 1:
        raise UsageError(f"{' and '.join(selecting)} cannot be combined; choose one")
    method: str | None = options.get("method") or next((SELECTS[name] for name in selecting), None)
    if method is None:
        return None
    if method not in METHODS:
        raise UsageError(f"no decoding method {shorten(method)}; choose one of {', '.join(METHODS)}")
    for name in USED_BY:
        _check_used(name, method, options)
    most = max_sequences(method, options.get("beam_size"), options.get("num_samples"))
    if most and options.get("num_return_sequences", 1) > most:
        raise UsageError(
            f"num_return_sequences must be at most {most} with method {method}, not {options['num_return_sequences']}"
        )
    return method


def _check_used(name: str, method: str, options: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an option of another method; methods of other packages may read any option."""
    if name in options and method in BUILT_IN and method != USED_BY[name]:
        raise UsageError(f"{name} is for method {USED_BY[name]}, not {method}")
