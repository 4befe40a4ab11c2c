"""A tiny run of the real thing; no figure is asserted."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from benchmarks import connections


def test_a_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--streams", "1,3", "--idle", "0,120", "--tokens", "5", "--step-ms", "5"]
    assert connections.main([*what, "--output", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("connections-*.json")
    assert written.with_suffix(".png").stat().st_size > 1000
    text = written.read_text()
    assert str(tmp_path) not in text
    runs = json.loads(text)["runs"]
    assert [(run["idle"], run["streams"]) for run in runs] == [(idle, n) for idle in (0, 120) for n in (1, 3)]
    for run in runs:
        assert (run["failed"], run["idle_lost"]) == (0, 0)
        assert run["streams"] <= run["chunks"] <= 5 * run["streams"]  # a busy machine has fewer: merged ones
        assert 0 < run["first_p50_s"] <= run["first_p99_s"] <= run["wall_s"]
        assert run["gateway_descriptors"] > run["idle"]
    assert "3 / 120" in capsys.readouterr().out


def test_too_many_for_this_machine_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    assert connections.main(["--idle", "900", "--streams", "1"]) == 1
    assert (
        capsys.readouterr().err
        == "1101 open files are needed and 1000 are allowed: raise `ulimit -Hn`, or ask for less.\n"
    )
