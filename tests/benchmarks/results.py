"""Records and results made up for tests."""

from __future__ import annotations

from typing import Any

from benchmarks.machine import Machine
from benchmarks.metrics import measure
from benchmarks.records import TOKENS_STREAMED, BenchmarkResult, RequestRecord, Run

MACHINE = Machine(cpu="abacus", cores=2, memory_gb=1.0, gpus=[], system="x", python="3", load_average=0.0)


def record(started_s: float = 0.0, **changed: Any) -> RequestRecord:
    """Five tokens: the first after 0.2 s, then one each 0.1 s."""
    fields: dict[str, Any] = {
        "e2e_s": 0.6,
        "asked_tokens": 5,
        "chunks_s": [0.2, 0.3, 0.4, 0.5, 0.6],
        "input_tokens": 7,
        "output_tokens": 5,
        "finish_reason": "length",
    }
    return RequestRecord(started_s=started_s, **(fields | changed))


def run(records: list[RequestRecord], concurrency: int = 1, **changed: Any) -> Run:
    """With the figures that belong to the records."""
    fields: dict[str, Any] = {"repeat": 1, "seed": 1, "tokens_from": TOKENS_STREAMED}
    fields["metrics"] = measure(records, client_cpu_s=0.06)
    return Run(concurrency=concurrency, records=records, **(fields | changed))


def result(label: str, runs: list[Run], **settings: Any) -> BenchmarkResult:
    """As a benchmark would leave it."""
    return BenchmarkResult(
        label=label, date="20260101-000000", command=[], settings=settings, server={}, machine=MACHINE, runs=runs
    )
