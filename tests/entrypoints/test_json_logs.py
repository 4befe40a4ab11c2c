"""What a gateway process writes on stderr, in both formats, at debug level."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest

from tests.engine.fake_server import FakeServer
from tests.entrypoints.conftest import Start
from tests.entrypoints.log_words import KEY
from tests.entrypoints.running_gateway import PATIENCE_S, Running
from vfastml.entrypoints.gateway_config import GatewayConfig

HEADERS = {"authorization": f"Bearer {KEY}", "x-other": "header-canary", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
CANARIES = ["prompt-canary", "query-canary", "header-canary", KEY, "field-canary"]


def asked(start: Start, log_format: str) -> list[str]:
    """The lines of a gateway that has answered, refused and failed."""
    gateway = start([sys.executable, "-m", "tests.entrypoints.log_words", log_format])
    _ask_all(gateway)
    gateway.signal()
    assert gateway.exit_code() == 0
    return gateway.stderr().splitlines()


def _ask_all(gateway: Running) -> None:
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE_S, headers=HEADERS) as client:
        for prompt in ("prompt-canary", "prompt-canary boom"):
            body = {"prompt": prompt, "user": "field-canary", "max_tokens": 2}
            client.post("/v1/completions?q=query-canary", json=body, headers={"x-request-id": f"id-{len(prompt)}"})
        client.post("/v1/completions?q=query-canary", json={"prompt": {"field-canary": 1}})
        client.post("/v1/completions", content=b'{"prompt": "prompt-canary', headers={"content-type": "text/json"})
        client.get("/v1/responses/some-id?q=query-canary")
        client.get("/none%0d%0aERROR%20forged%e2%80%a8%1b[2J")
        client.get("/v1/models", headers={"authorization": "Bearer header-canary"})
        client.get("/livez")


async def ended(gateway: Running) -> None:
    """The line of a request is written after its client has the answer."""
    gateway.signal()
    assert await asyncio.to_thread(gateway.exit_code) == 0


def access_lines(lines: list[str]) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in lines]
    return [line for line in parsed if line["logger"] == "vfastml.entrypoints.access_log"]


@pytest.mark.rule("S10")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_private_and_nothing_forged(start: Start, log_format: str) -> None:
    lines = asked(start, log_format)
    assert len(lines) > 8
    for line in lines:
        assert [canary for canary in CANARIES if canary in line] == [], line
        assert line.isprintable()
        assert not line.startswith(("ERROR forged", "second line"))


def test_every_line_is_an_object(start: Start) -> None:
    parsed = [json.loads(line) for line in asked(start, "json")]
    for line in parsed:
        assert list(line)[:6] == ["time", "level", "logger", "message", "process", "pid"]
        assert line["process"] == "gateway"
    told = {line["logger"] for line in parsed}
    assert {"uvicorn.error", "asyncio", "somebody.else", "library.with.a.handler", "py.warnings", "vfastml"} <= told
    [uncaught] = [line for line in parsed if "exception" in line]
    assert "ZeroDivisionError" in uncaught["exception"]
    assert "second line" in next(line for line in parsed if line["logger"] == "asyncio")["message"]


def test_the_access_log_has_fields(start: Start) -> None:
    lines = access_lines(asked(start, "json"))
    while lines[0]["route"] == "/livez":  # asked by the test itself, until the gateway was there
        lines.pop(0)
    told = [(line["method"], line["route"], line["status"], line["level"]) for line in lines]
    assert told == [
        ("POST", "/v1/completions", 200, "info"),
        ("POST", "/v1/completions", 500, "info"),
        ("POST", "/v1/completions", 400, "info"),
        ("POST", "/v1/completions", 400, "info"),
        ("GET", "/v1/responses/{id}", 404, "info"),
        ("GET", None, 404, "info"),
        ("GET", None, 401, "info"),
        ("GET", "/livez", 200, "debug"),
    ]
    assert all(line["duration_ms"] > 0 for line in lines)
    assert [line["request_id"] for line in lines[:2]] == ["id-13", "id-18"]
    assert {line.get("key") for line in lines[:6]} == {lines[0]["key"]}
    assert lines[0]["key"].startswith("key-")
    assert [line.get("key") for line in lines[6:]] == [None, None]


async def test_tokens_and_ids_of_what_was_dispatched(start_fake_gateway: Any) -> None:
    gateway, server = await start_fake_gateway("--log-format", "json", "--access-log", "all")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as client:
        answer = await client.post("/v1/completions", json={"prompt": "one two three"})
        await client.get("/v1/models")
    await ended(gateway)
    first, second = access_lines(gateway.stderr().splitlines())[-2:]
    [request] = server.requests
    assert first["dispatched"] == [request.request_id]
    assert request.request_id.startswith(answer.json()["id"])
    assert (first["prompt_tokens"], first["completion_tokens"]) == (1, 3)
    assert first["request_id"] == answer.headers["x-request-id"]
    assert {"dispatched", "prompt_tokens", "trace_id"}.isdisjoint(second)


async def test_the_trace_of_a_client_is_in_its_lines(start_fake_gateway: Any) -> None:
    gateway, _ = await start_fake_gateway("--log-format", "json", "--access-log", "all", "--trace-file", "/dev/null")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S, headers=HEADERS) as client:
        await client.post("/v1/completions", json={"prompt": "one"})
    await ended(gateway)
    assert access_lines(gateway.stderr().splitlines())[-1]["trace_id"] == "ab" * 16


@pytest.fixture
async def start_fake_gateway(start: Start) -> Any:
    """A gateway of a model server without a model, both of which come back."""
    server = FakeServer()

    async def start_one(*flags: str) -> tuple[Running, FakeServer]:
        command = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0"]
        return start([*command, "--model-server", server.endpoint, *flags]), server

    yield start_one
    await server.stop()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="text, json"):
        GatewayConfig(log_format="xml")
