"""openai-python, beyond what tests/e2e/test_chat_client.py has: its own helpers for streams and for typed answers."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.clients.plain_answer import MESSAGES, MODEL, NUM_TOKENS, Capital, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = pytest.mark.clients

ASKED: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": NUM_TOKENS}
FORCED = {"type": "function", "function": {"name": "Capital"}}


def test_chat(service: Service) -> None:
    completion = service.openai().chat.completions.create(**ASKED)
    expected = plain_answer(service)
    [choice] = completion.choices
    assert choice.message.content == expected["choices"][0]["message"]["content"]
    assert choice.finish_reason == expected["choices"][0]["finish_reason"] == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == expected["usage"]["completion_tokens"]
    assert completion.usage.prompt_tokens == expected["usage"]["prompt_tokens"]


def test_stream_helper_gathers_the_same_completion(service: Service) -> None:
    with service.openai().chat.completions.stream(**ASKED, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == final.choices[0].message.content == plain_text(service)
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None
    assert final.usage.total_tokens == plain_answer(service)["usage"]["total_tokens"]


def test_parse_gives_the_model_that_was_asked_for(service: Service) -> None:
    asked = ASKED | {"max_tokens": 40}
    completion = service.openai().chat.completions.parse(**asked, response_format=Capital)
    parsed = completion.choices[0].message.parsed
    assert isinstance(parsed, Capital)
    assert Capital.model_validate_json(completion.choices[0].message.content or "") == parsed


def test_stream_helper_parses_too(service: Service) -> None:
    asked = ASKED | {"max_tokens": 40}
    with service.openai().chat.completions.stream(**asked, response_format=Capital) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert (
        streamed == service.openai().chat.completions.parse(**asked, response_format=Capital).choices[0].message.parsed
    )


def test_function_of_a_model_is_parsed(service: Service) -> None:
    asked = ASKED | {"max_tokens": 60, "tools": [openai.pydantic_function_tool(Capital)], "tool_choice": FORCED}
    completion = service.openai().chat.completions.parse(**asked)
    [call] = completion.choices[0].message.tool_calls or []
    assert call.function.name == "Capital"
    assert isinstance(call.function.parsed_arguments, Capital)
    with service.openai().chat.completions.stream(**asked) as stream:
        events = [event for event in stream if event.type.startswith("tool_calls.")]
    assert (
        "".join(event.arguments_delta for event in events if event.type.endswith(".delta")) == call.function.arguments
    )
    assert events[-1].type == "tool_calls.function.arguments.done"
    assert events[-1].parsed_arguments == call.function.parsed_arguments


def test_an_answer_cut_short_is_its_own_error(service: Service) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        service.openai().chat.completions.parse(**ASKED | {"max_tokens": 2}, response_format=Capital)


def test_logprobs(service: Service) -> None:
    completion = service.openai().chat.completions.create(**ASKED | {"max_tokens": 4}, logprobs=True, top_logprobs=3)
    choice = completion.choices[0]
    assert choice.logprobs is not None
    places = choice.logprobs.content or []
    assert b"".join(bytes(place.bytes or []) for place in places).decode() == choice.message.content
    for place in places:
        assert len(place.top_logprobs) == 3
        assert place.top_logprobs[0].token == place.token  # greedy: the most probable one
        assert sum(math.exp(other.logprob) for other in place.top_logprobs) <= 1 + 1e-6


def test_several_choices(service: Service) -> None:
    completion = service.openai().chat.completions.create(**ASKED, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} == {plain_text(service)}
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3 * plain_answer(service)["usage"]["completion_tokens"]


def test_completions_with_logprobs(service: Service) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    client = service.openai()
    whole = client.completions.create(**asked, logprobs=2).choices[0]
    chunks = [chunk.choices[0] for chunk in client.completions.create(**asked, stream=True) if chunk.choices]
    assert whole.text == "".join(chunk.text for chunk in chunks)
    assert "Paris" in whole.text
    assert whole.logprobs is not None
    assert "".join(whole.logprobs.tokens or []) == whole.text
    assert whole.finish_reason == chunks[-1].finish_reason == "length"


def test_models(service: Service) -> None:
    client = service.openai()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


async def test_async_client(service: Service) -> None:
    async with service.async_openai() as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert text == plain_text(service)


def test_errors_name_the_field(service: Service) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        service.openai().chat.completions.create(**ASKED | {"temperature": 3})
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
