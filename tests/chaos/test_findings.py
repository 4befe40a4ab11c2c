"""What chaos has found, each as small as it could be made."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest
import zmq

from tests.chaos.ports import lasting_ports
from tests.chaos.processes import ServiceProcess
from tests.e2e.service import wait_until
from tests.models_servers.started_process import StartedProcess
from vfastml.engine.server_connection import ServerConnection


class Connected(asyncio.Event):
    """A listener that waits for one event."""

    def on_connected(self, endpoint: str) -> None:
        self.set()

    def on_frame(self, endpoint: str, frame: bytes) -> None: ...

    def on_disconnected(self, endpoint: str) -> None: ...

    def on_refused(self, endpoint: str, failure: object) -> None: ...


@pytest.mark.parametrize("garbage", [b"", b"\x10 is a length to ZMTP 1.0"])
async def test_a_handshake_that_never_ends_is_begun_again(garbage: bytes) -> None:
    tries = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (tries[1] if tries[0].is_set() else tries[0]).set()
        writer.write(garbage)
        await reader.read(-1)  # and says nothing more
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with zmq.Context() as context:
        connection = ServerConnection(context, endpoint, "gateway", Connected())
        connection.open()
        try:
            await asyncio.wait_for(tries[1].wait(), 20)
        finally:
            connection.close()
            server.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_a_gateway_starts_with_its_output_on_a_full_disk(tmp_path: Path) -> None:
    [port] = lasting_ports(1)
    gateway = ServiceProcess("gateway", ["prebuilt_apps.openai.api_server", "--port", str(port)], tmp_path)
    gateway.start(on_full_disk=True)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/livez"), 30, "the gateway answers")
        assert gateway.broke() is None
    finally:
        gateway.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_an_import_swallows_ends_a_model_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: signal.Signals
) -> None:
    # Seed 1, 600 seconds: numpy was left half imported, and the process broke or went on to serve.
    lines = "import time", "try:", "    print('importing', flush=True)", "    time.sleep(60)", "except BaseException:"
    (tmp_path / "torch.py").write_text("\n".join([*lines, "    pass", "raise RuntimeError('half imported')"]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with StartedProcess(tmp_path / "log", "prebuilt_apps.openai.model_server") as server:
        server.wait_for("importing")
        server.process.send_signal(stop)
        assert server.status() == 0
        assert "Traceback" not in server.output
