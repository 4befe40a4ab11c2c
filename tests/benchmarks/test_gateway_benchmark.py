"""A tiny run of the real thing; no figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gateway


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


def test_one_endpoint(tmp_path: Path) -> None:
    what = ["--streams", "2", "--tokens", "3", "--repeats", "1", "--endpoint", "chat", "--step-ms", "0"]
    assert gateway.main([*what, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("gateway-*.json")
    assert [run["endpoint"] for run in json.loads(written.read_bytes())["runs"]] == ["chat"]
