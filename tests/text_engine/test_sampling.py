"""Sampling parameters: the request's, then the server's, then neutral ones, and each in range."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.sampling import Sampling, settle_sampling

NOTHING = SamplingParams()


def test_neutral_when_nobody_asks() -> None:
    settled = settle_sampling(NOTHING, SamplingParams(seed=1), room=50)
    assert settled == Sampling(max_tokens=50, seed=1)


FIELDS: dict[str, tuple[Any, Any]] = {
    "max_tokens": (7, 9),
    "min_tokens": (2, 3),
    "temperature": (0.5, 0.7),
    "top_p": (0.5, 0.7),
    "top_k": (4, 5),
    "seed": (1, 2),
    "stop": (("a",), ("b", "c")),
    "ignore_eos": (False, True),
    "repetition_penalty": (1.0, 1.5),
    "logit_bias": ({}, {3: 1.0}),
    "max_time": (1.0, 2.0),
    "output_scores": (False, True),
    "min_p": (0.1, 0.2),
    "typical_p": (0.5, 0.9),
    "frequency_penalty": (0.5, 1.0),
    "presence_penalty": (-0.5, 1.0),
    "allowed_token_ids": ((1,), (1, 2)),
    "bad_words": (("a",), ("b", "c")),
    "stop_token_ids": ((), (3,)),
    "include_stop_str_in_output": (False, True),
    "logprobs": (0, 5),
    "prompt_logprobs": (0, 2),
    "skip_special_tokens": (True, False),
    "repetition_detection": (RepetitionDetection(4), RepetitionDetection(8, 2, 3)),
}


def test_every_field_is_in_the_table() -> None:
    assert set(FIELDS) == set(SamplingParams.__struct_fields__)


@pytest.mark.parametrize("name", FIELDS)
def test_request_goes_before_server(name: str) -> None:
    asked, default = FIELDS[name]
    defaults = SamplingParams(**{name: default})
    assert getattr(settle_sampling(SamplingParams(**{name: asked}), defaults, room=50), name) == asked
    assert getattr(settle_sampling(NOTHING, defaults, room=50), name) == default


@pytest.mark.parametrize("name", ["temperature", "top_k", "min_tokens", "seed"])
def test_zero_is_a_wish_too(name: str) -> None:
    settled = settle_sampling(SamplingParams(**{name: 0}), SamplingParams(**{name: 1}), room=50)
    assert getattr(settled, name) == 0


def test_max_tokens_is_clamped_to_the_room() -> None:
    assert settle_sampling(SamplingParams(max_tokens=1000), NOTHING, room=3).max_tokens == 3
    assert settle_sampling(NOTHING, SamplingParams(max_tokens=1000), room=3).max_tokens == 3


def test_token_bounds_that_contradict_each_other() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        settle_sampling(SamplingParams(min_tokens=50, max_tokens=5), NOTHING, room=3)
    assert refused.value.param == "min_tokens"


@pytest.mark.parametrize(
    ("asked", "defaults"),
    [
        (SamplingParams(min_tokens=50), NOTHING),
        (SamplingParams(min_tokens=50, max_tokens=60), NOTHING),
        (SamplingParams(max_tokens=2), SamplingParams(min_tokens=50)),
    ],
    ids=["room", "clamped", "server's default"],
)
def test_what_a_request_did_not_say_itself_is_no_contradiction(asked: SamplingParams, defaults: SamplingParams) -> None:
    assert settle_sampling(asked, defaults, room=3).min_tokens == 50


def test_seed_is_drawn_anew() -> None:
    assert settle_sampling(NOTHING, NOTHING, room=1).seed != settle_sampling(NOTHING, NOTHING, room=1).seed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1),
        ("min_tokens", -1),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("stop", ("a", "")),
        ("seed", 1 << 63),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: 100.5}),
        ("logit_bias", dict.fromkeys(range(301), 1.0)),
        ("max_time", 0.0),
        ("max_time", math.nan),
    ],
)
def test_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        settle_sampling(SamplingParams(**{name: value}), NOTHING, room=50)
    assert refused.value.param == name
    with pytest.raises(InvalidRequestError):
        settle_sampling(NOTHING, SamplingParams(**{name: value}), room=50)


@pytest.mark.parametrize(
    ("fields", "alters"),
    [
        ({}, False),
        ({"output_scores": True}, False),
        ({"repetition_penalty": 0.9}, True),
        ({"logit_bias": {1: 1}}, True),
    ],
)
def test_what_alters_logits(fields: dict[str, Any], alters: bool) -> None:
    assert settle_sampling(SamplingParams(**fields), NOTHING, room=1).alters_logits is alters
