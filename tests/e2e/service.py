"""A real service for a test: model server and gateway as processes of their own, joined by a real socket."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

READY_S = 240.0
"""Generous: on a busy machine torch alone takes half a minute to load. Only what never comes waits for it."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds until it held. Raises AssertionError, which says what did not come."""
    began, pause_s = time.monotonic(), 0.005
    while not holds():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(pause_s)
        pause_s = min(1.05 * pause_s, 0.1)  # looking takes time from those that it waits for
    return time.monotonic() - began


class Service:
    """One gateway and one model server; either can be stopped and started again."""

    def __init__(
        self,
        log_folder: Path,
        model_args: list[str],
        gateway_args: list[str] | None = None,
        python: Path | str = sys.executable,
    ) -> None:
        self.rpc_port, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=120.0)
        self._logs = log_folder
        self._python = str(python)
        self._model_args = [*model_args, "--rpc-port", str(self.rpc_port)]
        self._gateway_args = ["--port", str(self.port), "--model-server", f"tcp://127.0.0.1:{self.rpc_port}"]
        self._gateway_args += gateway_args or []
        self.model_server: subprocess.Popen[bytes] | None = None
        self.gateway: subprocess.Popen[bytes] | None = None

    @classmethod
    def of_tiny_model(cls, log_folder: Path, model: Path) -> Service:
        """Of that one, under the name `tiny`."""
        arguments = ["--model-uri", str(model), "--served-model-name", "tiny", "--dtype", "float32"]
        return cls(log_folder, [*arguments, "--kv-cache-memory", "20MB"])

    def start_model_server(self) -> None:
        self.model_server = self._start("model_server", self._model_args)

    def start_gateway(self) -> None:
        self.gateway = self._start("api_server", self._gateway_args)

    def start(self) -> Service:
        self.start_gateway()
        self.start_model_server()
        return self.wait_ready()

    def wait_ready(self) -> Service:
        try:
            wait_until(self._is_ready, READY_S, "ready")
        except AssertionError as error:
            error.add_note(self.log("model_server"))
            raise
        return self

    def _is_ready(self) -> bool:
        for process in (self.gateway, self.model_server):
            assert process is None or process.poll() is None, f"ended with status {process.returncode}: {process.args}"
        return self.status("/readyz") == 200

    def stop(self) -> None:
        self.http.close()
        for process in (self.gateway, self.model_server):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(10)

    def status(self, path: str) -> int:
        """HTTP status of a GET; 0 if nobody listens."""
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            return 0

    def load(self) -> dict[str, Any]:
        return self.http.get("/load").json()

    def all_free(self) -> bool:
        load = self.load()
        return load["free_blocks"] == load["total_blocks"] and not load["open_requests"] and not load["running"]

    def chat(self, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=fields)

    def openai(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="unused", **options)

    def async_openai(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", **options)

    def log(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def _start(self, name: str, args: list[str]) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log:
            command = [self._python, "-m", f"prebuilt_apps.openai.{name}", *args]
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    """Starts it, and checks at the end that nothing is left open in it."""
    try:
        yield service.start()
        wait_until(service.all_free, 10.0, f"every block free and no request open: {service.load()}")
    finally:
        service.stop()
