"""litellm's `completion`, with the prefix for any OpenAI-compatible server and with the one for vLLM's dialect."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest

from tests.clients.plain_answer import MESSAGES, MODEL, NUM_TOKENS, Capital, plain_answer, plain_text
from tests.e2e.service import Service

# It warns of its own models.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

PREFIXES = pytest.mark.parametrize("prefix", ["openai", "hosted_vllm"])

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def complete(service: Service, prefix: str, **fields: Any) -> Any:
    asked: dict[str, Any] = {"messages": MESSAGES, "temperature": 0, "max_tokens": NUM_TOKENS, "num_retries": 0}
    address = {"api_base": f"{service.url}/v1", "api_key": "unused"}
    return litellm.completion(model=f"{prefix}/{MODEL}", **address, **asked | fields)


def functions_called(answer: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in answer.choices[0].message.tool_calls]


@PREFIXES
def test_completion(service: Service, prefix: str) -> None:
    answer = complete(service, prefix)
    expected = plain_answer(service)
    assert answer.choices[0].message.content == expected["choices"][0]["message"]["content"]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert answer.usage.completion_tokens == expected["usage"]["completion_tokens"]


@PREFIXES
def test_stream(service: Service, prefix: str) -> None:
    chunks = list(complete(service, prefix, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == plain_text(service)
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [end for end in ends if end] == ["stop"]
    whole = litellm.stream_chunk_builder(chunks)
    assert whole is not None
    assert whole.usage.total_tokens == plain_answer(service)["usage"]["total_tokens"]  # type: ignore[attr-defined]


@PREFIXES
def test_json_schema(service: Service, prefix: str) -> None:
    answer = complete(service, prefix, max_tokens=40, response_format=Capital)
    Capital.model_validate_json(answer.choices[0].message.content)


@PREFIXES
def test_forced_tool(service: Service, prefix: str) -> None:
    forced = {"type": "function", "function": {"name": "get_weather"}}
    answer = complete(service, prefix, max_tokens=60, tools=[WEATHER], tool_choice=forced)
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


@PREFIXES
def test_streamed_tool_call(service: Service, prefix: str) -> None:
    asked: dict[str, Any] = {"max_tokens": 40, "tools": [WEATHER], "tool_choice": "required"}
    whole = litellm.stream_chunk_builder(list(complete(service, prefix, **asked, stream=True)))
    calls = functions_called(whole)
    assert calls == functions_called(complete(service, prefix, **asked))
    assert {name for name, _ in calls} == {"get_weather"}


@PREFIXES
def test_errors_are_its_own_classes(service: Service, prefix: str) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        complete(service, prefix, temperature=3)
    with pytest.raises(litellm.ContextWindowExceededError):
        complete(service, prefix, messages=[{"role": "user", "content": "word " * 9000}])
