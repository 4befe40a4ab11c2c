"""A tiny run of the real thing against a real service; no speed is asserted."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from benchmarks import overload
from benchmarks.machine import this_machine
from benchmarks.overload_records import OverloadResult, OverloadRun, table
from benchmarks.records import RequestRecord
from tests.benchmarks.fake_server import FakeServer, serving
from tests.e2e.service import Service, running

SMALL = ["--input-tokens", "20", "--output-tokens", "8", "--seconds", "1", "--concurrency", "2"]


def measured(url: str, folder: Path, *arguments: str) -> tuple[int, OverloadResult]:
    """Exit status, and what was written."""
    status = overload.main(["--url", url, "--output", str(folder), *SMALL, *arguments])
    (written,) = folder.glob("overload-*.json")
    assert written.with_suffix(".png").stat().st_size > 1000
    return status, msgspec.json.decode(written.read_bytes(), type=OverloadResult)


def test_a_real_service_refuses_what_is_too_much(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--dtype", "float32"]
    arguments += ["--kv-cache-memory", "20MB", "--max-num-seqs", "2", "--max-waiting", "1"]
    with running(Service(tmp_path, arguments)) as service:
        longer = ["--output-tokens", "100", "--times", "4", "--pid", str(os.getpid())]
        status, result = measured(service.url, tmp_path, *longer)
    assert status == 0
    peak, over = result.runs
    assert (peak.times, len(peak.answered)) == (None, len(peak.records))
    assert over.times == 4
    assert over.refused
    assert over.answered
    assert len(over.answered) + len(over.refused) == len(over.records)
    assert over.rss_before_mb is not None
    assert over.rss_before_mb > 1
    assert "of peak" in capsys.readouterr().out


def test_what_breaks_is_no_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 8 streams tell how much it can carry; the next one breaks.
    with serving(FakeServer(trouble={9: "status"})) as fake:
        status, result = measured(fake.url, tmp_path, "--times", "0.01")
    assert status == 1
    assert [len(run.failed) for run in result.runs] == [1, 0]
    assert "1 x HTTP 500: out of order" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (FakeServer(trouble=dict.fromkeys(range(8), "status")), "HTTP 500: out of order"),
        (FakeServer(usage="never"), "does not say how many tokens"),
    ],
)
def test_without_a_peak_nothing_is_measured(
    fake: FakeServer, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(fake):
        assert overload.main(["--url", fake.url, "--output", str(tmp_path), *SMALL]) == 1
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def record(started_s: float, chunks_s: list[float], error: str | None = None) -> RequestRecord:
    return RequestRecord(
        started_s=started_s,
        e2e_s=chunks_s[-1] if chunks_s else 0.01,
        asked_tokens=10,
        chunks_s=chunks_s,
        output_tokens=10 if error is None else None,
        error=error,
    )


def test_figures_of_a_run() -> None:
    run = OverloadRun(
        times=None,
        repeat=1,
        offered_per_s=None,
        rss_before_mb=None,
        rss_most_mb=None,
        records=[
            record(0.0, [1.0, 2.0]),
            record(1.0, [0.5, 2.0]),  # half of it after the last was sent
            record(1.5, [], "HTTP 429: full"),
            record(1.6, [], "HTTP 503: loading"),
            record(2.0, [], "HTTP 500: broken"),
        ],
    )
    assert [len(run.answered), len(run.refused), len(run.failed)] == [2, 2, 1]
    assert run.tokens_per_s == pytest.approx(15 / 2)
    assert run.answers_per_s == pytest.approx(15 / 2 / 10)
    result = OverloadResult(date="", command=[], settings={}, server={}, machine=this_machine(), runs=[run])
    cells = {row[0]: row[1] for row in table(result).rows}
    assert (cells["refused"], cells["failed"], cells["of peak"]) == ("2 of 5", "1 of 5", "1.00")
