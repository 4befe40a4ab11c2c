"""Two model servers and a gateway, with a proxy on every way between them and to their clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.downtime import Downtime
from tests.chaos.ports import lasting_ports
from tests.chaos.processes import ServiceProcess
from tests.chaos.proxy import ChaosProxy

_START_S = 90.0
_LOOK_AGAIN_S = 0.05

SIZES = ("--max-model-len", "1024", "--kv-cache-memory", "1MB")
"""Some 2,700 tokens of cache: a few long answers preempt each other."""


class Fleet:
    """All that runs, from `start` to `stop`. A model server `i` is reached through `wires[i]`, the gateway at `url`,
    and through `clients_way` at `far_url`."""

    def __init__(self, model: Path, folder: Path, *, servers: int = 2) -> None:
        self.port, *self.rpc_ports = lasting_ports(1 + servers)
        self.url = f"http://127.0.0.1:{self.port}"
        self.wires = [ChaosProxy(port) for port in self.rpc_ports]
        self.clients_way = ChaosProxy(self.port)
        self.gateway_downtime = Downtime()
        """When the gateway was being killed, ended or started."""
        self._folder = folder
        self._http = httpx.AsyncClient(base_url=self.url, timeout=10.0, trust_env=False)
        common = ["--model-uri", str(model), "--served-model-name", "tiny", "--dtype", "float32", *SIZES]
        self.servers = [
            ServiceProcess(
                f"model_server_{number}",
                ["prebuilt_apps.openai.model_server", *common, "--rpc-port", str(port)],
                folder,
            )
            for number, port in enumerate(self.rpc_ports)
        ]
        self.gateway = ServiceProcess("gateway", [], folder)

    @property
    def far_url(self) -> str:
        """Where clients find the gateway behind a network that may be bad."""
        return f"http://127.0.0.1:{self.clients_way.port}"

    @property
    def processes(self) -> list[ServiceProcess]:
        """The gateway, then the model servers."""
        return [self.gateway, *self.servers]

    async def start(self) -> None:
        """All of it. Raises TimeoutError if it does not become ready."""
        for proxy in (*self.wires, self.clients_way):
            await proxy.open()
        ways = [word for wire in self.wires for word in ("--model-server", f"tcp://127.0.0.1:{wire.port}")]
        arguments = ["prebuilt_apps.openai.api_server", "--port", str(self.port), *ways]
        self.gateway = ServiceProcess("gateway", arguments, self._folder)
        for process in self.processes:
            process.start()
        await self.wait_ready()

    async def stop(self) -> None:
        """Kills what runs."""
        for process in self.processes:
            process.kill()
        for proxy in (*self.wires, self.clients_way):
            await proxy.close()
        await self._http.aclose()

    async def wait_ready(self, timeout_s: float = _START_S) -> float:
        """Seconds until every model server lives. Raises TimeoutError."""
        began = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while not await self._all_live():
                await asyncio.sleep(_LOOK_AGAIN_S)
        return time.monotonic() - began

    async def wait_gateway(self) -> None:
        """Until it answers at all. Raises TimeoutError."""
        async with asyncio.timeout(_START_S):
            while await self.load() is None:
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def wait_idle(self, timeout_s: float) -> dict[str, Any]:
        """What /load says when nothing is open and every block is free. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while (load := await self.load()) is None or not _is_idle(load):
                await asyncio.sleep(_LOOK_AGAIN_S)
        return load

    async def load(self) -> dict[str, Any] | None:
        """What /load says; None if nobody does."""
        with contextlib.suppress(httpx.HTTPError):
            return dict((await self._http.get("/load")).json())
        return None

    async def _all_live(self) -> bool:
        load = await self.load()
        return load is not None and all(server["state"] == "live" for server in load["servers"])


def _is_idle(load: dict[str, Any]) -> bool:
    busy = (load["open_requests"], load["running"], load["waiting"])
    servers = [server["load"] for server in load["servers"]]
    return not any(busy) and all(not s["open_requests"] and s["free_blocks"] == s["total_blocks"] for s in servers)
