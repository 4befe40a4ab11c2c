"""Tools in a chat request: what the engine gets of them, what is refused, and how calls are answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq, TokenizeReq, ToolUse


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


TOOLS = [tool("f", description="d", parameters={"type": "object"}), tool("g", strict=True)]


async def chat(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"messages": "hi", **fields})


async def asked(client: httpx.AsyncClient, engine: FakeDispatchEngine, **fields: Any) -> ToolUse | None:
    response = await chat(client, **fields)
    assert response.status_code == 200, response.text
    request = engine.requests[-1]
    assert isinstance(request, TextGenerationReq)
    return request.tool_use


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolUse(TOOLS)),
        ("auto", ToolUse(TOOLS)),
        ("none", ToolUse(TOOLS, "none")),
        ("required", ToolUse(TOOLS, "required")),
        ({"type": "function", "function": {"name": "g"}}, ToolUse(TOOLS[1:], "required", "g")),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool("f")]}}, ToolUse(TOOLS[:1])),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g"), tool("f")]}},
            ToolUse(TOOLS, "required"),
        ),
    ],
)
async def test_choices(client: httpx.AsyncClient, engine: FakeDispatchEngine, choice: Any, expected: ToolUse) -> None:
    assert await asked(client, engine, tools=TOOLS, tool_choice=choice) == expected


async def test_one_call_at_most(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    assert await asked(client, engine, tools=TOOLS, parallel_tool_calls=False) == ToolUse(TOOLS, parallel=False)


@pytest.mark.parametrize(
    "fields", [{}, {"tools": None}, {"tools": []}, {"tools": [], "tool_choice": "auto"}, {"tool_choice": "none"}]
)
async def test_no_tools(client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any]) -> None:
    assert await asked(client, engine, **fields) is None


async def test_nulls_in_a_function_are_left_out(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    given = [tool("f", description=None, parameters=None, strict=None)]
    assert await asked(client, engine, tools=given) == ToolUse([tool("f")])


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": "f"}, "tools", None),
        ({"tools": [1]}, "tools", None),
        ({"tools": [{}]}, "tools", None),
        ({"tools": [{"type": "function"}]}, "tools", None),
        ({"tools": [tool("no spaces")]}, "tools", None),
        ({"tools": [tool("")]}, "tools", None),
        ({"tools": [tool("x" * 129)]}, "tools", None),
        ({"tools": [tool("f"), tool("f")]}, "tools", None),
        ({"tools": [tool("f", parameters=[])]}, "tools", None),
        ({"tools": [tool("f", description=1)]}, "tools", None),
        ({"tools": [tool("f", strict="yes")]}, "tools", None),
        ({"tools": [tool(f"f{number}") for number in range(129)]}, "tools", None),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": 1}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice", None),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice",
            None,
        ),
        ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice", "unsupported_parameter"),
    ],
)
async def test_refused(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any], param: str, code: str | None
) -> None:
    response = await chat(client, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error
    assert engine.requests == []


async def test_a_call_is_answered(client: httpx.AsyncClient) -> None:
    response = await chat(client, tools=TOOLS, tool_choice="required")
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    function = {"name": "f", "arguments": '{"city": "Paris"}'}
    assert choice["message"]["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]


async def test_a_call_is_streamed(client: httpx.AsyncClient) -> None:
    response = await chat(client, tools=TOOLS, tool_choice="required", stream=True)
    *chunks, done = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert done == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"tool_calls": [head]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
        {},
    ]
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template", "/v1/chat/completions/input_tokens"])
@pytest.mark.parametrize(("choice", "described"), [("auto", TOOLS), ("required", TOOLS), ("none", [])])
async def test_what_the_prompt_tells_of(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, choice: str, described: list[Any]
) -> None:
    body = {"messages": "hi", "tools": TOOLS, "tool_choice": choice, "continue_final_message": True}
    response = await client.post(path, json=body)
    assert response.status_code == 200
    (request,) = engine.requests
    assert isinstance(request, TokenizeReq)
    assert request.tools == described
    assert request.template.continue_final_message
    assert not request.template.add_generation_prompt
