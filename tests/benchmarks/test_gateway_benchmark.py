"""A tiny run of the real thing; no figure is asserted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import gateway

ROOT = Path(__file__).parents[2]


def test_a_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--streams", "1,3", "--tokens", "5", "--repeats", "2", "--step-ms", "1"]
    assert gateway.main([*what, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("gateway-*.json")
    assert written.with_suffix(".png").stat().st_size > 1000
    result = json.loads(written.read_bytes())
    assert result["settings"]["step_ms"] == 1
    runs = result["runs"]
    assert [(run["endpoint"], run["streams"], run["repeat"]) for run in runs] == [
        (endpoint, streams, repeat) for repeat in (1, 2) for streams in (1, 3) for endpoint in ("completions", "chat")
    ]
    for run in runs:
        assert run["tokens"] == 5 * run["streams"]
        # Of a chat, each stream has a role before its text and an end behind it. A busy machine has fewer: merged ones.
        assert (
            run["streams"] <= run["chunks"] <= run["tokens"] + (2 * run["streams"] if run["endpoint"] == "chat" else 0)
        )
        assert min(run["wall_s"], run["gateway_cpu_s"], run["model_server_cpu_s"], run["client_cpu_s"]) > 0
    printed = capsys.readouterr().out
    assert "chunks/s" in printed
    assert "gateway" in printed


def test_one_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for this machine
    what = ["--streams", "2", "--tokens", "3", "--repeats", "1", "--endpoint", "chat", "--step-ms", "0"]
    assert gateway.main([*what, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("gateway-*.json")
    assert str(tmp_path) not in written.read_text()
    assert [run["endpoint"] for run in json.loads(written.read_bytes())["runs"]] == ["chat"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gateway", "--tokens", "1000000", "--output", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(children := psutil.Process(process.pid).children()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, error) == (130, "interrupted\n")
    assert not any(child.is_running() for child in children)
