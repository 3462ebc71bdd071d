"""DecodingConfig, and a caller's options over it."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding import METHODS, DecodingConfig, decode
from captioner.decoding.options import check_options, with_options
from captioner.errors import ConfigError, UsageError
from tests.decoding.fakes import TOKENS, markov

OWN = DecodingConfig(beam_size=4, length_penalty=1.0, no_repeat_ngram_size=2, max_length=9, seed=7)


def test_every_field_has_help() -> None:
    assert all(item.metadata["help"].endswith(".") for item in fields(DecodingConfig))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "beem"}, "decoding.method: 'beem' is not one of beam, greedy, sample"),
        ({"beam_size": 0}, "decoding.beam_size must be between 1 and 1000, not 0"),
        ({"beam_size": 10**8}, "decoding.beam_size must be between 1 and 1000, not 100000000"),
        ({"num_samples": 10**8}, "decoding.num_samples must be between 1 and 100000, not 100000000"),
        ({"max_length": 10**8}, "decoding.max_length must be between 1 and 10000, not 100000000"),
        ({"temperature": float("nan")}, "decoding.temperature must be between 0.001 and 1000, not nan"),
        ({"seed": 2**63}, "decoding.seed must be between 0 and"),
        ({"num_return_sequences": 4}, "num_return_sequences must be at most 3 with method beam, not 4"),
        ({"method": "greedy", "num_return_sequences": 2}, "at most 1 with method greedy"),
        ({"method": "sample", "num_samples": 2, "num_return_sequences": 3}, "at most 2 with method sample"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        DecodingConfig(**settings)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"beam_size": None, "seed": None}, {}),
        ({"length_penalty": 0.0, "no_repeat_ngram_size": 0}, {"length_penalty": 0.0, "no_repeat_ngram_size": 0}),
        ({"beam_size": 2}, {"beam_size": 2}),
        ({"method": "greedy"}, {"method": "greedy"}),
        ({"num_samples": 5}, {"method": "sample", "num_samples": 5}),
        ({"method": "sample", "temperature": 0.5}, {"method": "sample", "temperature": 0.5}),
        ({"num_return_sequences": 3}, {"num_return_sequences": 3}),
        ({"num_return_sequences": 6}, {"num_return_sequences": 6, "beam_size": 6}),
        ({"method": "sample", "num_return_sequences": 6}, {"method": "sample", "num_return_sequences": 6}),
    ],
)
def test_options_override_the_models_own_settings(options: dict[str, Any], changed: dict[str, Any]) -> None:
    """Would catch an option of 0, which is the paper's setting, taken for one that was not given."""
    assert with_options(OWN, options) == replace(OWN, **changed)


def test_options_over_a_model_that_samples() -> None:
    own = DecodingConfig("sample", num_samples=5, num_return_sequences=4)
    assert with_options(own, {"temperature": 0.5}) == replace(own, temperature=0.5)
    assert with_options(own, {"beam_size": 2}) == replace(own, method="beam", beam_size=2, num_return_sequences=2)
    assert with_options(own, {"method": "greedy"}).num_return_sequences == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beam_size": 3, "num_samples": 5}, "beam_size and num_samples cannot be combined; choose one"),
        ({"beam_size": 3, "method": "greedy"}, "beam_size is for method beam, not greedy"),
        ({"beam_size": 3, "method": "sample"}, "beam_size is for method beam, not sample"),
        ({"num_samples": 3, "method": "beam"}, "num_samples is for method sample, not beam"),
        ({"temperature": 0.5, "method": "greedy"}, "temperature is for method sample, not greedy"),
        (
            {"beam_size": 2, "num_return_sequences": 3},
            "num_return_sequences must be at most 2 with method beam, not 3",
        ),
        ({"method": "greedy", "num_return_sequences": 2}, "at most 1 with method greedy"),
        ({"num_samples": 2, "num_return_sequences": 3}, "at most 2 with method sample"),
        ({"method": "widest"}, "no decoding method 'widest'; choose one of beam, greedy, sample"),
        ({"beem_size": 3}, "no decoding option 'beem_size'; did you mean beam_size"),
    ],
)
def test_contradictions_are_found_before_the_model_is_known(options: dict[str, Any], reason: str) -> None:
    for check in (check_options, lambda options: with_options(OWN, options)):
        with pytest.raises(UsageError, match=reason):
            check(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0.5}, "temperature is for method sample, not beam"),
        ({"num_samples": 5, "temperature": 0.0}, "^temperature must be between 0.001 and 1000, not 0.0"),
        ({"num_samples": 0}, "^num_samples must be between 1 and 100000, not 0"),
        ({"beam_size": 0}, "^beam_size must be between 1 and 1000"),
        ({"num_return_sequences": 0}, "^num_return_sequences must be at least 1"),
        ({"max_length": 0}, "^max_length must be between 1 and 10000"),
        ({"no_repeat_ngram_size": -1}, "^no_repeat_ngram_size must be at least 0"),
        ({"length_penalty": 3.0}, "^length_penalty must be between 0 and 2"),
        ({"num_samples": 1, "seed": -1}, "^seed must be between 0 and"),
    ],
)
def test_options_that_do_not_suit_the_model_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        with_options(OWN, options)


CONFIGS = st.builds(
    lambda method, size, samples, number: DecodingConfig(
        method, size, samples, num_return_sequences=min(number, {"beam": size, "greedy": 1, "sample": samples}[method])
    ),
    st.sampled_from(["beam", "greedy", "sample"]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["beam", "greedy", "sample", None]),
        "beam_size": st.integers(1, 9),
        "num_samples": st.integers(1, 9),
        "num_return_sequences": st.integers(1, 9),
        "temperature": st.floats(0.1, 10),
    },
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(config=CONFIGS, options=OPTIONS)
def test_options_are_kept_or_refused(config: DecodingConfig, options: dict[str, Any]) -> None:
    """Would catch an option that is silently changed or ignored."""
    try:
        merged = with_options(config, options)
    except UsageError:
        return
    assert {name: asdict(merged)[name] for name, value in options.items() if value is not None} == {
        name: value for name, value in options.items() if value is not None
    }


def test_another_packages_method_gets_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new method is one line in METHODS, and may read any field."""
    monkeypatch.setitem(METHODS, "mine", "captioner.decoding.greedy:greedy")
    config = with_options(OWN, {"method": "mine", "beam_size": 6, "temperature": 0.5, "num_return_sequences": 4})
    assert (config.beam_size, config.temperature, config.num_return_sequences) == (6, 0.5, 4)
    decoder = markov(images=2, vocabulary=5)
    assert len(decode(decoder, decoder.begin(), 2, config, **TOKENS)) == 2


def test_an_unknown_method_is_one_of_the_choices() -> None:
    config = DecodingConfig()
    object.__setattr__(config, "method", "bem")
    decoder = markov(images=1, vocabulary=4)
    with pytest.raises(UsageError, match="no decoding method 'bem'; did you mean beam\\? choose one of beam, greedy"):
        decode(decoder, decoder.begin(), 1, config, **TOKENS)
