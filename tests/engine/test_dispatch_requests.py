"""Requests as their authors make them: forward parameters, messages, images."""

from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
import pytest

from vfastml.engine import wire
from vfastml.engine.dispatch_requests import (
    ImageToImageReq,
    SamplingParams,
    TextGenerationForward,
    TextGenerationMessage,
    TextGenerationReq,
)

VALUES: dict[str, Any] = {
    "min_tokens": 2,
    "max_tokens": 9,
    "max_time": 1.5,
    "num_generations": 3,
    "seed": -4,
    "repetition_penalty": 1.2,
    "temperature": 0.5,
    "top_p": 0.9,
    "logit_bias": {7: -1.0},
    "output_scores": True,
    "stream": False,
    "use_cache": True,
}
FOLDED = {"num_generations": "n", "stream": "stream"}
"""What does not become a part of `sampling`."""


def text(**fields: Any) -> TextGenerationReq:
    return TextGenerationReq(request_id="a", **fields)


def test_sampling_parameters_are_named() -> None:
    with pytest.raises(TypeError):
        SamplingParams(0.7)  # type: ignore[misc]


def test_sampling_parameters_travel_in_the_order_of_their_names() -> None:
    values = {name: VALUES.get(name) for name in SamplingParams.__struct_fields__}
    known_first = msgspec.to_builtins(SamplingParams(**values), str_keys=True)[:12]
    assert known_first == [9, 2, 0.5, 0.9, None, -4, None, None, 1.2, {"7": -1.0}, 1.5, True]


# -- forward parameters


def test_fields_and_their_order() -> None:
    assert list(inspect.signature(TextGenerationForward).parameters) == list(VALUES)
    assert TextGenerationForward(*VALUES.values()) == TextGenerationForward(**VALUES)
    assert msgspec.structs.asdict(TextGenerationForward()) == dict.fromkeys(VALUES)


@pytest.mark.rule("S5")
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("min_tokens", -1),
        ("max_tokens", -1),
        ("max_tokens", 2.0),
        ("max_tokens", True),
        ("max_time", 0),
        ("max_time", math.inf),
        ("max_time", math.nan),
        ("num_generations", 0),
        ("seed", 1 << 63),
        ("seed", "1"),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", math.nan),
        ("top_p", 0),
        ("top_p", 1.1),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: 100.1}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: "much"}),
        ("logit_bias", dict.fromkeys(range(301), 1.0)),
        ("logit_bias", [1]),
        ("output_scores", 1),
        ("stream", "yes"),
        ("use_cache", False),
        ("use_cache", 1),
    ],
)
def test_bad_value_is_refused_by_name(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}'"):
        TextGenerationForward(**{name: bad})


def test_min_tokens_above_max_tokens() -> None:
    assert TextGenerationForward(min_tokens=3, max_tokens=3).max_tokens == 3
    with pytest.raises(ValueError, match="'min_tokens'"):
        TextGenerationForward(min_tokens=4, max_tokens=3)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "use_cache"])
def test_each_field_is_folded_into_the_request(name: str) -> None:
    request = text(forward_params=TextGenerationForward(**{name: VALUES[name]}))
    if name in FOLDED:
        assert request == text(**{FOLDED[name]: VALUES[name]})
    else:
        assert request == text(sampling=SamplingParams(**{name: VALUES[name]}))


def test_forward_parameters_that_ask_for_nothing_change_nothing() -> None:
    asked: dict[str, Any] = {"sampling": SamplingParams(top_k=4, stop=("x",)), "n": 2, "stream": False}
    for forward in (TextGenerationForward(), TextGenerationForward(use_cache=True)):
        assert text(forward_params=forward, **asked) == text(**asked)


def test_forward_parameters_join_with_what_the_request_says_itself() -> None:
    forward = TextGenerationForward(temperature=0.5, seed=3, num_generations=2)
    request = text(sampling=SamplingParams(temperature=0.5, top_k=4), n=2, forward_params=forward)
    assert request == text(sampling=SamplingParams(temperature=0.5, top_k=4, seed=3), n=2)


@pytest.mark.parametrize(
    ("fields", "forward", "name"),
    [
        ({"sampling": SamplingParams(temperature=0.0)}, {"temperature": 1.0}, "temperature"),
        ({"sampling": SamplingParams(output_scores=True)}, {"output_scores": False}, "output_scores"),
        ({"n": 1}, {"num_generations": 2}, "num_generations"),
        ({"stream": False}, {"stream": True}, "stream"),
    ],
)
def test_contradiction_is_refused_by_name(fields: dict[str, Any], forward: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'"):
        text(forward_params=TextGenerationForward(**forward), **fields)


def test_wire_and_replace_know_the_folded_form_only() -> None:
    request = text(forward_params=TextGenerationForward(*VALUES.values()))
    assert request.forward_params is None
    assert wire.decode_request(wire.encode_request(request)) == request
    assert msgspec.structs.replace(request, priority=1).sampling == request.sampling


# -- messages


def test_messages_may_mix_dicts_and_message_objects() -> None:
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    request = text(messages=[TextGenerationMessage("system", "Be brief."), {"role": "user", "content": "hi"}])
    assert request.messages == plain
    assert all(isinstance(message, dict) for message in request.messages or ())
    assert wire.encode_request(request) == wire.encode_request(text(messages=plain))


def test_message_has_its_parts_as_attributes() -> None:
    message = TextGenerationMessage(content="hi", role="user")
    assert (message.role, message.content) == ("user", "hi")
    with pytest.raises(TypeError):
        TextGenerationMessage("user")  # type: ignore[call-arg]


# -- images


def test_images_are_bytes_or_text() -> None:
    request = ImageToImageReq(request_id="a", images=[b"\xff", "data:,"], forward_params={"steps": 3}, model_uri="m")
    assert wire.decode_request(wire.encode_request(request)) == request


@pytest.mark.parametrize("images", ["one", b"one", None, [None], [1], ("a",), [["a"]]])
def test_other_images_are_refused(images: Any) -> None:
    with pytest.raises(ValueError, match="'images'"):
        ImageToImageReq(request_id="a", images=images)
