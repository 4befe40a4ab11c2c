"""How long a request may take, by the gateway's own bound and by its client's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.entrypoints.conftest import client_of
from vfastml.engine.deadline import DEADLINE
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.deadlines import DeadlineMiddleware
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import InvalidRequestError


async def left_s(timeout_s: float, *asked: bytes, path: str = "/v1/completions") -> float | None:
    """What a route inside finds as the time that is left; None: as much as it likes."""
    found: list[float | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        deadline = DEADLINE.get()
        found.append(None if deadline is None else deadline - time.monotonic())

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        raise AssertionError("nobody writes")

    headers = [(b"x-request-timeout", value) for value in asked]
    await DeadlineMiddleware(app, timeout_s)({"type": "http", "path": path, "headers": headers}, receive, send)
    assert DEADLINE.get() is None
    return found[0]


@pytest.mark.parametrize(
    ("timeout_s", "asked", "expected"),
    [
        (0.0, [], None),
        (40.0, [], 40.0),
        (0.0, [b"50"], 50.0),
        (40.0, [b"50"], 40.0),
        (40.0, [b"30.5"], 30.5),
        (0.0, [b"50", b"30"], 30.0),
        (0.0, [b"999999999"], 999999999.0),
    ],
)
async def test_the_shorter_one_counts(timeout_s: float, asked: Sequence[bytes], expected: float | None) -> None:
    left = await left_s(timeout_s, *asked)
    assert left == expected if expected is None or left is None else expected - 20 < left <= expected


@pytest.mark.parametrize(
    "value", [b"", b"0", b"0.0", b"-1", b"nan", b"inf", b"1e3", b"1_0", b"5s", b"1.", b"\xb2", b"1" * 10]
)
async def test_what_is_no_time_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="x-request-timeout"):
        await left_s(0.0, value)


async def test_probes_have_none() -> None:
    assert await left_s(40.0, b"nonsense", path="/livez") is None


@pytest.fixture
async def waiting_client() -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway whose model server never comes, so that every request waits for it."""
    gateway = Gateway(GatewayConfig(model_servers=("tcp://127.0.0.1:1",), request_timeout_s=0.2))
    app = gateway.build()
    async with app.router.lifespan_context(app), client_of(gateway) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
        ("/v1/chat/completions", {"messages": "x"}),
        ("/tokenize", {"prompt": "x"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"x-request-timeout": "0.05"}])
async def test_every_route_keeps_it(
    waiting_client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = await waiting_client.post(path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
