from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import httpx
import pytest
import uvloop

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.entrypoints.running_gateway import PATIENCE_S, Running
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.drain import DrainGate
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.listening import bind
from vfastml.entrypoints.serving import GatewayServer


@pytest.fixture
def engine() -> FakeDispatchEngine:
    return FakeDispatchEngine()


def client_of(gateway: Gateway) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gateway.build(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
async def client(engine: FakeDispatchEngine) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to a gateway with built-in routes only, without a socket."""
    async with client_of(Gateway(dispatch_engine=engine)) as client:
        yield client


@dataclass
class LiveGateway:
    host: str
    port: int
    gateway: Gateway
    server: GatewayServer
    loop: asyncio.AbstractEventLoop

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run it in the server's thread."""
        self.loop.call_soon_threadsafe(callback)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class Serve(Protocol):
    """Serves a gateway; times are those of GatewayServer."""

    def __call__(self, gateway: Gateway, **times_s: float) -> LiveGateway: ...


@contextlib.contextmanager
def _serving(gateway: Gateway, **times_s: float) -> Iterator[LiveGateway]:
    listener = bind("127.0.0.1", 0)
    server = GatewayServer(gateway.build(), DrainGate(), 1.0, gateway.dispatch_engine.close, **times_s)
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    thread = threading.Thread(target=uvloop.run, args=(main(),), daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    eventually(lambda: server.started)
    try:
        yield LiveGateway("127.0.0.1", port, gateway, server, loops[0])
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves gateways by uvicorn, each in a thread and on a port of its own, until the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda gateway, **times_s: stack.enter_context(_serving(gateway, **times_s))


@pytest.fixture
def live(serve: Serve, engine: FakeDispatchEngine) -> LiveGateway:
    return serve(Gateway(GatewayConfig(keep_alive_s=0.2, access_log="all"), engine))


Start = Callable[[list[str]], Running]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Running] = []

    def start_one(command: list[str]) -> Running:
        started.append(Running(command))
        return started[-1]

    yield start_one
    for running in started:
        running.process.kill()
        running.process.communicate()


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
