"""One shape for all errors, the right status, and headers that say whether to try again."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from pydantic import BaseModel, field_validator

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml import errors
from vfastml.entrypoints.api_server import Gateway


def assert_envelope(response: httpx.Response, status: int, **expected: Any) -> None:
    error = response.json()["error"]
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    for name, value in expected.items():
        assert error[name] == value


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.InvalidRequestError("m", param="p"), 400, {}),
        (errors.ModelNotFoundError("m", param="model"), 404, {}),
        (errors.RateLimitError("m"), 429, {"retry-after": "1", "retry-after-ms": "1000"}),
        (errors.RateLimitError("m", retry_after_s=2.5), 429, {"retry-after": "3", "retry-after-ms": "2500"}),
        (errors.QuotaLimitError("m"), 429, {"x-should-retry": "false"}),
        (errors.InternalServerTooBusyError("m", retry_after_s=0.2), 503, {"retry-after": "1", "retry-after-ms": "200"}),
        (errors.ServerLostError("m"), 503, {"retry-after": "1"}),
        (errors.DeadlineExceededError("m"), 504, {"x-should-retry": "false"}),
        (errors.InternalServerError("m"), 500, {}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_engine(
    client: httpx.AsyncClient,
    engine: FakeDispatchEngine,
    error: errors.VFastMLError,
    status: int,
    headers: dict[str, str],
    stream: bool,
) -> None:
    engine.script = fail_with(error)
    response = await client.post("/v1/chat/completions", json={"messages": "x", "stream": stream})
    assert_envelope(response, status, message="m", type=error.type, param=error.param, code=error.code)
    assert headers.items() <= response.headers.items()
    if not headers:
        assert not {"retry-after", "retry-after-ms", "x-should-retry"} & set(response.headers)


async def test_no_such_route(client: httpx.AsyncClient) -> None:
    assert_envelope(await client.get("/v1/nothing"), 404, type="not_found_error", code=None)


async def test_wrong_method(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/chat/completions")
    assert_envelope(response, 405, type="invalid_request_error")
    assert response.headers["allow"] == "POST"


async def test_one_failed_prompt_fails_the_call(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    hello = engine.script

    async def second_fails(task: Any) -> None:
        if task.request.prompt == "bad":
            task.fail(errors.InvalidRequestError("bad", param="prompt"))
        else:
            await hello(task)

    engine.script = second_fails
    response = await client.post("/v1/completions", json={"prompt": ["good", "bad", "good"]})
    assert_envelope(response, 400, message="bad", param="prompt")


class Order(BaseModel):
    amount: int
    note: str = ""

    @field_validator("note")
    @classmethod
    def _polite(cls, note: str) -> str:
        if note == "rude":
            raise ValueError("must be polite")
        return note


@pytest.fixture
def gateway(engine: FakeDispatchEngine) -> Gateway:
    gateway = Gateway(dispatch_engine=engine)

    @gateway.app.post("/order")
    async def order(order: Order, copies: int = 1) -> dict[str, int]:
        return {"amount": order.amount * copies}

    @gateway.app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, {"why": "I am one"}, headers={"x-tea": "green"})

    @gateway.app.get("/unmodified")
    async def unmodified() -> None:
        raise HTTPException(304)

    @gateway.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("/secret/path leaks")

    @gateway.app.get("/own")
    async def own() -> None:
        raise errors.RateLimitError("slow down")

    return gateway


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"amount": "many"}', "amount"),
        (b'{"amount": 1, "note": "rude"}', "note"),
        (b"{}", "amount"),
        (b"[]", None),
        (b"nonsense", None),
        (b'{"amount": NaN}', "amount"),
        (b'{"amount": Infinity}', "amount"),
        (b'{"amount": ' + b"9" * 5000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"amount": "\xff"}', None),
        (b'{"amount": "\\ud800"}', "amount"),
        (b"", None),
    ],
)
async def test_bodies_of_user_routes(gateway: Gateway, body: bytes, param: str | None) -> None:
    async with client_of(gateway) as client:
        response = await client.post("/order", content=body, headers={"content-type": "application/json"})
    assert_envelope(response, 400, type="invalid_request_error", param=param)


async def test_messages_of_validators_are_shown(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        response = await client.post("/order", json={"amount": 1, "note": "rude"})
    assert_envelope(response, 400, message="Invalid 'note': must be polite.")


async def test_query_parameters_of_user_routes(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        assert_envelope(await client.post("/order?copies=x", json={"amount": 1}), 400, param="copies")


async def test_http_exceptions_of_user_routes(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        response = await client.get("/teapot")
        assert_envelope(response, 418, message='{"why":"I am one"}', type="invalid_request_error")
        assert response.headers["x-tea"] == "green"
        assert (await client.get("/unmodified")).content == b""
        assert_envelope(await client.get("/own"), 429, message="slow down")


async def test_unforeseen_exceptions_are_logged_and_not_shown(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "vfastml"):
        async with client_of(gateway) as client:
            response = await client.get("/broken")
    assert_envelope(response, 500, type="server_error", code="internal_error")
    assert "leaks" not in response.text
    assert "/secret/path leaks" in caplog.text


async def test_request_ids(client: httpx.AsyncClient) -> None:
    async def id_for(sent: str) -> str:
        return str((await client.get("/version", headers={"x-request-id": sent})).headers["x-request-id"])

    assert await id_for("mine-1.2_3") == "mine-1.2_3"
    for unacceptable in ("x" * 65, "a b", "a/b", ""):
        assert (await id_for(unacceptable)).startswith("req-")
