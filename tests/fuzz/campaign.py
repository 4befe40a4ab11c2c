"""One run of the program: a service of real processes, all cases sent to it, and what is asked of it at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from tests.e2e.service import READY_S, Service, wait_until
from tests.fuzz.findings import Findings
from tests.fuzz.http_cases import MODEL
from tests.fuzz.http_worker import HttpWorker
from tests.fuzz.watched_process import WatchedProcess
from tests.fuzz.wire_peers import WrongGateway, WrongServer

_HTTP_WORKERS = 8
_PARTS = 10
"""Of ten cases seven go to the gateway as HTTP, two to the model server, and one to the gateway from the wire."""
_HTTP_PARTS = 7
_WARM_UP_SEED = -1
_MOST_WARM_UP = 2000
_IDLE_S = 60.0
_MOST_LINES = 90
"""Of a traceback."""
_FLAGS = ("--dtype", "float32", "--kv-cache-memory", "20MB", "--max-model-len", "128", "--max-num-seqs", "16")


class Campaign:
    """`told` is called now and then with how many cases are over."""

    def __init__(self, model: Path, folder: Path, told: Callable[[int], None]) -> None:
        self.findings = Findings()
        self.watched: list[WatchedProcess] = []
        self._model = model
        self._folder = folder
        self._told = told

    def run(self, seed: int, numbers: range) -> None:
        """Sends those cases, and fills `findings` and `watched`."""
        asyncio.run(self._run(seed, numbers))

    async def _run(self, seed: int, numbers: range) -> None:
        liar = WrongServer(self.findings)
        flags = ["--model-uri", str(self._model), "--served-model-name", MODEL, *_FLAGS]
        service = Service(self._folder, flags, ["--access-log", "off", "--model-server", liar.endpoint])
        try:
            await asyncio.to_thread(_start, service)
            before = await asyncio.to_thread(_answer, service)
            await self._send_all(service, liar, _WARM_UP_SEED, range(min(len(numbers), _MOST_WARM_UP)))
            self.findings.counts.clear()
            await asyncio.to_thread(self._wait_idle, service)
            self.watched = _watch(service)
            telling = asyncio.create_task(self._tell())
            await self._send_all(service, liar, seed, numbers)
            telling.cancel()
            await asyncio.to_thread(self._check, service, before)
        finally:
            liar.close()
            service.stop()

    async def _send_all(self, service: Service, liar: WrongServer, seed: int, numbers: range) -> None:
        http = [number for number in numbers if number % _PARTS < _HTTP_PARTS]
        workers = [HttpWorker(service.port, self.findings) for _ in range(_HTTP_WORKERS)]
        shared = iter(http)
        sends = [worker.send_all(seed, shared) for worker in workers]
        to_server = [number for number in numbers if _HTTP_PARTS <= number % _PARTS < _PARTS - 1]
        sends.append(WrongGateway(service.rpc_port, self.findings).send_all(seed, to_server))
        sends.append(liar.send_all(seed, [number for number in numbers if number % _PARTS == _PARTS - 1]))
        await asyncio.gather(*sends)

    async def _tell(self) -> None:
        while True:
            self._told(self.findings.counts.total())
            await asyncio.sleep(0.5)

    def _check(self, service: Service, before: str) -> None:
        self._wait_idle(service)
        for process in self.watched:
            process.look()
        alive = [process.is_alive() for process in self.watched]
        if all(alive) and _answer(service) != before:
            self.findings.add("the same question has another answer than before")
        tracebacks = {name: _traceback(service.log(_LOGS[name])) for name in ("gateway", "model server")}
        for problem in chain(*(process.problems() for process in self.watched)):
            self.findings.add(problem)
        for name, lines in tracebacks.items():
            if lines:
                self.findings.add(f"there is a traceback in the log of the {name}:\n{lines}")

    def _wait_idle(self, service: Service) -> None:
        until = time.monotonic() + _IDLE_S
        while not _is_idle(service):
            if time.monotonic() > until:
                self.findings.add(f"not idle after {_IDLE_S:.0f} s: {_server(service)}")
                return
            time.sleep(0.05)


_LOGS = {"gateway": "api_server", "model server": "model_server"}


def _start(service: Service) -> None:
    # The wrong server would do for /readyz.
    service.start()
    wait_until(lambda: _server(service)["state"] == "live", READY_S, "the model server is there")


def _watch(service: Service) -> list[WatchedProcess]:
    assert service.gateway is not None
    assert service.model_server is not None
    return [WatchedProcess("gateway", service.gateway), WatchedProcess("model server", service.model_server)]


def _answer(service: Service) -> str:
    """What the model says to one question, the same for ever."""
    reply = service.http.post(
        "/v1/completions", json={"model": MODEL, "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
    )
    return str(reply.json())[-400:] if reply.status_code != 200 else reply.json()["choices"][0]["text"]


def _server(service: Service) -> dict[str, Any]:
    """What /load has of the real model server: the other one says anything."""
    servers: list[dict[str, Any]] = service.load()["servers"]
    return next(server for server in servers if str(server["endpoint"]).endswith(f":{service.rpc_port}"))


def _is_idle(service: Service) -> bool:
    load = _server(service)["load"]
    return load["free_blocks"] == load["total_blocks"] and not load["open_requests"] and not load["running"]


def _traceback(log: str) -> str:
    """The first one in a log."""
    _, begin, rest = log.partition("Traceback")
    return "\n".join((begin + rest).splitlines()[:_MOST_LINES])
