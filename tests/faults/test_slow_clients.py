"""Clients that take their time, beside one that does not."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running
from tests.faults.table import FaultTable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

IDLE, SLOW, CALLS = 500, 50, 300
BODY_TIMEOUT_S = 2.0
IDLE_S = 75.0
"""After which a connection without a request is closed."""
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"


@pytest.fixture
def service(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[Service]:
    arguments = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--kv-cache-memory", "20MB"]
    with running(Service(tmp_path, arguments, ["--body-timeout", str(BODY_TIMEOUT_S)])) as service:
        yield service


def p99_ms(service: Service) -> float:
    """Of a healthy client's calls, one after the other."""
    took_s = []
    for _ in range(CALLS):
        began = time.monotonic()
        assert service.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
        took_s.append(time.monotonic() - began)
    return 1e3 * statistics.quantiles(took_s, n=100)[98]


def closed_after_s(connections: list[socket.socket], began: float) -> float:
    """Seconds until the last of them was closed by the gateway."""
    for connection in connections:
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass
    return time.monotonic() - began


def test_slow_clients(service: Service, faults: FaultTable) -> None:
    alone_ms = statistics.median(p99_ms(service) for _ in range(3))
    with contextlib.ExitStack() as stack:

        def connections(opening: bytes, count: int) -> list[socket.socket]:
            made = [socket.create_connection(("127.0.0.1", service.port), timeout=100) for _ in range(count)]
            for connection in made:
                stack.enter_context(connection).sendall(opening)
            return made

        began = time.monotonic()
        idle = connections(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", IDLE)
        heads, bodies = connections(HEAD, SLOW), connections(HEAD + b"\r\n{", SLOW)
        bodies_s = closed_after_s(bodies, began)
        beside_ms = statistics.median(p99_ms(service) for _ in range(3))
        heads_s, idle_s = closed_after_s(heads, began), closed_after_s(idle, began)
    faults.shows(
        "F22",
        f"closed after {bodies_s:.1f} s (bodies, {BODY_TIMEOUT_S:g}), {heads_s:.1f} s (heads, 20), {idle_s:.1f} s "
        f"(idle, {IDLE_S:g}); p99 of a healthy client {alone_ms:.1f} ms alone, {beside_ms:.1f} ms beside them",
    )
    assert bodies_s < BODY_TIMEOUT_S + 2
    assert heads_s < 22
    assert idle_s < IDLE_S + 3
