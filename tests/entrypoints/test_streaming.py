"""Server-sent events: their order, their shapes, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, choose_two, fail_with
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import ServerLostError

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


async def events(client: httpx.AsyncClient, path: str, **body: Any) -> list[str]:
    prompt = {"messages": "x"} if path == CHAT else {"prompt": "x"}
    response = await client.post(path, json={**prompt, **body, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in response.text.split("\n\n")[:-1]]


async def chunks(client: httpx.AsyncClient, path: str, **body: Any) -> list[dict[str, Any]]:
    *found, done = await events(client, path, **body)
    assert done == "[DONE]"
    parsed = [json.loads(event) for event in found]
    for name in ("id", "created", "model", "object"):
        assert len({chunk[name] for chunk in parsed}) == 1
    return parsed


def only_choices(parsed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice for chunk in parsed for choice in chunk["choices"]]


async def test_chat_chunks(client: httpx.AsyncClient) -> None:
    parsed = await chunks(client, CHAT)
    assert parsed[0]["object"] == "chat.completion.chunk"
    assert parsed[0]["model"] == "tiny"
    assert parsed[0]["system_fingerprint"] is None
    assert all("usage" not in chunk for chunk in parsed)
    unfinished = {"index": 0, "logprobs": None, "finish_reason": None}
    assert only_choices(parsed) == [
        {**unfinished, "delta": {"role": "assistant", "content": ""}},
        {**unfinished, "delta": {"content": "Hello"}},
        {**unfinished, "delta": {"content": " world"}},
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": "END"},
    ]


async def test_completions_chunks(client: httpx.AsyncClient) -> None:
    parsed = await chunks(client, COMPLETIONS)
    assert parsed[0]["object"] == "text_completion"
    assert only_choices(parsed) == [
        {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": None, "stop_reason": None},
        {"index": 0, "text": " world", "logprobs": None, "finish_reason": "stop", "stop_reason": "END"},
    ]


async def test_each_chat_choice_has_its_role_and_its_end(client: httpx.AsyncClient) -> None:
    choices = only_choices(await chunks(client, CHAT, n=3))
    assert {choice["index"] for choice in choices} == {0, 1, 2}
    for index in range(3):
        mine = [choice for choice in choices if choice["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert [c["delta"]["content"] for c in mine[1:-1]] == ["Hello", " world"]
        assert (mine[-1]["delta"], mine[-1]["finish_reason"]) == ({}, "stop")


async def test_prompts_are_streamed_side_by_side(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    turn = asyncio.Condition()
    said: list[str] = []

    async def take_turns(task: DispatchTask) -> None:
        """a says 0, b says 1, a says 2 ..."""
        task.add_accepted(Accepted(task.request_id, 1))
        parity = "ab".index(task.request.prompt)
        for number in range(parity, 6, 2):
            async with turn:
                await turn.wait_for(lambda number=number: len(said) == number)
                said.append(task.request.prompt)
                task.add_delta(Delta(task.request_id, 0, str(number), None, "stop" if number > 3 else None))
                turn.notify_all()
            await asyncio.sleep(0.01)
        task.finish(Finished(task.request_id, Usage(1, 3)))

    engine.script = take_turns
    parsed = await chunks(client, COMPLETIONS, prompt=["a", "b"], stream_options={"include_usage": True})
    assert [(choice["index"], choice["text"]) for choice in only_choices(parsed)] == [
        (number % 2, str(number)) for number in range(6)
    ]
    assert parsed[-1]["usage"]["total_tokens"] == 8


async def test_number_of_choices_is_the_servers_where_none_is_asked_for(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = choose_two
    for path, fields, indexes in (
        (CHAT, {}, {0, 1}),
        (CHAT, {"n": 3}, {0, 1, 2}),
        (COMPLETIONS, {"prompt": ["a", "b", "c"]}, set(range(6))),
        (COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 1}, {0, 1, 2}),
    ):
        choices = only_choices(await chunks(client, path, **fields))
        assert {choice["index"] for choice in choices} == indexes
        assert sum(choice["finish_reason"] is not None for choice in choices) == len(indexes)


async def test_usage_chunk_only_when_asked(client: httpx.AsyncClient) -> None:
    for path in (CHAT, COMPLETIONS):
        *others, last = await chunks(client, path, stream_options={"include_usage": True})
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
        assert all(chunk["choices"] and chunk["usage"] is None for chunk in others)


async def test_stream_options_without_stream_are_ignored(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={"messages": "x", "stream_options": {"include_usage": True}})
    assert response.json()["object"] == "chat.completion"


async def test_token_ids(client: httpx.AsyncClient) -> None:
    first, *others = await chunks(client, CHAT, return_token_ids=True)
    assert first["prompt_token_ids"] == [1, 2, 3, 4, 5]
    assert all("prompt_token_ids" not in chunk for chunk in others)
    assert [choice.get("token_ids") for choice in only_choices([first, *others])] == [None, [7, 8], [7, 8], None]
    choices = only_choices(await chunks(client, COMPLETIONS, prompt=["a", "b"], return_token_ids=True))
    assert sum("prompt_token_ids" in choice for choice in choices) == 2


async def test_nothing_leaves_before_the_first_text(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def held_back(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        task.add_delta(Delta(task.request_id, 0, ""))
        task.add_delta(Delta(task.request_id, 0, "", None, "length"))
        task.finish(Finished(task.request_id))

    engine.script = held_back
    deltas = [choice["delta"] for choice in only_choices(await chunks(client, CHAT))]
    assert deltas == [{"role": "assistant", "content": ""}, {}]


async def test_failure_in_mid_stream_has_no_done(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(ServerLostError("The model server is gone."), after=["Hel", "lo"])
    *found, last = await events(client, CHAT)
    assert len(found) == 3
    assert json.loads(last) == {
        "error": {
            "message": "The model server is gone.",
            "type": "service_unavailable",
            "param": None,
            "code": "server_lost",
        }
    }


async def test_one_failed_prompt_ends_the_stream_and_the_others(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    async def one_fails(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        if task.request.prompt == "bad":
            task.fail(ServerLostError("gone"))
        else:
            await asyncio.Event().wait()

    engine.script = one_fails
    (only,) = await events(client, COMPLETIONS, prompt=["good", "bad"])
    assert json.loads(only)["error"]["code"] == "server_lost"
    assert engine.cancelled == [engine.requests[0].request_id]


@pytest.mark.rule("S10")
async def test_unforeseen_exceptions_in_mid_stream(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def unencodable(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        task.add_delta(Delta(task.request_id, 0, "\ud800"))
        await asyncio.Event().wait()

    engine.script = unencodable
    (only,) = await events(client, CHAT)
    assert json.loads(only)["error"]["code"] == "internal_error"
    assert engine.cancelled == [engine.requests[0].request_id]


async def test_comments_keep_a_silent_stream_alive(engine: FakeDispatchEngine) -> None:
    async def slow(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        await asyncio.sleep(0.5)
        task.add_delta(Delta(task.request_id, 0, "late", None, "stop"))
        task.finish(Finished(task.request_id))

    engine.script = slow
    async with client_of(Gateway(GatewayConfig(keep_alive_s=0.1), engine)) as client:
        found = await events(client, COMPLETIONS)
    assert found[0] == ": keep-alive"
    assert 2 <= found.count(": keep-alive") <= 5
    assert json.loads(found[-2])["choices"][0]["text"] == "late"
