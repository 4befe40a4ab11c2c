"""Whatever the bytes, the answer is a 400 or 413 in the envelope, quickly, and nothing of the input comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig

CANARY = "s3cretcanary"

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "string": b'"x"',
    "number": b"5",
    "truncated": b'{"messages": [',
    "trailing": b'{"messages": "x"} x',
    "nan": b'{"messages": "x", "prompt": "x", "temperature": NaN}',
    "infinity": b'{"messages": "x", "prompt": "x", "temperature": -Infinity}',
    "overflow": b'{"messages": "x", "prompt": "x", "temperature": 1e400}',
    "bigint": b'{"messages": "x", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"messages": "\\ud800", "prompt": "\\ud800"}',
    "deep nesting": b"[" * 100_000,
    "deep field": b'{"messages": "x", "prompt": "x", "no_such_field": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "bad utf-8": b'{"messages": "\xff", "prompt": "\xff"}',
    "utf-16": '{"messages": "x", "prompt": "x"}'.encode("utf-16"),
    "garbage": b"\x00\x80" * 5_000_000,
    "wrong types": json.dumps({"messages": {CANARY: 1}, "prompt": {CANARY: 1}, "tokens": CANARY}).encode(),
    "huge wrong type": json.dumps({"messages": "x", "prompt": "x", "n": CANARY * 100_000, "tokens": CANARY}).encode(),
}
PATHS = ["/v1/chat/completions", "/v1/completions", "/detokenize"]


@pytest.mark.rule("S4")
@pytest.mark.rule("S10")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", HOSTILE)
async def test_refused_with_an_envelope(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, name: str
) -> None:
    response = await client.post(path, content=HOSTILE[name])
    error = response.json()["error"]
    assert response.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert len(response.content) < 500
    assert CANARY not in response.text
    assert engine.requests == []


@pytest.mark.rule("S4")
async def test_what_only_the_wire_refuses(client: httpx.AsyncClient) -> None:
    """Keys that a schema passes on untouched still cannot carry more than the wire takes."""
    message = b'{"messages": [{"role": "user", "content": "x", "extra": 99999999999999999999}]}'
    response = await client.post("/v1/chat/completions", content=message)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


LIMIT = 1000


@pytest.fixture
async def narrow_client(engine: FakeDispatchEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(Gateway(GatewayConfig(max_body_bytes=LIMIT), engine)) as client:
        yield client


def padded(size: int) -> bytes:
    return b'{"prompt": "x"}'.ljust(size)


@pytest.mark.rule("S4")
async def test_the_largest_body(narrow_client: httpx.AsyncClient) -> None:
    assert (await narrow_client.post("/v1/completions", content=padded(LIMIT))).status_code == 200


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", ["/v1/completions", "/no/such/route"])
async def test_one_byte_more(narrow_client: httpx.AsyncClient, path: str) -> None:
    response = await narrow_client.post(path, content=padded(LIMIT + 1))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.rule("S4")
async def test_chunked_bodies_are_counted(narrow_client: httpx.AsyncClient) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 100
            yield b" " * 100

    response = await narrow_client.post("/v1/completions", content=chunks())
    assert response.status_code == 413
    assert read <= LIMIT + 100


@pytest.mark.rule("S4")
async def test_a_lying_length_is_counted(narrow_client: httpx.AsyncClient) -> None:
    headers = {"content-length": "10"}
    response = await narrow_client.post("/v1/completions", content=padded(LIMIT + 1), headers=headers)
    assert response.status_code == 413


@pytest.mark.rule("S4")
@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x"])
async def test_absurd_lengths(narrow_client: httpx.AsyncClient, length: str) -> None:
    response = await narrow_client.post("/v1/completions", content=padded(50), headers={"content-length": length})
    assert response.status_code in (200, 413)
