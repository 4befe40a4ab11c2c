"""`vfastml health`, of a gateway and of a model server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from prebuilt_apps.cli.__main__ import main
from prebuilt_apps.cli.health import build_parser
from tests.e2e.service import Service, free_port
from tests.engine.fake_server import FakeServer
from tests.prebuilt_apps.scripted_server import ScriptedServer
from vfastml.engine.dispatch_replies import Status
from vfastml.engine.wire import PROTOCOL


def outcome(capsys: Any, *arguments: str) -> tuple[int, str]:
    """Status, and the one line that was said."""
    status = main(["health", *arguments])
    said = capsys.readouterr()
    [line] = (said.out + said.err).splitlines()
    assert bool(said.out) == (status == 0)
    return status, line


def test_ready_service(builtin_service: Service, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(capsys, "--url", builtin_service.url) == (0, "ready")
    assert outcome(capsys, "--model-server", f"tcp://127.0.0.1:{builtin_service.rpc_port}") == (0, "ready")
    # As in their containers, where the variables say where they listen.
    monkeypatch.setenv("VFASTML_PORT_NUMBER", str(builtin_service.port))
    monkeypatch.setenv("VFASTML_RPC_PORT_NUMBER", str(builtin_service.rpc_port))
    monkeypatch.setenv("VFASTML_MODEL_SERVER", "tcp://127.0.0.1:1")
    assert outcome(capsys) == (0, "ready")
    assert outcome(capsys, "--model-server") == (0, "ready")


def test_nobody_there(capsys: Any) -> None:
    status, line = outcome(capsys, "--url", f"http://127.0.0.1:{free_port()}")
    assert (status, "Nothing answers" in line, "--url" in line, "--model-server" in line) == (1, True, True, True)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    status, line = outcome(capsys, "--timeout", "0.3", "--model-server", endpoint)
    assert (status, line) == (
        1,
        f"vfastml health: no model server answers at {endpoint}: say with --model-server where one does",
    )


def test_a_url_that_no_request_can_have(capsys: Any) -> None:
    status, line = outcome(capsys, "--url", "http://xn--/")
    assert (status, "cannot be asked" in line) == (1, True)


@pytest.mark.parametrize("port", ["²", "٣", "tcp://10.0.0.1:80", "9" * 5000, "%d", "0"])
def test_ports_that_no_server_here_can_have(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("VFASTML_PORT_NUMBER", port)
    monkeypatch.setenv("VFASTML_RPC_PORT_NUMBER", port)
    text = build_parser().format_help()
    assert "(default: http://127.0.0.1:8080)" in " ".join(text.split())
    assert "tcp://127.0.0.1:6500" in text


@pytest.mark.parametrize(
    ("readyz", "startupz", "why"),
    [
        ("not_ready", {"status": "starting", "phase": "loading weights", "progress": 0.4}, "loading weights (40%)"),
        ("not_ready", {"status": "starting", "phase": "warming up", "progress": None}, "warming up"),
        ("not_ready", {"status": "started"}, "a model has no live model server"),
        ("draining", {"status": "started"}, "the gateway is draining"),
    ],
)
def test_gateway_that_is_not_ready(
    server: ScriptedServer, capsys: Any, readyz: str, startupz: dict[str, Any], why: str
) -> None:
    server.bodies_by_path["/readyz"] = 503, json.dumps({"status": readyz}).encode()
    server.bodies_by_path["/startupz"] = 503, json.dumps(startupz).encode()
    assert outcome(capsys, "--url", server.url) == (1, f"vfastml health: not ready: {why}")


def test_something_else_at_the_url(server: ScriptedServer, capsys: Any) -> None:
    server.status = 404
    assert "404" in outcome(capsys, "--url", server.url)[1]


class HungServer(FakeServer):
    """Says Hello, and that its step takes long."""

    def hello(self) -> Any:
        self.broadcast(Status("ready", step_age_s=45.0))
        return super().hello()


async def test_a_long_step_may_be_allowed(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFASTML_MAX_STEP", "60")
    server = HungServer()
    try:
        assert await asyncio.to_thread(outcome, capsys, "--model-server", server.endpoint) == (0, "ready")
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: FakeServer(loading=True), "loading weights (50%)"),
        (lambda: FakeServer(protocol=PROTOCOL + 1), "the model server is incompatible"),
        (HungServer, "the model server hangs in a step since 45 s"),
    ],
)
async def test_model_server_that_is_not_ready(make: Callable[[], FakeServer], why: str, capsys: Any) -> None:
    server = make()
    try:
        arguments = ("--timeout", "0.5", "--model-server", server.endpoint)
        status, line = await asyncio.to_thread(outcome, capsys, *arguments)
    finally:
        await server.stop()
    assert (status, line) == (1, f"vfastml health: not ready: {why}")
