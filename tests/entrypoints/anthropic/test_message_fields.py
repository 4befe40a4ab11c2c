"""Every honoured field is seen in the request that reaches the engine; every bound is enforced by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import Constraint, TemplateOptions, TextGenerationReq, TokenizeReq, ToolUse
from vfastml.entrypoints.anthropic.messages_request import MessagesRequest
from vfastml.errors import InvalidRequestError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA}
TIME = {"type": "custom", "name": "time", "input_schema": {}, "strict": True, "cache_control": {"type": "ephemeral"}}
AS_WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA},
}
AS_TIME = {"type": "function", "function": {"name": "time", "strict": True, "parameters": {}}}
FORMAT = {"type": "json_schema", "schema": {"type": "null"}}
NULL = Constraint("json_schema", '{"type":"null"}')


async def send(client: httpx.AsyncClient, path: str = "/v1/messages", **fields: Any) -> httpx.Response:
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return await client.post(path, json=body)


async def received(client: httpx.AsyncClient, engine: FakeDispatchEngine, **fields: Any) -> TextGenerationReq:
    response = await send(client, **fields)
    assert response.status_code == 200, response.text
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    return request


@pytest.mark.parametrize(
    ("sent", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 0}, "max_tokens", 0),
        ({"temperature": 0}, "temperature", 0.0),
        ({"temperature": 2}, "temperature", 2.0),
        ({"temperature": None}, "temperature", None),
        ({"top_p": 0.25}, "top_p", 0.25),
        ({"top_k": 40}, "top_k", 40),
        ({"stop_sequences": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop_sequences": []}, "stop", ()),
        ({}, "stop", None),
    ],
)
async def test_sampling_fields(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, sent: dict[str, Any], name: str, value: Any
) -> None:
    assert getattr((await received(client, engine, **sent)).sampling, name) == value


@pytest.mark.parametrize(
    ("sent", "name", "value"),
    [
        ({"model": "tiny"}, "model_uri", "tiny"),
        ({}, "model_uri", None),
        ({"stream": True}, "stream", True),
        ({"stream": None}, "stream", False),
        ({}, "n", 1),
        ({}, "splits_reasoning", True),
        ({}, "constraint", None),
        ({"output_config": {"effort": "low"}}, "constraint", None),
        ({"output_config": {"format": FORMAT}}, "constraint", NULL),
        ({"output_format": FORMAT}, "constraint", NULL),
        ({"output_config": {"format": None}, "output_format": None}, "constraint", None),
    ],
)
async def test_other_fields(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, sent: dict[str, Any], name: str, value: Any
) -> None:
    assert getattr(await received(client, engine, **sent), name) == value


THINK = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("thinking", "effort", "expected"),
    [
        (None, None, None),
        (None, "max", "max"),
        (THINK, None, "medium"),
        (THINK, "low", "low"),
        ({"type": "adaptive"}, "high", "high"),
        ({"type": "between_tools"}, None, "medium"),
        ({"type": "disabled"}, "high", "none"),
    ],
)
async def test_effort_reaches_the_template(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, thinking: Any, effort: str | None, expected: str | None
) -> None:
    fields = {"thinking": thinking, "output_config": {"effort": effort}}
    assert (await received(client, engine, **fields)).template == TemplateOptions(reasoning_effort=expected)


BOTH = [AS_WEATHER, AS_TIME]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolUse(BOTH)),
        ({"type": "auto"}, ToolUse(BOTH)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolUse(BOTH, parallel=False)),
        ({"type": "any"}, ToolUse(BOTH, "required")),
        ({"type": "none"}, ToolUse(BOTH, "none")),
        ({"type": "tool", "name": "time"}, ToolUse([AS_TIME], "required", "time")),
    ],
)
async def test_tools(client: httpx.AsyncClient, engine: FakeDispatchEngine, choice: Any, expected: ToolUse) -> None:
    fields = {"tools": [WEATHER, TIME], "tool_choice": choice}
    assert (await received(client, engine, **fields)).tool_use == expected
    engine.requests.clear()
    assert (await send(client, "/v1/messages/count_tokens", **fields)).status_code == 200
    (counting,) = engine.requests
    assert isinstance(counting, TokenizeReq)
    assert counting.tools == ([] if expected.choice == "none" else expected.tools)


async def test_no_tools(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    assert (await received(client, engine, tools=[], tool_choice={"type": "auto"})).tool_use is None


REFUSED: list[tuple[str, Any, str]] = [
    ("model", 5, "'model'"),
    ("system", 5, "'system'"),
    ("system", [{"type": "image"}], "the type 'image'"),
    ("tools", 5, "'tools'"),
    ("tools", [5], "'tools[0]'"),
    ("tools", [{"name": "f"}], "'tools[0].input_schema'"),
    ("tools", [{"input_schema": {}}], "'tools[0].name'"),
    ("tools", [{**WEATHER, "name": "a b"}], "'tools'"),
    ("tools", [WEATHER, WEATHER], "'tools'"),
    ("tools", [TIME] * 129, "'tools'"),
    ("tools", [WEATHER, {"type": "web_search_20250305", "name": "web_search"}], "'tools[1].type'"),
    ("tools", [{"type": "bash_20250124", "name": "bash"}], "'tools[0].type'"),
    ("tool_choice", "auto", "'tool_choice'"),
    ("tool_choice", {"type": "some"}, "'tool_choice.type'"),
    ("tool_choice", {"type": "any"}, "'tool_choice'"),
    ("tool_choice", {"type": "tool"}, "'tool_choice'"),
    ("tool_choice", {"type": "tool", "name": "nobody"}, "'tool_choice'"),
    ("thinking", {"type": "deep"}, "'thinking.type'"),
    ("thinking", {"type": "enabled", "budget_tokens": 0}, "'thinking.budget_tokens'"),
    ("thinking", {"type": "adaptive", "display": "some"}, "'thinking.display'"),
    ("output_config", {"effort": "some"}, "'output_config.effort'"),
    ("output_config", {"format": {"type": "json_schema"}}, "'output_config.format.schema'"),
    ("output_format", {"type": "xml", "schema": {}}, "'output_format.type'"),
    ("container", "c", "'container'"),
    ("mcp_servers", [{"type": "url"}], "'mcp_servers'"),
    ("thread", {"type": "create"}, "'thread'"),
    ("compaction", {}, "'compaction'"),
]


@pytest.mark.rule("S6")
@pytest.mark.parametrize(
    ("place", "name"), [("output_format", "output_format"), ("output_config", "output_config.format")]
)
def test_a_schema_that_is_nested_too_deep_is_refused_by_name(place: str, name: str) -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"not": schema}
    form = {"type": "json_schema", "schema": schema}
    sent = {place: form if place == "output_format" else {"format": form}}
    body = MessagesRequest.model_validate({"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}], **sent})
    with pytest.raises(InvalidRequestError, match=f"'{name}'") as caught:
        body.to_work("id")
    assert caught.value.param == name


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
async def test_what_both_refuse_by_name(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, name: str, value: Any, words: str
) -> None:
    response = await send(client, path, **{name: value})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in response.json()["error"]["message"]
    assert engine.requests == []


@pytest.mark.rule("S5")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", None),
        ("max_tokens", -1),
        ("max_tokens", 2**31),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 1.5),
        ("stop_sequences", "END"),
        ("stop_sequences", [""]),
        ("stop_sequences", ["x"] * 17),
        ("stop_sequences", ["x" * 1025]),
        ("stream", "true"),
    ],
)
async def test_what_is_out_of_range(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, name: str, value: Any
) -> None:
    response = await send(client, **{name: value})
    assert response.status_code == 400
    assert f"'{name}" in response.json()["error"]["message"]
    assert engine.requests == []


async def test_the_required_fields(client: httpx.AsyncClient) -> None:
    for path, name in (("/v1/messages", "max_tokens"), ("/v1/messages/count_tokens", "messages")):
        body = {} if name == "messages" else {"messages": [{"role": "user", "content": "hi"}]}
        error = (await client.post(path, json=body)).json()["error"]
        assert error["message"] == f"Missing required parameter: '{name}'."


async def test_what_is_ignored(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    plain = await received(client, engine)
    engine.requests.clear()
    extra = {
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "speed": "fast",
    }
    ignoring = await received(client, engine, **extra)
    assert (ignoring.messages, ignoring.sampling) == (plain.messages, plain.sampling)
