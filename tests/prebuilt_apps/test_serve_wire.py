"""`vfastml serve` over a socket file, and with wire keys."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from prebuilt_apps.cli.wire_folders import WireFolders
from prebuilt_apps.openai.__main__ import main
from tests.e2e.service import free_port, wait_until
from tests.models_servers.started_process import PATIENCE_S, StartedProcess

pytestmark = pytest.mark.rule("S2")


@pytest.mark.parametrize("way", ["socket file", "keys"])
def test_serves(tmp_path: Path, tiny_models: dict[str, Path], way: str) -> None:
    WireFolders(tmp_path / "wire").make("main", ["main"])
    port, rpc_port, path = free_port(), free_port(), tmp_path / "run" / "wire"
    over = {
        "socket file": ["--rpc-ipc", path],
        "keys": ["--rpc-host", "0.0.0.0", "--wire-keys", tmp_path / "wire" / "server-main"],
    }
    model = ["--model-uri", tiny_models["llama"], "--kv-cache-memory", "2MB", "--dtype", "float32"]
    given = [*model, "--port", port, "--no-admin", "--rpc-port", rpc_port, *over[way]]
    with StartedProcess(tmp_path / "log", "prebuilt_apps.openai", *given) as app:
        app.wait_for("Try: curl")
        body = {"prompt": "x", "max_tokens": 2}
        assert httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=60).status_code == 200
        processes = psutil.Process(app.process.pid).children(recursive=True)
        listening = {
            each.laddr.port
            for process in processes
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
        assert listening == ({port} if way == "socket file" else {port, rpc_port})
        app.process.send_signal(signal.SIGINT)
        assert app.status() == 0
        wait_until(lambda: not any(process.is_running() for process in processes), PATIENCE_S, "all are gone")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--rpc-ipc", "/" + "x" * 107], 2, "longer than 107 bytes"),
        (["--wire-keys", "/nowhere"], 2, "there is no folder /nowhere"),
        (["--model-server", "tcp://model:6500"], 2, "would travel in clear text to tcp://model:6500"),
        (["--rpc-host", "0.0.0.0"], None, "give it --wire-keys"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int | None, words: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--port", str(free_port())], prog="vfastml serve")
    said = capsys.readouterr().err if status else str(stop.value.code)
    assert status is None or stop.value.code == status
    assert words in said
