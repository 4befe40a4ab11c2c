"""Heads and bodies that never end, by size or by time, connections that are too many, and many that are well."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time

import httpx
import pytest

from tests.entrypoints.conftest import LiveGateway, Serve, eventually
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, say_hello
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints import http_protocol
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.http_protocol import BoundedHttpProtocol, ConnectionBounds


def connect(live: LiveGateway) -> socket.socket:
    return socket.create_connection((live.host, live.port), timeout=5)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.rule("S4")
def test_an_endless_head_is_refused(live: LiveGateway) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n")
        sent = 0
        try:
            while sent < 100 * http_protocol.MAX_HEAD_BYTES:
                connection.sendall(b"x-a: " + b"a" * 1000 + b"\r\n")
                sent += 1000
        except (BrokenPipeError, ConnectionResetError):
            pass
        read_all(connection)
    assert sent < 100 * http_protocol.MAX_HEAD_BYTES


@pytest.mark.rule("S4")
def test_the_refusal_is_an_envelope(live: LiveGateway) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\n")
        time.sleep(0.1)
        # Only the last byte is too much, so nothing is left unread when the connection is closed.
        connection.sendall(b"x-a: ".ljust(http_protocol.MAX_HEAD_BYTES + 1, b"a"))
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b'{"error":{"message"' in received


@pytest.mark.rule("S4")
@pytest.mark.parametrize("opening", [b"", b"GET /version HTTP/1.1\r\nhost"])
def test_a_head_that_does_not_come_is_not_waited_for(
    live: LiveGateway, monkeypatch: pytest.MonkeyPatch, opening: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    with connect(live) as connection:
        connection.sendall(opening)
        assert read_all(connection) == b""


def test_a_quick_head_is_answered_after_the_time_for_heads(live: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    body = b'{"prompt": "x"}'
    with connect(live) as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        for _ in range(3):
            connection.sendall(head + body[:5])
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(5)
            connection.sendall(body[5:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_large_bodies_are_no_heads(live: LiveGateway) -> None:
    body = b'{"prompt": "x"}'.ljust(3_000_000)
    with connect(live) as connection:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall((head + body) * 2)
        received = b""
        while received.count(b'"text_completion"') < 2:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200") == 2


def post(length: int) -> bytes:
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length


@pytest.fixture
def impatient(serve: Serve, engine: FakeDispatchEngine) -> LiveGateway:
    """Waits 0.3 s for silent bodies."""
    return serve(Gateway(dispatch_engine=engine), body_timeout_s=0.3)


@pytest.mark.rule("S4")
@pytest.mark.parametrize("sent", [b"", b'{"prompt"'])
def test_a_body_that_stops_coming_is_a_408(impatient: LiveGateway, sent: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(post(100) + sent)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close\r\n" in received
    assert b'"code":"request_timeout"' in received


def test_a_body_may_take_its_time_while_it_comes(impatient: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MIN_BODY_BYTES_PER_S", 0.1)
    body = b'{"prompt": "x"}'
    with connect(impatient) as connection:
        connection.sendall(post(len(body)))
        for position in range(len(body)):
            time.sleep(0.05)
            connection.sendall(body[position : position + 1])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.rule("S4")
def test_a_body_that_trickles_is_a_408(impatient: LiveGateway) -> None:
    with connect(impatient) as connection:
        connection.sendall(post(1000))
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 1000:
                time.sleep(0.02)
                connection.sendall(b" ")
                sent += 1
        assert sent < 1000
        assert read_all(connection).startswith((b"HTTP/1.1 408 ", b""))


@pytest.mark.rule("S4")
def test_a_large_part_of_a_body_pays_for_no_trickle(impatient: LiveGateway) -> None:
    with connect(impatient) as connection:
        connection.sendall(post(20_000) + bytes(10_000))
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 250:  # 5 s
                time.sleep(0.02)
                connection.sendall(b" ")
                sent += 1
        assert sent < 250


@pytest.mark.rule("S4")
def test_a_refused_body_that_does_not_end_keeps_no_connection(serve: Serve, engine: FakeDispatchEngine) -> None:
    live = serve(Gateway(GatewayConfig(max_body_bytes=10), engine), body_timeout_s=0.3)
    with connect(live) as connection:
        connection.sendall(post(1000))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_time_that_we_take_ourselves_is_not_the_bodys(impatient: LiveGateway, engine: FakeDispatchEngine) -> None:
    """The second request waits for the first one, and so does the rest of its body."""

    async def take_long(task: DispatchTask) -> None:
        await asyncio.sleep(1.0)
        await say_hello(task)

    engine.script = take_long
    body = b'{"prompt": "x"}'
    with connect(impatient) as connection:
        connection.sendall(post(len(body)) + body + post(len(body)) + body[:5])
        time.sleep(0.2)
        connection.sendall(body[5:])
        received = b""
        while received.count(b'"text_completion"') < 2:
            piece = connection.recv(65536)
            assert piece, received
            received += piece


def test_bytes_that_begin_nothing_keep_no_connection(live: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    with connect(live) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 5:
                connection.sendall(b"\r\n")
                time.sleep(0.02)
        assert time.monotonic() - began < 5


@pytest.mark.rule("S4")
def test_too_many_connections_are_told_so(serve: Serve, engine: FakeDispatchEngine) -> None:
    live = serve(Gateway(dispatch_engine=engine))
    protocol = live.server.config.http
    assert isinstance(protocol, type)
    assert issubclass(protocol, BoundedHttpProtocol)
    protocol.bounds = ConnectionBounds(max_connections=2)
    with connect(live) as first, connect(live) as second:
        for connection in (first, second):
            connection.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        with connect(live) as third:
            refused = read_all(third)
    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in refused
    eventually(lambda: httpx.get(f"{live.url}/livez").status_code == 200)


@pytest.mark.rule("S4")
def test_only_so_many_requests_of_a_connection_wait(live: LiveGateway) -> None:
    with connect(live) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
        assert read_all(connection).count(b"HTTP/1.1 200") < 5000


def test_some_requests_may_wait(live: LiveGateway) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * http_protocol.MAX_PIPELINED)
        received = b""
        while received.count(b"HTTP/1.1 200") < http_protocol.MAX_PIPELINED:
            piece = connection.recv(65536)
            assert piece
            received += piece


def test_a_body_that_came_too_slowly_is_in_the_access_log(
    impatient: LiveGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vfastml.entrypoints.access_log"), connect(impatient) as connection:
        connection.sendall(post(100) + b'{"prompt"')
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")
        eventually(lambda: "POST /v1/completions 408 in" in caplog.text)
