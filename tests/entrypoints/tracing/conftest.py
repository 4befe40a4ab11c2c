from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.engine.fake_server import FakeServer
from tests.entrypoints.running_gateway import Running
from tests.entrypoints.tracing.collector import Collector, collecting
from tests.entrypoints.tracing.marking_server import tell_all

KEY = "key-canary"
GATEWAY = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0"]

StartGateway = Callable[..., Running]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    server = FakeServer(answer=tell_all)
    yield server
    await server.stop()


@pytest.fixture
def start_gateway(server: FakeServer) -> Iterator[StartGateway]:
    """Starts gateways of that model server, as processes, with these flags."""
    started: list[Running] = []

    def start_one(*flags: str) -> Running:
        started.append(Running([*GATEWAY, "--model-server", server.endpoint, "--api-key", KEY, *flags]))
        return started[-1]

    yield start_one
    for running in started:
        running.process.kill()
        running.process.communicate()
