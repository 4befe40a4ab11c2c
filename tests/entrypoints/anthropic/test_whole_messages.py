"""The bodies of answers that are not streamed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.anthropic.scripted_answers import saying
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_replies import Delta, ToolCallPiece, Usage

HI = [{"role": "user", "content": "hi"}]
WEATHER = [ToolCallPiece(0, "call_1", "weather", '{"city": '), ToolCallPiece(0, "", "", '"Rome"}')]


async def answered(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/messages", json={"max_tokens": 9, "messages": HI, **fields})
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


async def test_a_text(client: httpx.AsyncClient) -> None:
    body = await answered(client)
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 2,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


async def test_calls_come_after_the_text(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    pieces = [*WEATHER, ToolCallPiece(1, "call_2", "time", "")]
    engine.script = saying(Delta("", text="Let me see."), Delta("", tool_calls=pieces, finish_reason="tool_calls"))
    body = await answered(client)
    assert body["stop_reason"] == "tool_use"
    assert body["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
    ]


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "[1]", "null", "[" * 100_000])
async def test_arguments_that_are_no_object(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, arguments: str
) -> None:
    cut = [ToolCallPiece(0, "call_1", "weather", arguments)]
    engine.script = saying(Delta("", tool_calls=cut, finish_reason="length"))
    body = await answered(client)
    assert body["content"] == [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}]
    assert body["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason", "shown"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("stop", "of the server's own", ("end_turn", None)),
        ("stop", 17, ("end_turn", None)),
        ("stop", "repetition", ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
async def test_why_it_ended(
    client: httpx.AsyncClient,
    engine: FakeDispatchEngine,
    finish_reason: str,
    stop_reason: Any,
    shown: tuple[str, str | None],
) -> None:
    engine.script = saying(Delta("", text="x", finish_reason=finish_reason, stop_reason=stop_reason))
    body = await answered(client, stop_sequences=["END", "never"])
    assert (body["stop_reason"], body["stop_sequence"]) == shown


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [
        (None, []),
        ({"type": "disabled"}, []),
        ({"type": "enabled", "budget_tokens": 1024}, ["hm"]),
        ({"type": "adaptive"}, ["hm"]),
        ({"type": "adaptive", "display": "summarized"}, ["hm"]),
        ({"type": "enabled", "budget_tokens": 1024, "display": "omitted"}, [""]),
    ],
)
async def test_thinking_is_shown_to_whom_asked_for_it(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, thinking: Any, shown: list[str]
) -> None:
    engine.script = saying(
        Delta("", reasoning="hm"), Delta("", text="x", finish_reason="stop"), usage=Usage(5, 9, 2, 4)
    )
    body = await answered(client, thinking=thinking)
    *thoughts, text = body["content"]
    assert thoughts == [{"type": "thinking", "thinking": thought, "signature": ""} for thought in shown]
    assert text == {"type": "text", "text": "x"}
    assert body["usage"]["output_tokens_details"] == {"thinking_tokens": 4}


async def test_nothing_said(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying(Delta("", finish_reason="length"))
    assert (await answered(client))["content"] == []
