"""A model server that answers wrongly: the client still gets one answer, whole or streamed, and it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest
import zmq

from tests.engine.fake_server import FakeServer
from tests.entrypoints.conftest import client_of
from tests.fuzz.frame_cases import reply_frame
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.entrypoints.api_server import Gateway

MODEL = "m"
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": "hi"}),
    ("/v1/chat/completions", {"messages": "hi", "stream": True, "n": 2}),
    ("/v1/completions", {"prompt": ["a", "b"], "stream": True, "return_token_ids": True}),
    ("/v1/completions", {"prompt": "a", "echo": True}),
    ("/tokenize", {"prompt": "hi"}),
    ("/detokenize", {"tokens": [1]}),
]


def lie(server: FakeServer, request: WorkReq) -> None:
    """Some wrong replies, and then an end, if they were none."""
    rng = Random(f"{len(server.requests)}")
    for _ in range(rng.randrange(1, 8)):
        server.broadcast_frame(reply_frame(rng, request.request_id))
    with contextlib.suppress(zmq.ZMQError):  # a damaged reply has ended the session
        server.finish(request.request_id)
    server.broadcast(server.hello())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    server = FakeServer(answer=lie, models=(MODEL,))
    engine = DispatchEngine([server.endpoint], hold_s=0.5)
    await engine.start()
    async with client_of(Gateway(dispatch_engine=engine)) as client:
        yield client
    await engine.close()
    await server.stop()


@pytest.mark.rule("S12")
async def test_every_request_has_an_end(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(300):
        path, body = CALLS[number % len(CALLS)]
        async with asyncio.timeout(10):
            response = await client.post(path, json={"model": MODEL, **body})
        if response.status_code != 200:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        elif body.get("stream"):
            assert response.text.endswith("data: [DONE]\n\n") or '"error"' in response.text.splitlines()[-2]
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
