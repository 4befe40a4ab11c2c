"""Against the product itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serve
from benchmarks.records import TOKENS_STREAMED, BenchmarkResult
from tests.e2e.service import Service


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_real_service(tiny_service: Service, endpoint: str, tmp_path: Path) -> None:
    lengths = ["--input-tokens", "60", "--output-tokens", "6", "--num-prompts", "5", "--repeats", "1", "--warmup", "1"]
    where = ["--url", tiny_service.url, "--output", str(tmp_path), "--endpoint", endpoint]
    assert serve.main([*where, *lengths, "--concurrency", "1,4"]) == 0
    (written,) = tmp_path.glob("vfastml-*.json")
    result = BenchmarkResult.load(written)
    assert [run.concurrency for run in result.runs] == [1, 4]
    for run in result.runs:
        assert run.tokens_from == TOKENS_STREAMED
        assert (run.metrics.failed, run.metrics.short) == (0, 0)
        assert [each.output_tokens for each in run.records] == [each.asked_tokens for each in run.records]
