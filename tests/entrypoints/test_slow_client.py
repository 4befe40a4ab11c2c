"""A client that does not read, in front of a model that does not wait."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.entrypoints.conftest import eventually
from tests.entrypoints.running_gateway import livez, slow_gateway

WORDS = 100_000
RECEIVE_BUFFER = 16 << 10
MAY_WAIT = 50
"""Deltas, however many words there were."""
MAY_GROW = 10 << 20
"""A waiting delta for each word is 13 MB; their text is half a megabyte."""


@contextlib.contextmanager
def talkative_gateway() -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
    command = [*slow_gateway(drain_timeout_s=1), "without a pause"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = re.findall(r"http://([^:]+):(\d+)", process.stdout.readline())[0]
            yield host, int(port), process
        finally:
            process.kill()


def ask(host: str, port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    client.settimeout(60)
    client.connect((host, port))
    body = json.dumps({"prompt": "x", "stream": True, "max_tokens": WORDS}).encode()
    head = f"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def num_waiting(gateway: subprocess.Popen[str]) -> int:
    """Once all is said."""
    assert gateway.stdout is not None
    return next(int(line.partition(":")[2]) for line in gateway.stdout if line.startswith("waiting:"))


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


@pytest.mark.timeout(120)
def test_it_costs_its_text_and_gets_all_of_it_in_fewer_pieces() -> None:
    with talkative_gateway() as (host, port, gateway):
        eventually(lambda: livez(f"http://{host}:{port}"))
        process = psutil.Process(gateway.pid)
        before = process.memory_info().rss
        with ask(host, port) as client:
            assert client.recv(8)
            assert num_waiting(gateway) < MAY_WAIT
            assert process.memory_info().rss - before < MAY_GROW
            answer = read_all(client)
    events = re.findall(rb"data: (\{.*\})", answer)
    texts = [json.loads(event)["choices"][0]["text"] for event in events]
    assert "".join(texts) == "".join(f"{number} " for number in range(WORDS))
    assert len(texts) < WORDS / 2
    assert answer.rstrip().rpartition(b"data: ")[2].startswith(b"[DONE]")
