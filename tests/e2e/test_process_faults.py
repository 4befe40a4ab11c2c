"""Processes that are killed, stopped, drained, or started twice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, wait_until

LONG: dict[str, Any] = {"model": "tiny", "prompt": "x", "max_tokens": 3000, "ignore_eos": True, "stream": True}


async def last_event(client: httpx.AsyncClient, **fields: Any) -> tuple[float, Any]:
    """When a stream ended, and the last event before that."""
    event: Any = None
    async with client.stream("POST", "/v1/completions", json=LONG | fields) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = line[6:] if line == "data: [DONE]" else json.loads(line[6:])
    return time.monotonic(), event


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_model_server_ends_every_stream_and_a_new_one_takes_over(
    tiny_service: Service, how: signal.Signals
) -> None:
    async def run() -> tuple[float, list[tuple[float, Any]]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=tiny_service.url, timeout=30, limits=limits) as client:
            streams = [asyncio.create_task(last_event(client)) for _ in range(32)]
            while (await client.get("/load")).json()["running"] < 32:
                await asyncio.sleep(0.02)
            assert tiny_service.model_server is not None
            tiny_service.model_server.send_signal(how)
            return time.monotonic(), [await stream for stream in streams]

    killed, ends = asyncio.run(run())
    for ended, event in ends:
        assert event["error"]["code"] == "server_lost"
        assert ended - killed < (1.0 if how == signal.SIGKILL else 2.0)
    assert tiny_service.status("/readyz") == 503
    assert tiny_service.status("/livez") == 200
    refused = tiny_service.chat(model="tiny", messages="x")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert tiny_service.model_server is not None
    if how == signal.SIGSTOP:
        tiny_service.model_server.send_signal(signal.SIGCONT)
    else:
        tiny_service.model_server.wait(5)
        tiny_service.start_model_server()
    tiny_service.wait_ready()
    assert tiny_service.chat(model="tiny", messages="x", max_tokens=3).status_code == 200


def test_sigterm_finishes_what_runs_and_refuses_what_comes(tiny_service: Service) -> None:
    async def run() -> tuple[list[Any], httpx.Response]:
        async with httpx.AsyncClient(base_url=tiny_service.url, timeout=60) as client:
            streams = [asyncio.create_task(last_event(client, max_tokens=400)) for _ in range(8)]
            while (await client.get("/load")).json()["running"] < 8:
                await asyncio.sleep(0.02)
            assert tiny_service.model_server is not None
            tiny_service.model_server.terminate()
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.02)
            new = await client.post("/v1/completions", json={**LONG, "stream": False})
            return [(await stream)[1] for stream in streams], new

    events, new = asyncio.run(run())
    assert events == ["[DONE]"] * 8
    assert new.status_code == 503
    assert tiny_service.model_server is not None
    assert tiny_service.model_server.wait(10) == 0
    tiny_service.start_model_server()
    tiny_service.wait_ready()


def test_gateway_restarts_and_its_requests_are_dropped(tiny_service: Service) -> None:
    with httpx.stream("POST", f"{tiny_service.url}/v1/completions", json=LONG) as response:
        next(response.iter_lines())
        assert tiny_service.gateway is not None
        tiny_service.gateway.kill()
        tiny_service.gateway.wait(5)
    tiny_service.start_gateway()
    tiny_service.wait_ready()
    wait_until(tiny_service.all_free, 5, "the lost gateway's request is dropped")


def test_second_process_on_the_same_port_says_so(tiny_service: Service) -> None:
    for module, flag, port in (
        ("model_server", "--rpc-port", tiny_service.rpc_port),
        ("api_server", "--port", tiny_service.port),
    ):
        command = [sys.executable, "-m", f"prebuilt_apps.openai.{module}", flag, str(port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "in use" in second.stderr
        assert "Traceback" not in second.stderr
    assert tiny_service.chat(model="tiny", messages="x", max_tokens=3).status_code == 200
