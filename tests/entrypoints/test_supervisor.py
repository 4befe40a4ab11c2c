"""Several gateways on one port: who answers, who is replaced, and how they end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.entrypoints.conftest import Start, eventually
from tests.entrypoints.running_gateway import GRACE_S, PATIENCE_S, REPOSITORY, Call, Running, livez
from tests.entrypoints.slow_workers import COMMAND
from vfastml.entrypoints import supervisor
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.listening import bind, join, reserve
from vfastml.entrypoints.supervisor import run_workers

ENOUGH = 60
"""New connections, of which each worker of three then has some, but for one time in ten thousand million."""


def slow_workers(drain_timeout_s: float, count: int = 2) -> list[str]:
    return [*COMMAND, str(drain_timeout_s), str(count)]


def workers_of(running: Running) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children()


def open_streams(running: Running, count: int) -> list[Call]:
    """Their clients, once all workers serve."""
    eventually(lambda: len(listening(running)) == count)
    return [Call(running.url, words=40) for _ in range(8)]


def listening(running: Running) -> list[psutil.Process]:
    """The workers that take connections of clients."""
    port = int(running.url.rpartition(":")[2])
    found = []
    for worker in workers_of(running):
        with contextlib.suppress(psutil.NoSuchProcess):
            listeners = [each for each in worker.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
            found += [worker for each in listeners if each.laddr.port == port]
    return found


def connected(url: str) -> http.client.HTTPConnection:
    """A new connection that has had an answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("GET", "/livez")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b'{"status":"alive"}')
    return connection


def test_new_connections_are_spread_over_all_workers(start: Start) -> None:
    running = start(slow_workers(drain_timeout_s=5, count=3))
    eventually(lambda: len(listening(running)) == 3)
    with contextlib.ExitStack() as stack:
        for _ in range(ENOUGH):
            stack.enter_context(contextlib.closing(connected(running.url)))
        for worker in workers_of(running):
            assert [each for each in worker.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
    running.signal()
    assert running.exit_code() == 0
    assert running.process.stdout is not None
    said = running.greeting + running.process.stdout.read()
    assert [line.partition(" http")[0] for line in said.splitlines()] == [
        "VFastML listens on",
        "Metrics for Prometheus are at",
        "Try: curl",
    ]


def test_a_killed_worker_is_replaced_while_the_others_serve(start: Start) -> None:
    running = start(slow_workers(drain_timeout_s=5))
    eventually(lambda: len(listening(running)) == 2)
    victim, other = workers_of(running)
    victim.kill()
    eventually(lambda: victim not in workers_of(running))
    for _ in range(ENOUGH):
        connected(running.url).close()
    eventually(lambda: len(listening(running)) == 2)
    assert other in workers_of(running)
    running.signal()
    assert running.exit_code() == 0
    errors = [line for line in running.stderr().splitlines() if " ERROR " in line]
    assert [line.partition(": ")[2] for line in errors] == [f"worker {victim.pid} has ended with status 137"]


def test_each_worker_finishes_its_streams(start: Start) -> None:
    running = start(slow_workers(GRACE_S))
    calls = open_streams(running, 2)
    workers = workers_of(running)
    running.signal()
    eventually(lambda: httpx.post(f"{running.url}/v1/completions", json={"prompt": "x"}).status_code == 503)
    for call in calls:
        assert call.whole_text().endswith("data: [DONE]\n\n")
    assert running.exit_code() == 0
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in running.stderr()


def test_a_second_signal_ends_them_now(start: Start) -> None:
    running = start(slow_workers(GRACE_S))
    call = Call(running.url, words=1000)
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    signalled_at = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.exit_code() == 0
    assert time.monotonic() - signalled_at < GRACE_S
    assert '{"error":' in call.whole_text()


def test_a_killed_supervisor_leaves_nobody_on_the_port(start: Start) -> None:
    running = start(slow_workers(drain_timeout_s=20))
    call = Call(running.url, words=1000)
    workers = workers_of(running)
    running.process.kill()
    running.exit_code()
    assert '{"error":' in call.whole_text()
    eventually(lambda: not any(worker.is_running() for worker in workers))
    assert not livez(running.url)
    assert "The supervisor has gone" in running.stderr()


def test_signal_during_the_start_is_no_failure() -> None:
    process = subprocess.Popen(slow_workers(drain_timeout_s=20), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    eventually(lambda: psutil.Process(process.pid).children())
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0


def assert_taken(port: int) -> None:
    for how in (bind, reserve):
        with pytest.raises(OSError, match="in use"):
            how("127.0.0.1", port)


def test_a_reserved_port_is_for_those_that_join() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert_taken(port)
        for _ in range(2):
            with join("127.0.0.1", port), join("127.0.0.1", port):
                assert_taken(port)
            assert_taken(port)
    with bind("127.0.0.1", port), pytest.raises(OSError, match="in use"):
        join("127.0.0.1", port)


def run(code: str, count: int = 2, drain_timeout_s: float = 30.0) -> int:
    """The status of a supervisor whose workers are this code."""
    config = GatewayConfig(drain_timeout_s=drain_timeout_s)
    return run_workers([sys.executable, "-c", code], count, "test", config, "127.0.0.1", 0)


def test_a_first_worker_that_cannot_start_is_the_end(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    assert run(f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(7)", count=3) == 7
    assert starts.read_text() == "x"
    assert run("import os; os.kill(os.getpid(), 9)") == 137


def test_without_its_command_nothing_starts(caplog: pytest.LogCaptureFixture) -> None:
    assert run_workers(["/nowhere/python"], 2, "test", GatewayConfig(), "127.0.0.1", 0) == 1
    assert "cannot start a worker: No such file" in caplog.text


SERVING = "import os, signal, time; os.write(0, b's'); "


def test_workers_that_end_again_and_again_are_replaced_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(_: supervisor.Supervisor, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(supervisor.Supervisor, "_pause", pause)
    assert run(SERVING + "raise SystemExit(3)", count=1) == 0
    assert pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_worker_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_PATIENCE_S", 0.3)
    up = tmp_path / "up"
    deaf = f"signal.signal(15, signal.SIG_IGN); open({str(up)!r}, 'w'); time.sleep(60)"

    def stop() -> None:
        eventually(up.exists)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert run(SERVING + deaf, count=1, drain_timeout_s=0.1) == 0
    stopping.join()
    assert "does not end: it is killed" in caplog.text


def test_a_worker_is_nothing_to_start_by_hand() -> None:
    command = [sys.executable, "-m", "prebuilt_apps.openai.gateway_worker"]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "This is a part of a gateway with --workers: start that.\n")
