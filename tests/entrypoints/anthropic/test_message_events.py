"""The events of a streamed message: their order, their shapes, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.entrypoints.anthropic.scripted_answers import saying
from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, ToolCallPiece
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import ServerLostError

THINK = {"type": "enabled", "budget_tokens": 1024}
Event = dict[str, Any]


async def events(client: httpx.AsyncClient, **fields: Any) -> list[Event]:
    """Each with the name that its own body has."""
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    response = await client.post("/v1/messages", json=body)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for text in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def started(index: int, **block: Any) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, kind: str, **delta: str) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def stopped(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def ended(stop_reason: str, stop_sequence: str | None = None) -> Event:
    return {"stop_reason": stop_reason, "stop_sequence": stop_sequence}


async def test_a_text(client: httpx.AsyncClient) -> None:
    first, *blocks, last, end = await events(client, stop_sequences=["END"])
    message = first["message"]
    assert message.pop("id").startswith("msg_")
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 0},
    }
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    assert blocks == [
        started(0, type="text", text=""),
        piece(0, "text_delta", text="Hello"),
        piece(0, "text_delta", text=" world"),
        stopped(0),
    ]
    used = {**usage, "input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 2}
    assert last == {"type": "message_delta", "delta": ended("stop_sequence", "END"), "usage": used}
    assert end == {"type": "message_stop"}


async def test_thoughts_text_and_calls(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying(
        Delta("", reasoning="h"),
        Delta("", reasoning="m", text="A"),
        Delta("", text="B"),
        Delta("", tool_calls=[ToolCallPiece(0, "call_1", "weather")]),
        Delta("", tool_calls=[ToolCallPiece(0, "", "", '{"city":')]),
        Delta("", tool_calls=[ToolCallPiece(0, "", "", '"Rome"}'), ToolCallPiece(1, "call_2", "time", "{}")]),
        Delta("", finish_reason="tool_calls"),
    )
    _, *blocks, last, _ = await events(client, thinking=THINK)
    assert blocks == [
        started(0, type="thinking", thinking="", signature=""),
        piece(0, "thinking_delta", thinking="h"),
        piece(0, "thinking_delta", thinking="m"),
        piece(0, "signature_delta", signature=""),
        stopped(0),
        started(1, type="text", text=""),
        piece(1, "text_delta", text="A"),
        piece(1, "text_delta", text="B"),
        stopped(1),
        started(2, type="tool_use", id="call_1", name="weather", input={}),
        piece(2, "input_json_delta", partial_json='{"city":'),
        piece(2, "input_json_delta", partial_json='"Rome"}'),
        stopped(2),
        started(3, type="tool_use", id="call_2", name="time", input={}),
        piece(3, "input_json_delta", partial_json="{}"),
        stopped(3),
    ]
    assert last["delta"] == ended("tool_use")


@pytest.mark.parametrize(
    ("thinking", "blocks"),
    [
        (None, []),
        ({"type": "disabled"}, []),
        (
            {**THINK, "display": "omitted"},
            [
                started(0, type="thinking", thinking="", signature=""),
                piece(0, "signature_delta", signature=""),
                stopped(0),
            ],
        ),
    ],
)
async def test_thoughts_that_are_not_shown(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, thinking: Any, blocks: list[Event]
) -> None:
    engine.script = saying(Delta("", reasoning="hm"), Delta("", finish_reason="length"))
    _, *found, last, _ = await events(client, thinking=thinking)
    assert found == blocks
    assert last["delta"] == ended("max_tokens")


async def test_failure_in_mid_stream(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(ServerLostError("The model server is gone."), after=["Hel", "lo"])
    *found, last = await events(client)
    assert [event["type"] for event in found] == ["message_start", "content_block_start", *["content_block_delta"] * 2]
    assert last.pop("request_id").startswith("req-")
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "The model server is gone."}}


async def test_pings_keep_a_silent_stream_alive(engine: FakeDispatchEngine) -> None:
    async def slow(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        await asyncio.sleep(0.5)
        task.add_delta(Delta(task.request_id, 0, "late", None, "stop"))
        task.finish(Finished(task.request_id))

    engine.script = slow
    async with client_of(Gateway(GatewayConfig(keep_alive_s=0.1), engine)) as client:
        found = [event["type"] for event in await events(client)]
    assert found[:2] == ["message_start", "ping"]
    assert 2 <= found.count("ping") <= 5
    assert found[-1] == "message_stop"
