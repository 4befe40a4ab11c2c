"""Requests join and leave the running batch at every token, and what a client abandons is free at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import READY_S, Service, free_port, wait_until

MODEL = "smollm2-135m-instruct"
LONG: dict[str, Any] = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 120, "ignore_eos": True}
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_short_request_ends_long_before_the_long_ones(builtin_service: Service) -> None:
    async def run() -> tuple[float, list[list[float]]]:
        async with httpx.AsyncClient(base_url=builtin_service.url, timeout=120) as client:
            streams = [asyncio.create_task(arrival_times(client, LONG)) for _ in range(8)]
            while builtin_service.load()["running"] < 8:
                await asyncio.sleep(0.05)
            await client.post("/v1/completions", json={**LONG, "max_tokens": 5})
            return time.monotonic(), [await stream for stream in streams]

    short_ended, streams = asyncio.run(run())
    for times in streams:
        before = sum(arrived < short_ended for arrived in times)
        assert 0 < before < LONG["max_tokens"] / 2, "the short request ended before half of each stream had come"
    everyone = sorted((arrived, number) for number, times in enumerate(streams) for arrived in times)
    turns = sum(a[1] != b[1] for a, b in itertools.pairwise(everyone))
    assert turns > len(everyone) / 2, "the deltas of the streams alternate"


async def arrival_times(client: httpx.AsyncClient, body: dict[str, Any]) -> list[float]:
    """When each text chunk of the stream came."""
    times = []
    async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                times.append(time.monotonic())
    return times


@contextlib.contextmanager
def example(name: str, *arguments: str) -> Iterator[None]:
    """One of the examples as a process, which must end well when it is told to."""
    process = subprocess.Popen([sys.executable, str(EXAMPLES / name), *arguments])
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0


@contextlib.contextmanager
def own_route(rpc_port: int) -> Iterator[str]:
    """The url of the example's gateway, in front of that model server."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with example("own_route.py", str(port), f"tcp://127.0.0.1:{rpc_port}"):
        wait_until(lambda: ready(url), READY_S, "the example's gateway")
        yield url


@pytest.fixture(scope="module")
def own_route_url(builtin_service: Service) -> Iterator[str]:
    """A second gateway, with the route of the example, in front of the same model server."""
    with own_route(builtin_service.rpc_port) as url:
        yield url


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_both_examples_answer_together(builtin_folder: Path) -> None:
    rpc_port = free_port()
    with example("own_model_server.py", str(rpc_port)), own_route(rpc_port) as url:
        body = {"messages": [{"role": "user", "content": "Hi"}], "model": "not looked at"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 200  # the model server's own default


@pytest.mark.parametrize("kind", ["streamed", "whole", "own route"])
def test_blocks_are_free_soon_after_a_client_is_gone(builtin_service: Service, own_route_url: str, kind: str) -> None:
    story = [{"role": "user", "content": "Write a very long story about a ship."}]
    url = own_route_url if kind == "own route" else builtin_service.url
    body = {"model": MODEL, "messages": story, "stream": kind == "streamed", "ignore_eos": True}
    wait_until(builtin_service.all_free, 5, "free before")

    async def abandon() -> float:
        async with httpx.AsyncClient(timeout=60) as client:
            request = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
            while builtin_service.load()["running"] == 0:
                await asyncio.sleep(0.02)
            request.cancel()  # closes its connection
        return wait_until(lambda: blocks_free(builtin_service), 5, "free after")

    took = asyncio.run(abandon())
    print(f"{kind}: free after {took * 1000:.0f} ms")
    assert took < 0.5  # 250 ms or one step, and as much again for a busy machine


def blocks_free(service: Service) -> bool:
    load = service.load()
    return load["free_blocks"] == load["total_blocks"]
