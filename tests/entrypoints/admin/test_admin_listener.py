"""Where the admin listener is, when there is none, and how it ends."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys

import httpx
import pytest

from tests.entrypoints.conftest import Start, eventually
from tests.entrypoints.running_gateway import GRACE_S, PATIENCE_S, REPOSITORY, Call, Running, slow_gateway
from vfastml.entrypoints.admin.admin_address import asks_key, claim_admin
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.listening import bind

API_SERVER = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--model-server", "tcp://127.0.0.1:1"]


def admin_url(running: Running) -> str:
    assert running.process.stdout is not None
    found = re.search(r"http://\S+(?=/metrics)", running.process.stdout.readline())
    assert found
    return found.group()


def two_free_ports() -> int:
    """The first of two neighbours."""
    for _ in range(100):
        with bind("127.0.0.1", 0) as first, contextlib.suppress(OSError):
            port = int(first.getsockname()[1])
            bind("127.0.0.1", port + 1).close()
            return port
    raise AssertionError("there are none")


def refusal(*flags: str) -> str:
    """The one line that a start leaves with."""
    command = [*API_SERVER, "--port", "0", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    return line


def test_it_is_at_the_next_port_and_answers_while_open_requests_are_finished(start: Start) -> None:
    running = start(slow_gateway(GRACE_S))
    url = admin_url(running)
    call = Call(running.url, words=30)
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    assert "vfastml:http_requests_open 1.0" in httpx.get(f"{url}/metrics").text
    with httpx.Client() as kept:  # an idle connection holds up nothing
        kept.get(f"{url}/livez")
        assert "[DONE]" in call.whole_text()
        assert running.exit_code() == 0
    assert "Traceback" not in running.stderr()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/livez")


def test_the_default_port_may_be_taken(start: Start) -> None:
    port = two_free_ports()
    with bind("127.0.0.1", port + 1):
        running = start([*API_SERVER, "--port", str(port)])
        assert httpx.get(f"{running.url}/livez").status_code == 200
        running.signal()
        assert running.exit_code() == 0
    [warning] = [line for line in running.stderr().splitlines() if "WARNING" in line]
    assert f"The admin listener cannot have 127.0.0.1 port {port + 1}: " in warning
    assert "There are no metrics" in warning


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_a_port_that_was_asked_for_must_be_free(workers: list[str]) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        line = refusal("--admin-port", str(port), *workers)
    assert f"The admin listener cannot have 127.0.0.1 port {port}: " in line


@pytest.mark.rule("S3")
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_other_machines_need_an_operators_key(workers: list[str]) -> None:
    line = refusal("--admin-host", "0.0.0.0", "--api-key", "k", *workers)
    assert line == (
        "Refusing the admin listener on 0.0.0.0 without an operator's key: make one with `vfastml keys new NAME "
        "--admin` for the --api-key-file, or say with --insecure that everybody may come in."
    )


def test_none_at_all(start: Start) -> None:
    port = two_free_ports()
    running = start([*API_SERVER, "--port", str(port), "--no-admin"])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port + 1}/livez")
    running.signal()
    assert running.exit_code() == 0
    assert running.process.stdout is not None
    assert "Metrics" not in running.process.stdout.read()


def claimed(config: GatewayConfig, hooks: AdminHooks, main_port: int = 0) -> socket.socket | None:
    return claim_admin(bind, main_port, config, hooks)


def test_with_an_operators_key_it_may_listen_wide_and_asks_for_it() -> None:
    config = GatewayConfig(admin_host="0.0.0.0", admin_port=0)
    listener = claimed(config, AdminHooks(is_admin=lambda _: False))
    assert listener is not None
    listener.close()
    assert asks_key(config)
    assert not asks_key(GatewayConfig())


def test_after_the_last_port_comes_a_free_one() -> None:
    listener = claimed(GatewayConfig(), AdminHooks(), main_port=65535)
    assert listener is not None
    assert listener.getsockname()[1] > 0
    listener.close()
