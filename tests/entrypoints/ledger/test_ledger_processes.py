"""Real gateways that keep books: killed under load, several on one file, and how they end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.service import free_port
from tests.entrypoints.conftest import Start, eventually
from tests.entrypoints.keys.key_files import write_keys
from tests.entrypoints.ledger.clients import Clients, Read
from tests.entrypoints.ledger.rows import rows, summed, totals
from tests.entrypoints.running_gateway import PATIENCE_S, REPOSITORY, Running
from vfastml.entrypoints.ledger.books import Books

LOG = ("--log-level", "warning")


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Of a quick model server."""
    command = [sys.executable, "-m", "tests.entrypoints.ledger.quick_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        yield f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def gateway(path: Path, endpoint: str, *flags: str) -> list[str]:
    module = "prebuilt_apps.openai.api_server"
    return [sys.executable, "-m", module, "--ledger", str(path), "--model-server", endpoint, *LOG, *flags]


def check_books(path: Path, read: Read) -> None:
    """Every usage that a client has read is there, with the same numbers, and no request twice."""
    found = rows(path)
    booked = {
        row["request_id"]: tuple(row[f"{kind}_tokens"] for kind in ("prompt", "completion", "cached")) for row in found
    }
    assert {request_id: booked.get(request_id) for request_id in read} == read
    assert len(booked) == len(found)
    assert totals(path) == summed(path)


@pytest.mark.slow
def test_what_clients_have_read_outlives_a_killed_gateway(path: Path, endpoint: str, start: Start) -> None:
    port = str(free_port())
    clients = Clients(f"http://127.0.0.1:{port}", count=8)
    rounds = []
    try:
        for number in range(5):
            running, before = start(gateway(path, endpoint, "--port", port)), len(clients.read)
            eventually(lambda before=before: len(clients.read) > before + 50)
            time.sleep(0.037 * number)  # at another moment each time
            running.process.kill()
            running.process.wait()
            rounds.append(len(clients.read) - before)
    finally:
        clients.stop()
    check_books(path, clients.read)
    assert min(rounds) > 50
    print(f"{len(clients.read)} usages read, {len(rows(path))} booked; by round: {rounds}")


def test_workers_share_the_books(path: Path, endpoint: str, start: Start) -> None:
    running = start(gateway(path, endpoint, "--port", "0", "--workers", "2"))
    workers = psutil.Process(running.process.pid).children
    eventually(lambda: len(workers()) == 2 and all(listens(worker) for worker in workers()))
    other = start(gateway(path, endpoint, "--port", "0"))
    crowds = [Clients(running.url, count=6), Clients(other.url, count=2)]
    try:
        for crowd in crowds:
            eventually(lambda crowd=crowd: len(crowd.read) > 40)
    finally:
        for crowd in crowds:
            crowd.stop()
    check_books(path, crowds[0].read | crowds[1].read)
    for each in (running, other):
        each.signal()
        assert each.exit_code() == 0
        assert each.stderr() == ""
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def listens(process: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp"))


def test_an_orderly_end_books_what_it_ends(path: Path, start: Start, silent_server: str) -> None:
    running = start(gateway(path, silent_server, "--port", "0", "--drain-timeout", "0.1"))
    body = {"prompt": "x", "max_tokens": 5, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/completions", json=body, timeout=PATIENCE_S) as response:
        texts = response.iter_text()
        assert "one" in next(texts)
        running.signal()
        assert "service_unavailable" in "".join(texts)
    assert running.exit_code() == 0
    [row] = rows(path)
    assert (row["outcome"], row["error"], row["prompt_tokens"]) == ("failed", "InternalServerTooBusyError", 1)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """It says one word, and nothing more."""
    command = [sys.executable, "-m", "tests.engine.fake_server", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        yield f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_is_no_ledger_stops_the_start(path: Path, endpoint: str, workers: str) -> None:
    path.write_text("nothing of the kind\n" * 100)
    command = gateway(path, endpoint, "--port", "0", "--workers", workers)
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE_S, check=False)
    assert run.returncode == 1
    assert run.stderr.count("Cannot start") == 1
    assert run.stderr.startswith(f"Cannot start: the ledger {path} cannot be opened: file is not a database.\n")


def test_a_quota_as_openais_client_sees_it(path: Path, endpoint: str, start: Start) -> None:
    keys = path.with_name("keys.toml")
    write_keys(keys, {"one": {}, "two": {}}, '[defaults]\nquota_tokens = 20\nquota_per = "month"\n')
    command = gateway(path, endpoint, "--port", "0", "--api-key-file", str(keys))
    running = start(command)
    assert ask(running, "one") == 15
    assert ask(running, "one") == 15, "let in at 15 of 20"
    with pytest.raises(openai.RateLimitError) as refused:
        ask(running, "one")
    assert refused.value.code == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.response.headers
    assert "of this month; they renew at" in refused.value.message
    assert ask(running, "two") == 15
    key_ids = [row["key_id"] for row in rows(path)]
    assert len(key_ids) == 3, "what was refused is not booked"
    assert key_ids[0] == key_ids[1] != key_ids[2]
    running.process.kill()
    running.process.wait()
    Books(str(path)).close()
    again = start(command)
    with pytest.raises(openai.RateLimitError):
        ask(again, "one")


def ask(running: Running, key: str) -> int:
    """Tokens of the answer; 10 are the prompt's."""
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, timeout=PATIENCE_S) as client:
        answer = client.completions.create(model="m", prompt="word " * 10, max_tokens=5)
    assert answer.usage is not None
    return answer.usage.total_tokens
