"""Strangers at a model server's port: one that never reads, a frame of 1 GiB, thousands of connections, garbage."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos import hostile
from tests.chaos.fleet import Fleet
from tests.faults.streams import client_of
from tests.faults.table import FaultTable
from vfastml.engine.wire import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.faults

GIB = 1 << 30
CONNECTIONS = 10_000
CLIENTS = 4
SHORT = {"model": "tiny", "prompt": "x", "max_tokens": 16, "ignore_eos": True, "temperature": 0}
GROWTH_MIB = MAX_MESSAGE_BYTES >> 20
SLOWER = 2.0
SPAN_S = 8.0


async def flood_with_requests(port: int) -> None:
    await hostile.deaf_gateway(port, random.Random(17), 16, SPAN_S)


async def flood_with_a_huge_frame(port: int) -> None:
    assert await hostile.huge_frame(port, GIB) < GIB


async def flood_with_connections(port: int) -> None:
    sockets = [socket.socket() for _ in range(CONNECTIONS)]
    try:
        for number, each in enumerate(sockets):
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
    finally:
        for each in sockets:
            each.close()


async def flood_with_garbage(port: int) -> None:
    chance = random.Random(17)
    await hostile.garbage_bytes(port, chance, 30)
    await hostile.garbage_messages(port, chance, 2000)


FLOODS: dict[str, Callable[[int], Awaitable[None]]] = {
    "a gateway that never reads": flood_with_requests,
    "a frame of 1 GiB": flood_with_a_huge_frame,
    f"{CONNECTIONS:,} connections": flood_with_connections,
    "garbage": flood_with_garbage,
}


async def nothing(_: int) -> None:
    """What the others' times are held against."""


async def test_floods_on_the_wire(tiny_models: dict[str, Path], tmp_path: Path, faults: FaultTable) -> None:
    fleet = Fleet(tiny_models["llama"], tmp_path, servers=1)
    try:
        await fleet.start()
        [server], [port] = fleet.servers, fleet.rpc_ports
        await p99_ms(fleet, port, nothing)  # warm
        before, alone_ms, beside_ms = server.footprint(), 0.0, {}
        for name, flood in FLOODS.items():
            alone_ms = max(alone_ms, await p99_ms(fleet, port, nothing))
            beside_ms[name] = await p99_ms(fleet, port, flood)
        await fleet.wait_idle(10)
        after = server.footprint()
    finally:
        await fleet.stop()
    assert before is not None
    assert after is not None
    grown = after.resident_mib - before.resident_mib
    slowest = max(beside_ms, key=lambda name: beside_ms[name])
    measured = (
        f"{', '.join(FLOODS)}: {grown:+.0f} MiB; the others' p99 {alone_ms:.0f} ms without, at most "
        f"{beside_ms[slowest]:.0f} ms beside ({slowest})"
    )
    assert after.descriptors <= before.descriptors + 16, measured
    assert grown < GROWTH_MIB, measured
    assert beside_ms[slowest] < SLOWER * alone_ms, f"{measured}: {beside_ms}"
    faults.shows("F17", measured)


async def p99_ms(fleet: Fleet, port: int, flood: Callable[[int], Awaitable[None]]) -> float:
    """Of short requests by a few clients, for some seconds that the flood is in. Each has to be answered."""
    took_s: list[float] = []
    until = time.monotonic() + SPAN_S

    async def ask_on() -> None:
        async with client_of(fleet.url) as client:
            while time.monotonic() < until:
                began = time.monotonic()
                response = await client.post("/v1/completions", json=SHORT)
                assert response.status_code == 200, response.text
                took_s.append(time.monotonic() - began)

    async with asyncio.TaskGroup() as all_of_them:
        for _ in range(CLIENTS):
            all_of_them.create_task(ask_on())
        all_of_them.create_task(_after_a_while(flood, port))
    return 1e3 * sorted(took_s)[int(0.99 * len(took_s))]


async def _after_a_while(flood: Callable[[int], Awaitable[None]], port: int) -> None:
    await asyncio.sleep(0.5)
    await flood(port)
