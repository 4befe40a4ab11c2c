"""Fixtures of the gateway's half of the wire: every async test here runs on asyncio's loop and on uvloop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from tests.engine.fake_server import FakeServer
from vfastml.engine.dispatch_engine import DispatchEngine


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start_server() -> AsyncIterator[Callable[..., FakeServer]]:
    """Starts fake servers, and stops them at the end."""
    servers: list[FakeServer] = []

    def start(**options) -> FakeServer:
        servers.append(FakeServer(**options))
        return servers[-1]

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def start_engine() -> AsyncIterator[Callable[..., Awaitable[DispatchEngine]]]:
    """Starts dispatch engines for fake servers or endpoints; at the end nothing may be open in them."""
    engines: list[DispatchEngine] = []

    async def start(*servers: FakeServer | str, **options) -> DispatchEngine:
        engine = DispatchEngine([s if isinstance(s, str) else s.endpoint for s in servers], **options)
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        left = (engine.open_requests, engine.held_requests, [s.open_requests for s in engine.servers()])
        await engine.close()
        assert left == (0, 0, [0] * len(left[2]))
