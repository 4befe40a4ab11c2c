"""A gateway is told to end, once or twice, while it streams."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.e2e.service import Service
from tests.faults.streams import DONE, client_of, start_streams
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

STREAMS = 32
ROUNDS = 16


def restart(service: Service) -> None:
    service.start_gateway()
    service.wait_ready()


def test_nothing_open_is_lost(tiny_service: Service, faults: FaultTable) -> None:
    async def run() -> tuple[int, float]:
        async with client_of(tiny_service.url) as client:
            streams = await start_streams(client, STREAMS, max_tokens=300)
            assert tiny_service.gateway is not None
            tiny_service.gateway.send_signal(signal.SIGTERM)
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.005)
            assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 503
            whole = sum([(await stream).event == DONE for stream in streams])
            last_s = time.monotonic()
            assert await asyncio.to_thread(tiny_service.gateway.wait, 10) == 0
            return whole, time.monotonic() - last_s

    whole, exits_s = 0, []
    for _ in range(ROUNDS):
        one, exit_s = asyncio.run(asyncio.wait_for(run(), 60))
        whole += one
        exits_s.append(exit_s)
        restart(tiny_service)
    faults.shows(
        "F13", f"{whole} of {ROUNDS * STREAMS} streams whole; exit 0 at most {max(exits_s):.2f} s after the last one"
    )
    assert whole == ROUNDS * STREAMS
    assert max(exits_s) < 1.5


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal(tiny_service: Service, faults: FaultTable, second: signal.Signals) -> None:
    async def run() -> float:
        async with client_of(tiny_service.url) as client:
            streams = await start_streams(client, STREAMS)
            assert tiny_service.gateway is not None
            tiny_service.gateway.send_signal(signal.SIGTERM)
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.005)
            tiny_service.gateway.send_signal(second)
            sent = time.monotonic()
            assert await asyncio.to_thread(tiny_service.gateway.wait, 10) == 0
            took_s = time.monotonic() - sent
            assert all([(await stream).error_code for stream in streams])
            return took_s

    took_s = asyncio.run(asyncio.wait_for(run(), 60))
    restart(tiny_service)
    faults.shows("F14", f"{second.name}: exit 0 after {took_s:.2f} s, {STREAMS} streams ended in an error")
    assert took_s < 2.0
