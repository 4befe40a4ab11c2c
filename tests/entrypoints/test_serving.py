"""The gateway as a process: where it listens, how it drains, with which code it leaves."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.e2e.service import free_port
from tests.entrypoints.conftest import Start, eventually
from tests.entrypoints.running_gateway import GRACE_S, PATIENCE_S, REPOSITORY, Call, livez, slow_gateway
from vfastml.engine.addresses import is_loopback
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.listening import bind

API_SERVER = [sys.executable, "-m", "prebuilt_apps.openai.api_server"]


def test_open_requests_are_finished_and_new_ones_refused(start: Start) -> None:
    running = start(slow_gateway(GRACE_S))
    call = Call(running.url, words=40)
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    assert httpx.get(f"{running.url}/livez").status_code == 200
    refused = httpx.post(f"{running.url}/v1/completions", json={"prompt": "x"})
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    text = call.whole_text()
    assert '"text":"39 "' in text
    assert text.endswith("data: [DONE]\n\n")
    assert running.exit_code() == 0
    assert "Traceback" not in running.stderr()


def test_what_outlasts_the_grace_time_gets_an_error(start: Start) -> None:
    running = start(slow_gateway(drain_timeout_s=0.3))
    call = Call(running.url, words=1000)
    running.signal()
    text = call.whole_text()
    assert '{"error":' in text.split("\n\n")[-2]
    assert "[DONE]" not in text
    assert running.exit_code() == 0
    assert "Traceback" not in running.stderr()


def test_before_the_drain_it_may_go_on_for_a_while(start: Start) -> None:
    running = start(slow_gateway(GRACE_S, drain_delay_s=3))
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    body = {"prompt": "x", "max_tokens": 1}
    assert httpx.post(f"{running.url}/v1/completions", json=body).status_code == 200
    assert running.exit_code() == 0
    assert "new requests are taken for 3 s more" in running.stderr()


def test_a_second_signal_ends_that_while_too(start: Start) -> None:
    running = start(slow_gateway(GRACE_S, drain_delay_s=GRACE_S))
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    signalled_at = time.monotonic()
    running.signal()
    assert running.exit_code() == 0
    assert time.monotonic() - signalled_at < GRACE_S


def test_an_idle_gateway_leaves_at_once(start: Start) -> None:
    running = start(slow_gateway(GRACE_S))
    with httpx.Client() as kept_alive:
        kept_alive.get(f"{running.url}/livez")
        signalled_at = time.monotonic()
        running.signal()
        assert running.exit_code() == 0
    assert time.monotonic() - signalled_at < GRACE_S


def test_a_second_signal_ends_it_now(start: Start) -> None:
    running = start(slow_gateway(GRACE_S))
    call = Call(running.url, words=1000)
    running.signal()
    eventually(lambda: httpx.get(f"{running.url}/readyz").status_code == 503)
    signalled_at = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.exit_code() == 0
    assert time.monotonic() - signalled_at < GRACE_S
    assert "[DONE]" not in call.whole_text()
    assert "Traceback" not in running.stderr()


def test_it_says_how_to_call_it_once_a_model_is_there(start: Start) -> None:
    running = start(slow_gateway(drain_timeout_s=1))
    assert running.process.stdout is not None
    assert running.process.stdout.readline().startswith("Metrics for Prometheus are at http://127.0.0.1:")
    assert running.process.stdout.readline().startswith(f"Try: curl {running.url}/v1/chat/completions ")


def test_the_prebuilt_app_runs_without_a_model_server(start: Start) -> None:
    running = start([*API_SERVER, "--port", "0", "--api-key", "k", "--model-server", "tcp://127.0.0.1:1"])
    assert httpx.get(f"{running.url}/startupz").status_code == 503
    assert httpx.get(f"{running.url}/v1/models").status_code == 401
    assert httpx.get(f"{running.url}/v1/models", headers={"x-api-key": "k"}).json()["data"] == []
    running.signal()
    assert running.exit_code() == 0
    assert running.process.stdout is not None
    assert "Try:" not in running.process.stdout.read(), "nobody is told to call what cannot answer"


@pytest.mark.parametrize("prefix", ["", "/llm"])
def test_another_asgi_server_serves_it_complete(prefix: str) -> None:
    port, key = free_port(), {"x-api-key": "k"}
    command = [sys.executable, "-m", "uvicorn", "tests.entrypoints.served_app:app", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--root-path", prefix], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: livez(url))
        assert httpx.get(f"{url}/version").status_code == 401
        assert httpx.get(f"{url}/version", headers=key).json() == "mine"
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": "x"}, headers=key)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
        assert f"'{prefix}/openapi.json'" in httpx.get(f"{url}/docs", headers=key).text
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        process.kill()
    assert "vfastml.entrypoints.access_log: GET /version 401 in " in output
    assert "Traceback" not in output


def outcome(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*API_SERVER, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, cwd=REPOSITORY)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_one_line_and_code_1(workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = outcome("--port", str(taken.getsockname()[1]), "--workers", workers)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "in use" in result.stderr


def test_a_host_that_cannot_be_is_one_line_and_code_1() -> None:
    result = outcome("--host", "a..b", "--insecure")
    assert result.returncode == 1
    assert result.stderr == "Cannot listen on a..b port 8080: no host can have that name.\n"


@pytest.mark.rule("S3")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_wide_open_needs_keys_or_a_word(workers: str) -> None:
    result = outcome("--host", "0.0.0.0", "--port", "0", "--workers", workers)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "--api-key-file" in result.stderr
    assert "--insecure" in result.stderr


@pytest.mark.parametrize("option", [["--insecure"], ["--api-key", "k"]])
def test_wide_open_with_the_word_or_keys(start: Start, option: list[str]) -> None:
    assert "0.0.0.0" in start([*API_SERVER, "--host", "0.0.0.0", "--port", "0", *option]).greeting


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--no-such-flag"], "--no-such-flag"),
        (["--port", "x"], "--port"),
        (["--port", "65536"], "between 0 and 65535"),
        (["--log-level", "loud"], "--log-level"),
        (["--model-server", "http://x"], "bad model server endpoint"),
        (["--api-key", ""], "API key is empty"),
        (["--drain-timeout", "-1"], "must not be negative"),
        (["--workers", "0"], "--workers: must be a whole number, at least 1"),
        (["--workers", "2", "--root-path", "llm"], "bad root path"),
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str], complaint: str) -> None:
    result = outcome(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_every_option_with_its_default() -> None:
    text = outcome("--help").stdout
    for expected in ("127.0.0.1", "8080", "tcp://127.0.0.1:6500", "info", "30.0", "--insecure", "--api-key"):
        assert expected in text


@pytest.mark.rule("S3")
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_two_gateways_cannot_share_a_port() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(SystemExit, match="Cannot listen"):
        Gateway(GatewayConfig()).run(port=first.getsockname()[1])
