"""Below /v1/messages every error has Anthropic's form, wherever it is raised; elsewhere none has."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from tests.entrypoints.test_hostile_bodies import HOSTILE
from vfastml import errors
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig

HELLO = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
PATHS = ["/v1/messages", "/v1/messages/count_tokens"]


def assert_anthropic(response: httpx.Response, status: int, kind: str) -> str:
    """Its message."""
    body = response.json()
    assert (response.status_code, body["error"]["type"]) == (status, kind)
    assert set(body) == {"type", "error", "request_id"}
    assert set(body["error"]) == {"type", "message"}
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidRequestError("m", param="p"), 400, "invalid_request_error"),
        (errors.UnsupportedError("m"), 400, "invalid_request_error"),
        (errors.ModelNotFoundError("m", param="model"), 404, "not_found_error"),
        (errors.RateLimitError("m"), 429, "rate_limit_error"),
        (errors.QuotaLimitError("m"), 429, "rate_limit_error"),
        (errors.InternalServerTooBusyError("m"), 503, "overloaded_error"),
        (errors.ServerLostError("m"), 503, "overloaded_error"),
        (errors.DeadlineExceededError("m"), 504, "timeout_error"),
        (errors.InternalServerError("m"), 500, "api_error"),
    ],
)
@pytest.mark.parametrize(
    ("path", "stream"), [("/v1/messages", False), ("/v1/messages", True), ("/v1/messages/count_tokens", None)]
)
async def test_errors_of_the_engine(
    client: httpx.AsyncClient,
    engine: FakeDispatchEngine,
    error: errors.VFastMLError,
    status: int,
    kind: str,
    path: str,
    stream: bool | None,
) -> None:
    engine.script = fail_with(error)
    response = await client.post(path, json={**HELLO, "stream": stream})
    assert assert_anthropic(response, status, kind) == "m"
    assert ("retry-after" in response.headers) == error.retryable


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_bodies(client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, name: str) -> None:
    response = await client.post(path, content=HOSTILE[name])
    assert_anthropic(response, 400, "invalid_request_error")
    assert len(response.content) < 500
    assert engine.requests == []


DEEP: Any = json.loads("[" * 400 + "]" * 400)


@pytest.mark.parametrize(("given", "status"), [(10**20, 400), (DEEP, 200)])
async def test_input_that_the_wire_may_not_take(client: httpx.AsyncClient, given: Any, status: int) -> None:
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"given": given}}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": "hi"}]
    response = await client.post("/v1/messages", json={**HELLO, "messages": turns})
    assert response.status_code == status


@pytest.mark.rule("S3")
@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/batches"])
async def test_keys(engine: FakeDispatchEngine, path: str) -> None:
    async with client_of(Gateway(GatewayConfig(api_keys=("k",)), engine)) as client:
        for headers in ({}, {"x-api-key": "other"}):
            assert_anthropic(await client.post(path, json=HELLO, headers=headers), 401, "authentication_error")
        elsewhere = await client.post("/v1/messagesx", json=HELLO)
        assert set(elsewhere.json()) == {"error"}
        for headers in ({"x-api-key": "k"}, {"authorization": "Bearer k"}):
            answer = await client.post(path, json=HELLO, headers=headers)
            assert answer.status_code == (404 if path.endswith("batches") else 200)


async def test_routes_and_methods(client: httpx.AsyncClient) -> None:
    assert_anthropic(await client.post("/v1/messages/batches"), 404, "not_found_error")
    assert_anthropic(await client.get("/v1/messages"), 405, "invalid_request_error")


async def test_layers_around_the_routes(engine: FakeDispatchEngine) -> None:
    config = GatewayConfig(max_body_bytes=10, root_path="/llm")
    async with client_of(Gateway(config, engine)) as client:
        assert_anthropic(await client.post("/llm/v1/messages", json=HELLO), 413, "request_too_large")
        timeout = {"x-request-timeout": "soon"}
        assert_anthropic(await client.post("/v1/messages", headers=timeout), 400, "invalid_request_error")


async def test_while_shutting_down(engine: FakeDispatchEngine) -> None:
    gateway = Gateway(dispatch_engine=engine)
    gateway._gate.close()
    async with client_of(gateway) as client:
        response = await client.post("/v1/messages", json=HELLO)
    assert_anthropic(response, 503, "overloaded_error")
    assert response.headers["connection"] == "close"


@pytest.mark.rule("S10")
async def test_unforeseen_exceptions(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    def dispatch(_: Any) -> Any:
        raise RuntimeError("secret")

    engine.dispatch = dispatch  # type: ignore[method-assign]
    assert "secret" not in assert_anthropic(await client.post("/v1/messages", json=HELLO), 500, "api_error")
