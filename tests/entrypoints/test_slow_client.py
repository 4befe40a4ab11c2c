"""A client that does not read, in front of a model that does not wait."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.entrypoints.conftest import eventually

WORDS = 100_000
RECEIVE_BUFFER = 16 << 10
MAY_GROW = 6 << 20
"""A waiting delta for each word is 13 MB; their text is half a megabyte."""


@contextlib.contextmanager
def talkative_gateway() -> Iterator[tuple[str, int, psutil.Process]]:
    command = [sys.executable, "-m", "tests.entrypoints.slow_gateway", "1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = re.findall(r"http://([^:]+):(\d+)", process.stdout.readline())[0]
            yield host, int(port), psutil.Process(process.pid)
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


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


@pytest.mark.timeout(120)
def test_it_costs_its_text_and_gets_all_of_it_in_fewer_pieces() -> None:
    with talkative_gateway() as (host, port, process):
        url = f"http://{host}:{port}/load"

        def is_said() -> bool:
            return bool(httpx.get(url).json()["open_requests"] == 0)

        eventually(is_said, within_s=10)
        before = process.memory_info().rss
        with ask(host, port) as client:
            assert client.recv(8)
            eventually(is_said, within_s=60)
            assert process.memory_info().rss - before < MAY_GROW
            answer = read_all(client)
    events = re.findall(rb"data: (\{.*\})", answer)
    texts = [json.loads(event)["choices"][0]["text"] for event in events]
    assert "".join(texts) == "".join(f"{number} " for number in range(WORDS))
    assert len(texts) < WORDS / 2
    assert answer.rstrip().rpartition(b"data: ")[2].startswith(b"[DONE]")
