"""Fields that would change the answer are refused by name; neutral values and harmless fields are accepted."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.openai.unsupported_fields import CHAT, COMPLETIONS, RESPONSES, TOKENIZE

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/tokenize": {"prompt": "hi"},
}
TABLES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/tokenize": TOKENIZE,
}

FIELDS = [(path, name) for path, table in TABLES.items() for name in table]
NEUTRAL = [(path, name, value) for path, table in TABLES.items() for name in table for value in (None, *table[name])]


async def send(client: httpx.AsyncClient, path: str, name: str, value: Any) -> httpx.Response:
    return await client.post(path, json={**BODIES[path], name: value})


@pytest.mark.parametrize(("path", "name"), FIELDS)
async def test_refused_by_name(client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, name: str) -> None:
    response = await send(client, path, name, "something")
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert name in error["message"]
    assert engine.requests == []


@pytest.mark.parametrize(("path", "name", "value"), NEUTRAL)
async def test_neutral_values_are_accepted(client: httpx.AsyncClient, path: str, name: str, value: Any) -> None:
    assert (await send(client, path, name, value)).status_code == 200


REALISTIC: list[tuple[str, str, Any]] = [
    ("/v1/chat/completions", "top_logprobs", 5),
    ("/v1/chat/completions", "functions", [{"name": "f"}]),
    ("/v1/chat/completions", "modalities", ["text", "audio"]),
    ("/v1/chat/completions", "web_search_options", {}),
    ("/v1/chat/completions", "echo", True),
    ("/v1/chat/completions", "chat_template", "{{ messages }}"),
]


@pytest.mark.parametrize(("path", "name", "value"), REALISTIC)
async def test_what_clients_really_send_is_refused(client: httpx.AsyncClient, path: str, name: str, value: Any) -> None:
    response = await send(client, path, name, value)
    assert (response.status_code, response.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_harmless_and_unknown_fields_are_ignored(client: httpx.AsyncClient, path: str) -> None:
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "request_id": "mine",
        "rid": "mine",
        "session_id": "s",
        "prediction": {"type": "content", "content": "x"},
        "reasoning_effort": "low",
        "verbosity": "low",
        "parallel_tool_calls": True,
        "stream_interval": 2,
        "no_such_field": {"deep": [1]},
    }
    assert (await client.post(path, json={**BODIES[path], **harmless})).status_code == 200
