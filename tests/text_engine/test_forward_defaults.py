"""A server's own defaults: each known option acts, and all others stop the start by name."""

from __future__ import annotations

from typing import Any

import pytest

from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationForward
from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.forward_defaults import ForwardDefaults, forward_defaults

NOTHING = ForwardDefaults(SamplingParams(), 1)
OPTIONS: dict[str, Any] = {
    "max_tokens": 7,
    "min_tokens": 2,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 4,
    "seed": 1,
    "stop": ("END",),
    "ignore_eos": True,
    "repetition_penalty": 1.1,
    "logit_bias": {3: 2.0},
    "max_time": 2.5,
    "output_scores": True,
    "min_p": 0.1,
    "typical_p": 0.9,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "allowed_token_ids": (1, 2),
    "bad_words": ("a", "b"),
    "stop_token_ids": (3,),
    "include_stop_str_in_output": True,
    "logprobs": 3,
    "prompt_logprobs": 0,
    "skip_special_tokens": False,
    "repetition_detection": RepetitionDetection(4),
}


@pytest.mark.parametrize("given", [None, {}, TextGenerationForward(), {"temperature": None}])
def test_nothing_given(given: Any) -> None:
    assert forward_defaults(given) == NOTHING


def test_every_sampling_parameter_is_in_the_table() -> None:
    assert set(OPTIONS) == set(SamplingParams.__struct_fields__)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_sampling_parameter_is_an_option(name: str) -> None:
    given = {name: OPTIONS[name]}
    assert forward_defaults(given) == ForwardDefaults(SamplingParams(**given), 1)


def test_number_of_generations() -> None:
    for given in ({"num_generations": 3}, {"n": 3}, {"n": 3, "num_generations": 3}, {"n": None, "num_generations": 3}):
        assert forward_defaults(given) == ForwardDefaults(SamplingParams(), 3)
    with pytest.raises(InvalidRequestError, match="model_forward_kwargs: 'n' and 'num_generations' contradict"):
        forward_defaults({"n": 2, "num_generations": 3})


@pytest.mark.parametrize("name", ["stream", "use_cache"])
def test_options_that_change_no_answer(name: str) -> None:
    assert forward_defaults({name: True}) == NOTHING
    assert forward_defaults({"stream": False}) == NOTHING


def test_forward_parameters_are_defaults_too() -> None:
    forward = TextGenerationForward(max_tokens=7, num_generations=2, stream=True, use_cache=True, logit_bias={3: 2})
    assert forward_defaults(forward) == ForwardDefaults(SamplingParams(max_tokens=7, logit_bias={3: 2.0}), 2)


def test_values_as_json_writes_them() -> None:
    defaults = forward_defaults({"stop": ["a", "b"], "logit_bias": {"3": 2}, "temperature": 1})
    assert defaults.sampling == SamplingParams(stop=("a", "b"), logit_bias={3: 2.0}, temperature=1.0)


@pytest.mark.parametrize("name", ["foo", "num_beams", "", 5])
def test_unknown_option_is_named(name: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"model_forward_kwargs has an unknown option {name!r}; known are al"):
        forward_defaults({name: 1})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("top_p", "0.9"),
        ("top_p", True),
        ("stop", "END"),
        ("stop", [""]),
        ("max_tokens", 2.5),
        ("temperature", 9),
        ("temperature", float("nan")),
        ("num_generations", 0),
        ("n", 0),
        ("n", True),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {1: 101}),
        ("repetition_penalty", 0),
        ("max_time", -1),
        ("use_cache", False),
    ],
)
def test_bad_value_is_named(name: str, bad: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"model_forward_kwargs: '{name}' must be") as refused:
        forward_defaults({name: bad})
    assert refused.value.param == name


def test_bounds_that_contradict_each_other() -> None:
    with pytest.raises(InvalidRequestError, match="model_forward_kwargs: 'min_tokens'"):
        forward_defaults({"min_tokens": 3, "max_tokens": 2})
