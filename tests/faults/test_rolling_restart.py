"""Two model servers behind one gateway are restarted in turn, as an operator would, while clients go on asking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import READY_S, Service
from tests.faults.streams import DONE, client_of, stream_to_its_end
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

CLIENTS = 12
ROUNDS = 2
MODEL = ["--served-model-name", "tiny", "--dtype", "float32", "--kv-cache-memory", "20MB"]


@pytest.fixture
def pair(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    """A whole service, whose gateway knows a second model server with the same model; and the service of that one."""
    services: list[Service] = []
    try:
        for name in ("second", "first"):
            folder = tmp_path / name
            folder.mkdir()
            beside = [f"--model-server=tcp://127.0.0.1:{services[0].rpc_port}"] if services else []
            services.append(Service(folder, ["--model-uri", str(tiny_models["llama"]), *MODEL], beside))
            services[-1].start_model_server()
        services[1].start_gateway()
        services[1].wait_ready()
        yield services[1], services[0]
    finally:
        for service in services:
            service.stop()


class Load:
    """Clients that each ask for one answer after the other, in turns streamed and whole, and never ask twice."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._asked = 0
        self._stopping = False
        self.answers = 0
        self.errors: list[str] = []

    async def run(self) -> None:
        await asyncio.gather(*(self._one_client() for _ in range(CLIENTS)))

    def stop(self) -> None:
        """Nothing more is asked."""
        self._stopping = True

    async def _one_client(self) -> None:
        while not self._stopping:
            self._asked += 1
            try:
                await self._ask(self._asked)
            except httpx.TransportError as error:
                self.errors.append(type(error).__name__)

    async def _ask(self, number: int) -> None:
        streamed = bool(number % 2)
        end = await stream_to_its_end(self._client, prompt=f"question {number}", max_tokens=100, stream=streamed)
        whole = end.event == DONE if streamed else end.status == 200 and not end.error_code
        self.answers += whole
        if not whole:
            self.errors.append(str(end.event)[:200])


async def both_live(client: httpx.AsyncClient) -> float:
    """Seconds until the gateway had two servers to choose from."""
    began = time.monotonic()
    async with asyncio.timeout(READY_S):
        while [server["state"] for server in (await client.get("/load")).json()["servers"]] != ["live", "live"]:
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def restart(service: Service) -> None:
    """SIGTERM, its end, and a new process on the same port."""
    assert service.model_server is not None
    service.model_server.terminate()
    assert await asyncio.to_thread(service.model_server.wait, 30) == 0
    service.start_model_server()


def test_rolling_restart(pair: tuple[Service, Service], faults: FaultTable) -> None:
    async def run() -> tuple[int, list[str]]:
        async with client_of(pair[0].url) as client:
            load = Load(client)
            await both_live(client)
            asking = asyncio.create_task(load.run())
            await asyncio.sleep(1.0)
            for service in pair * ROUNDS:
                await restart(service)
                await both_live(client)
            load.stop()
            await asking
            return load.answers, load.errors

    answers, errors = asyncio.run(asyncio.wait_for(run(), 240))
    faults.shows("F15", f"{2 * ROUNDS} restarts under {CLIENTS} clients: {len(errors)} errors in {answers} answers")
    assert errors == []
    assert answers > 100
