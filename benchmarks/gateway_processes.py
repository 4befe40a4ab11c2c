"""The gateway and its model server as processes, each kept to its own cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.peers import HOST, free_port

_START_S = 60.0


@dataclass(frozen=True)
class GatewayProcesses:
    """They run, and the gateway has heard of the model."""

    url: str
    gateway: psutil.Process
    model_server: psutil.Process
    pinned: bool
    """The gateway has one core, and all others have the rest; False where there is only one, or no way to choose."""


@contextlib.contextmanager
def running_processes(step_ms: float, gateway_flags: Sequence[str] = ()) -> Iterator[GatewayProcesses]:
    """Stopped at the end. This process stays on the cores that the gateway does not have. Raises BenchmarkError."""
    http_port, rpc_port = free_port(), free_port()
    url = f"http://{HOST}:{http_port}"
    api_server = ["prebuilt_apps.openai.api_server", "--port", str(http_port)]
    api_server += ["--model-server", f"tcp://{HOST}:{rpc_port}", "--log-level", "warning", *gateway_flags]
    with contextlib.ExitStack() as stack:
        others, first = _split_cores()
        stack.callback(_pin, others | first)
        # Threads that a process starts, libzmq's too, stay where it was when they began: so it begins there.
        _pin(first)
        gateway = stack.enter_context(_started(api_server))
        _pin(others)
        model_server = stack.enter_context(_started(["benchmarks.free_tokens", str(rpc_port), str(step_ms)]))
        _wait_ready(url, gateway, model_server)
        yield GatewayProcesses(url, gateway, model_server, pinned=others != first)


def _split_cores() -> tuple[set[int], set[int]]:
    if not hasattr(os, "sched_setaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return set(others) or {first}, {first}


def _pin(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def _started(module: list[str]) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", *module]
    # Of a group of its own: Ctrl-C is for this program, which then ends it.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def _wait_ready(url: str, *processes: psutil.Process) -> None:
    until = time.monotonic() + _START_S
    with httpx.Client(trust_env=False, timeout=5.0) as client:  # no proxy leads to this machine
        while time.monotonic() < until:
            if any(process.status() == psutil.STATUS_ZOMBIE for process in processes):
                raise BenchmarkError("A process has ended at its start; see what it has logged above.")
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{url}/readyz").is_success:
                    return
            time.sleep(0.05)
    raise BenchmarkError(f"The gateway was not ready within {_START_S:.0f} s; see what it has logged above.")
