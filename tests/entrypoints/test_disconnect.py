"""A client that hangs up cancels its request, on every route; one that stays never notices. Real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import httpx
import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

import vfastml.utils.api as api_utils
from prebuilt_apps.openai.api_interfaces import ChatCompletionsRequest
from tests.entrypoints.conftest import LiveGateway, Serve, eventually
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, never_end
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.api_server import Gateway


def http_request(path: str, body: dict[str, Any] | None, method: str = "POST") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def connect(live: LiveGateway) -> socket.socket:
    return socket.create_connection((live.host, live.port), timeout=5)


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": "x"}),
    ("/v1/chat/completions", {"messages": "x", "stream": True}),
    ("/v1/completions", {"prompt": ["x", "y"]}),
    ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
    ("/tokenize", {"prompt": "x"}),
]


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_hanging_up_cancels(
    live: LiveGateway,
    engine: FakeDispatchEngine,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
) -> None:
    engine.script = never_end
    expected = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1
    with caplog.at_level(logging.INFO), connect(live) as connection:
        connection.sendall(http_request(path, body))
        eventually(lambda: engine.open_requests == expected)
        if body.get("stream"):
            assert b"word" in read_until(connection, b"word")
        connection.close()
        eventually(lambda: len(engine.cancelled) == expected)
        eventually(lambda: "POST" in caplog.text)
    assert engine.open_requests == 0
    assert "Traceback" not in caplog.text
    assert max(record.levelno for record in caplog.records) == logging.INFO
    assert f"POST {path} {200 if body.get('stream') else 499} in " in caplog.text


def test_hanging_up_before_the_stream_was_accepted(live: LiveGateway, engine: FakeDispatchEngine) -> None:
    async def wait(_: Any) -> None:
        await asyncio.Event().wait()

    engine.script = wait
    with connect(live) as connection:
        connection.sendall(http_request("/v1/chat/completions", {"messages": "x", "stream": True}))
        eventually(lambda: engine.open_requests == 1)
    eventually(lambda: len(engine.cancelled) == 1)


def test_hanging_up_in_mid_body(
    live: LiveGateway, engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), connect(live) as connection:
        connection.sendall(http_request("/v1/chat/completions", {"messages": "x"})[:-5])
        connection.close()
        eventually(lambda: " 499 " in caplog.text)
    assert engine.requests == []


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        piece = connection.recv(65536)
        assert piece, "the server closed the connection"
        received += piece
    return received


def test_user_routes_are_cancelled_too(serve: Serve, engine: FakeDispatchEngine) -> None:
    gateway = Gateway(dispatch_engine=engine)

    @gateway.app.post("/mine")
    async def mine(request: ChatCompletionsRequest) -> Response:
        task = gateway.dispatch_engine.dispatch(
            TextGenerationReq(request_id=api_utils.gen_request_id("mine"), messages=request.messages)
        )
        return api_utils.build_json_response(task.request_id, await task.get_result())

    live = serve(gateway)
    engine.script = never_end
    with connect(live) as connection:
        content_type = b"\r\ncontent-type: application/json\r\nhost"
        connection.sendall(http_request("/mine", {"messages": "x"}).replace(b"\r\nhost", content_type))
        eventually(lambda: engine.open_requests == 1)
    eventually(lambda: len(engine.cancelled) == 1)


def test_keep_alive_connections_serve_many_requests(live: LiveGateway) -> None:
    with httpx.Client(base_url=live.url) as client:
        for _ in range(20):
            for path, body in CALLS:
                assert client.post(path, json=body).status_code == 200


def test_pipelined_requests_are_all_answered(live: LiveGateway) -> None:
    paths = [("/v1/chat/completions", {"messages": f"{n}", "stream": n % 2 == 1}) for n in range(6)]
    with connect(live) as connection:
        connection.sendall(b"".join(http_request(path, body) for path, body in paths))
        connection.sendall(http_request("/version", None, "GET"))
        received = read_until(connection, b'"version"')
    assert received.count(b"HTTP/1.1 200") == 7
    assert received.count(b"data: [DONE]") == 3


def test_a_pipelined_request_while_the_first_one_runs(live: LiveGateway, engine: FakeDispatchEngine) -> None:
    gate = asyncio.Event()
    hello = engine.script

    async def wait_for_gate(task: Any) -> None:
        await gate.wait()
        await hello(task)

    engine.script = wait_for_gate
    with connect(live) as connection:
        connection.sendall(http_request("/v1/completions", {"prompt": "x"}))
        eventually(lambda: engine.open_requests == 1)
        connection.sendall(http_request("/version", None, "GET"))
        live.call_soon(gate.set)
        received = read_until(connection, b'"version"')
    assert received.count(b"HTTP/1.1 200") == 2
    assert engine.cancelled == []


def test_garbage_behind_a_pipelined_request_ends_the_one_that_runs(
    live: LiveGateway, engine: FakeDispatchEngine
) -> None:
    async def never(task: Any) -> None:
        await asyncio.Event().wait()

    engine.script = never
    ended: list[bool] = []

    def receive_garbage() -> None:
        (protocol,) = live.server.server_state.connections
        running = protocol.cycle
        protocol.data_received(http_request("/version", None, "GET") + b"\0 is no HTTP\r\n\r\n")
        # Not a moment later: a handler that is just about to answer would write to what is closed.
        ended.append(running.disconnected)

    with connect(live) as connection:
        connection.sendall(http_request("/v1/completions", {"prompt": "x"}))
        eventually(lambda: engine.open_requests == 1)
        live.call_soon(receive_garbage)
        eventually(lambda: ended == [True])
        eventually(lambda: engine.open_requests == 0)


def test_what_follows_a_finished_response_is_not_cancelled(serve: Serve, engine: FakeDispatchEngine) -> None:
    gateway = Gateway(dispatch_engine=engine)
    done: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0.3)
        done.append("later")

    @gateway.app.get("/background")
    async def background() -> Response:
        return JSONResponse({}, background=BackgroundTask(later))

    with httpx.Client(base_url=serve(gateway).url) as client:
        assert client.get("/background").status_code == 200
    eventually(lambda: done == ["later"])


def test_user_routes_may_read_and_stream(serve: Serve, engine: FakeDispatchEngine) -> None:
    gateway = Gateway(dispatch_engine=engine)
    closed: list[str] = []

    @gateway.app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(b"".join([piece async for piece in request.stream()]))

    @gateway.app.get("/numbers")
    async def numbers() -> StreamingResponse:
        async def count() -> Any:
            try:
                for number in range(100):
                    yield f"{number}\n"
                    await asyncio.sleep(0.02)
            finally:
                closed.append("closed")

        return StreamingResponse(count())

    @gateway.app.get("/watch")
    async def watch(request: Request) -> Response:
        return JSONResponse(await request.is_disconnected())

    live = serve(gateway)
    with httpx.Client(base_url=live.url) as client:
        assert client.post("/echo", content=b"x" * 3_000_000).content == b"x" * 3_000_000
        assert client.get("/watch").json() is False
    with connect(live) as connection:
        connection.sendall(http_request("/numbers", None, "GET"))
        read_until(connection, b"3\n")
    eventually(lambda: closed == ["closed"])
