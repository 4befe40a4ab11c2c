"""Keys of a running service: real processes, the command line, and OpenAI's own client."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.service import free_port, wait_until
from tests.entrypoints.conftest import Start
from tests.entrypoints.running_gateway import PATIENCE_S, REPOSITORY, Running

ENOUGH = 40
"""New connections, of which each worker of two then has some."""


@pytest.fixture
def model_server() -> Iterator[str]:
    """Where one listens that accepts whatever comes, and never says anything."""
    port = free_port()
    command = [sys.executable, "-m", "tests.models_servers.stub_server", "Silent", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    yield f"tcp://127.0.0.1:{port}"
    process.kill()
    process.wait()


def keys(file: Path, *arguments: str) -> str:
    """What `vfastml keys` prints."""
    command = [sys.executable, "-m", "prebuilt_apps.cli", "keys", *arguments, "--file", str(file)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


def gateway(start: Start, file: Path, model_server: str) -> Running:
    """Two processes of it."""
    command = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0", "--workers", "2"]
    running = start([*command, "--model-server", model_server, "--api-key-file", str(file)])
    wait_until(lambda: httpx.get(f"{running.url}/readyz").status_code == 200, PATIENCE_S, "ready")
    return running


def statuses(running: Running, key: str, count: int = ENOUGH) -> list[int]:
    """Of so many requests, each on a connection of its own."""
    return [_status(running, key) for _ in range(count)]


def client_of(running: Running, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S)


class Asking(threading.Thread):
    """A request that is never answered, until something else becomes of it."""

    def __init__(self, client: openai.OpenAI, *, stream: bool) -> None:
        super().__init__()
        self.client = client
        self.stream = stream
        self.begun = threading.Event()
        self.error: openai.APIError | None = None
        self.start()

    def run(self) -> None:
        messages = [{"role": "user", "content": "hi"}]
        try:
            answer = self.client.chat.completions.create(model="stub", messages=messages, stream=self.stream)  # type: ignore[call-overload]
            self.begun.set()
            for _ in answer:
                raise AssertionError("it said something")
        except openai.APIError as error:
            self.error = error


@pytest.mark.rule("S3")
def test_a_key_is_revoked_and_another_one_made(start: Start, model_server: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    old, others = keys(file, "new", "ann"), keys(file, "new", "carl")
    running = gateway(start, file, model_server)
    assert statuses(running, old) == [200] * ENOUGH
    with client_of(running, old) as client:
        streamed, whole = Asking(client, stream=True), Asking(client, stream=False)
        assert streamed.begun.wait(PATIENCE_S)
        wait_until(lambda: _open_requests(running, others) >= 2, PATIENCE_S, "both are open")
        keys(file, "revoke", "ann")
        new = keys(file, "new", "ann")
        for asking in (streamed, whole):
            asking.join(PATIENCE_S)
            assert asking.error is not None
            assert asking.error.code == "invalid_api_key"
        assert isinstance(whole.error, openai.AuthenticationError)
        wait_until(lambda: statuses(running, old) == [401] * ENOUGH, PATIENCE_S, "it opens nothing any more")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    wait_until(lambda: statuses(running, new) == [200] * ENOUGH, PATIENCE_S, "the new one opens")
    assert statuses(running, others) == [200] * ENOUGH, "others notice nothing"
    with client_of(running, new) as client:
        assert [model.id for model in client.models.list()] == ["stub"]


def test_workers_hold_a_key_to_one_limit(start: Start, model_server: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = keys(file, "new", "ann", "--requests-per-minute", "2")
    found = statuses(gateway(start, file, model_server), key)
    # One more for each half minute that all this takes; were each process to count alone there would be four.
    assert found.count(200) in (2, 3)
    assert found.count(429) == ENOUGH - found.count(200)


def _status(running: Running, key: str) -> int:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
        return connection.getresponse().status


def _open_requests(running: Running, key: str) -> int:
    """In the model server."""
    headers = {"authorization": f"Bearer {key}"}
    load = httpx.get(f"{running.url}/load", headers=headers).json()
    return sum(server["load"]["open_requests"] for server in load["servers"])


def test_each_process_logs_that_others_can_read_keys(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k1\n")
    file.chmod(0o644)
    command = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0", "--workers", "2"]
    running = start([*command, "--log-format", "json", "--api-key-file", str(file)])
    running.signal()
    assert running.exit_code() == 0
    lines = [json.loads(line) for line in running.stderr().splitlines()]
    warned = [line["process"] for line in lines if "chmod o-r" in line["message"]]
    assert warned.count("supervisor") == 1
    assert warned.count("gateway") >= 1
