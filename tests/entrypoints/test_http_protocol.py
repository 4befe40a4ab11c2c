"""Heads that never end, by size or by time, and many that do."""

from __future__ import annotations

import socket
import time

import pytest

from tests.entrypoints.conftest import LiveGateway
from vfastml.entrypoints import http_protocol


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


def test_the_refusal_is_an_envelope(live: LiveGateway) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\n")
        time.sleep(0.1)
        # Only the last byte is too much, so nothing is left unread when the connection is closed.
        connection.sendall(b"x-a: ".ljust(http_protocol.MAX_HEAD_BYTES + 1, b"a"))
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b'{"error":{"message"' in received


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
