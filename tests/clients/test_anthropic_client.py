"""anthropic-python: messages, streams, tools, typed answers and counted tokens."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count
from anthropic.types.beta import message_create_params as beta_create

from tests.clients.plain_answer import MESSAGES, MODEL, Capital, plain_text
from tests.e2e.service import Service

pytestmark = pytest.mark.clients

ASKED: dict[str, Any] = {
    "model": MODEL,
    "messages": MESSAGES,
    "max_tokens": 60,
    "extra_body": {"temperature": 0},
}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
API = Path(__file__).parents[2] / "docs" / "api.md"


def client(service: Service, **options: Any) -> Any:
    return anthropic.Anthropic(base_url=service.url, api_key="unused", max_retries=0, **options)


def text_of(message: Any) -> str:
    (block,) = message.content
    assert block.type == "text"
    return str(block.text)


def test_message(service: Service) -> None:
    message = client(service).messages.create(**ASKED)
    assert text_of(message) == plain_text(service)
    assert (message.role, message.model, message.stop_reason) == ("assistant", MODEL, "end_turn")
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == 37
    assert message.usage.output_tokens > 3
    assert message._request_id.startswith("req-")


def test_stream_helper_gathers_the_same_message(service: Service) -> None:
    whole = client(service).messages.create(**ASKED)
    with client(service).messages.stream(**ASKED) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == text_of(final) == text_of(whole)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_async_stream(service: Service) -> None:
    async def pieces() -> list[str]:
        async with (
            anthropic.AsyncAnthropic(base_url=service.url, api_key="unused") as asynchronous,
            asynchronous.messages.stream(**ASKED) as stream,
        ):
            return [piece async for piece in stream.text_stream]

    assert "".join(asyncio.run(pieces())) == text_of(client(service).messages.create(**ASKED))


def test_tool_and_its_result(service: Service) -> None:
    asked = ASKED | {"messages": [{"role": "user", "content": "Will it rain in Rome?"}], "tools": [WEATHER]}
    choice = {"type": "any", "disable_parallel_tool_use": True}
    message = client(service).messages.create(**asked, tool_choice=choice)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input["city"] in ("Rome", "Paris")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Heavy rain."}
    turns = [*asked["messages"], message.to_param(), {"role": "user", "content": [result]}]
    assert text_of(client(service).messages.create(**asked | {"messages": turns}, tool_choice={"type": "none"}))


def test_streamed_tool(service: Service) -> None:
    asked = ASKED | {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}
    with client(service).messages.stream(**asked) as stream:
        written = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[-1].input["city"] in "".join(written)
    assert final.content[-1].input == client(service).messages.create(**asked).content[-1].input


def test_typed_answer(service: Service) -> None:
    message = client(service).messages.parse(**ASKED, output_format=Capital)
    assert isinstance(message.parsed_output, Capital)


def test_counted_tokens(service: Service) -> None:
    asked = {name: ASKED[name] for name in ("model", "messages")} | {"system": "Be brief.", "tools": [WEATHER]}
    counted = client(service).messages.count_tokens(**asked)
    used = client(service).messages.create(**asked, max_tokens=1).usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens


def test_errors_are_the_clients_own_classes(service: Service) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client(service).messages.create(**ASKED | {"model": "nobody"})
    assert unknown.value.body["error"]["type"] == "not_found_error"
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}
    with pytest.raises(anthropic.BadRequestError, match="image") as refused:
        client(service).messages.create(**ASKED | {"messages": [{"role": "user", "content": [image]}]})
    assert refused.value.request_id.startswith("req-")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_every_field_of_the_client_has_a_row_in_the_docs(path: str) -> None:
    params = {
        "/v1/messages": (
            message_create_params.MessageCreateParamsNonStreaming,
            message_create_params.MessageCreateParamsStreaming,
            beta_create.MessageCreateParamsStreaming,
        ),
        "/v1/messages/count_tokens": (
            message_count_tokens_params.MessageCountTokensParams,
            beta_count.MessageCountTokensParams,
        ),
    }
    fields = {name for one in params[path] for name in one.__annotations__} - {"betas"}  # sent as a header
    section = API.read_text().split(f"\n## POST {path}\n")[1].split("\n## ")[0]
    assert fields - set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set()
