"""Model servers and gateways as processes of their own: what is open to whom."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI

from prebuilt_apps.cli import health
from prebuilt_apps.cli.wire_folders import WireFolders
from tests.e2e.service import free_port, wait_until
from tests.models_servers.started_process import PATIENCE_S, StartedProcess

pytestmark = pytest.mark.rule("S2")

STUB = "tests.models_servers.stub_server"
GATEWAY = "prebuilt_apps.openai.api_server"


@contextmanager
def gateway(log: Path, endpoint: str, *arguments: object) -> Iterator[str]:
    """Its url."""
    port = free_port()
    with StartedProcess(log, GATEWAY, "--port", port, "--model-server", endpoint, *arguments) as process:
        process.wait_for("listens on")
        yield f"http://127.0.0.1:{port}"


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz").status_code == 200


def answers(url: str) -> str:
    wait_until(lambda: is_ready(url), PATIENCE_S, "ready")
    with OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        return client.completions.create(model="stub", prompt="x").choices[0].text


def phase(url: str) -> str:
    return str(httpx.get(f"{url}/startupz").json().get("phase"))


def listening(process: StartedProcess) -> list[int]:
    connections = psutil.Process(process.process.pid).net_connections("tcp")
    return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]


def test_nothing_listens_beyond_this_machine_without_keys(tmp_path: Path) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, "Late", port, "rpc_host=0.0.0.0") as server:
        assert server.status() == 1
    assert "other machines can reach 0.0.0.0: give it --wire-keys" in server.output
    assert "listens on" not in server.output
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_prompts_do_not_travel_in_clear_text_by_accident(tmp_path: Path) -> None:
    for endpoint in ("tcp://model:6500", "tcp://10.0.0.7:6500"):
        with StartedProcess(tmp_path / "log", GATEWAY, "--port", free_port(), "--model-server", endpoint) as process:
            assert process.status() == 2
        assert f"prompts would travel in clear text to {endpoint}" in process.output
        assert process.output.count("\n") == 1


def test_keys_come_and_go_while_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders, port = WireFolders(tmp_path), free_port()
    folders.make("main", ["bob"])
    shutil.copytree(tmp_path / "server-main", tmp_path / "in-use")
    folders.make("main", ["ann"])
    server_keys, endpoint = f"wire_keys={tmp_path / 'in-use'}", f"tcp://127.0.0.1:{port}"
    with (
        StartedProcess(tmp_path / "server.log", STUB, "Late", port, server_keys, "rpc_host=0.0.0.0") as server,
        gateway(tmp_path / "ann.log", endpoint, "--wire-keys", tmp_path / "gateway-ann") as ann,
        gateway(tmp_path / "bob.log", endpoint, "--wire-keys", tmp_path / "gateway-bob", "--workers", 2) as bob,
        gateway(tmp_path / "nobody.log", endpoint) as nobody,
    ):
        server.wait_for("listens on tcp://0.0.0.0")
        assert answers(bob) == "late"
        wait_until(lambda: phase(ann) == "a model server does not know this gateway's key", PATIENCE_S, "ann's phase")
        assert "put its gateway-NAME.key into the folder" in (tmp_path / "ann.log").read_text()
        wait_until(lambda: phase(nobody) == "a model server asks for wire keys", PATIENCE_S, "the phase without keys")
        assert "its key is none of those" in server.output

        shutil.copy(tmp_path / "server-main" / "gateway-ann.key", tmp_path / "in-use")
        assert answers(ann) == "late"
        (tmp_path / "in-use" / "gateway-bob.key").unlink()
        wait_until(lambda: not is_ready(bob), PATIENCE_S, "bob is out")
        assert answers(ann) == "late"
        assert not is_ready(nobody)

        asked = ["--model-server", endpoint, "--timeout", "60", "--wire-keys"]
        assert health.main([*asked, str(tmp_path / "in-use")]) == 0
        asked[3] = "3"
        assert health.main([*asked, str(tmp_path / "gateway-bob")]) == 1
        assert "does not know this gateway's key" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["empty", "readable", "malformed", "missing"])
def test_bad_keys_end_the_start_in_one_sentence(tmp_path: Path, spoil: str) -> None:
    WireFolders(tmp_path).make("main", ["main"])
    folder, port = tmp_path / "server-main", free_port()
    secret = folder / "server.key_secret"
    match spoil:
        case "empty":
            (folder / "gateway-main.key").unlink()
        case "readable":
            secret.chmod(0o644)
        case "malformed":
            secret.write_text("nonsense")
        case "missing":
            shutil.rmtree(folder)
    with StartedProcess(tmp_path / "log", STUB, "Late", port, f"wire_keys={folder}") as server:
        assert server.status() == 1
    [line] = server.output.splitlines()
    assert str(folder) in line


def test_a_socket_file_opens_no_port(tmp_path: Path) -> None:
    path = tmp_path / "run" / "wire"
    with StartedProcess(tmp_path / "server.log", STUB, "Late", 0, f"rpc_ipc={path}") as server:
        server.wait_for(f"listens on ipc://{path}")
        assert listening(server) == []
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with gateway(tmp_path / "gateway.log", f"ipc://{path}") as url:
            assert answers(url) == "late"
            with StartedProcess(tmp_path / "second.log", STUB, "Late", 0, f"rpc_ipc={path}") as second:
                assert second.status() == 1
            assert f"another model server listens on {path}" in second.output
            assert answers(url) == "late"

            server.process.kill()
            wait_until(lambda: not is_ready(url), PATIENCE_S, "the loss is noticed")
            with StartedProcess(tmp_path / "third.log", STUB, "Late", 0, f"rpc_ipc={path}"):
                assert answers(url) == "late"
