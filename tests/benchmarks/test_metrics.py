from __future__ import annotations

from typing import Any

import pytest

from benchmarks.metrics import Spread, measure, percentile, runs_by_concurrency
from tests.benchmarks.results import record, run


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 99, 3.0),
        ([4.0, 1.0, 2.0, 3.0], 50, 2.5),
        ([0.0, 100.0], 99, 99.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_a_record_of_known_times() -> None:
    assert record().ttft_s == 0.2
    assert record().tpot_s == pytest.approx(0.1)


def test_tpot_counts_tokens_and_not_chunks() -> None:
    assert record(chunks_s=[0.2, 0.6]).tpot_s == pytest.approx(0.1)


@pytest.mark.parametrize("changed", [{"output_tokens": 1}, {"output_tokens": None}, {"chunks_s": []}])
def test_no_tpot_where_it_would_be_made_up(changed: dict[str, Any]) -> None:
    assert record(**changed).tpot_s is None


def test_wall_time_is_from_the_first_request_to_the_end_of_the_last() -> None:
    metrics = measure([record(1.0), record(1.4, e2e_s=1.6)], client_cpu_s=0.5)
    assert metrics.wall_s == pytest.approx(2.0)
    assert metrics.output_tokens_per_s == pytest.approx(10 / 2.0)
    assert metrics.requests_per_s == pytest.approx(1.0)
    assert metrics.e2e_p50_s == pytest.approx(1.1)
    assert metrics.client_cpu == pytest.approx(0.25)
    assert (metrics.mean_input_tokens, metrics.mean_output_tokens) == (7, 5)


def test_gap_between_chunks() -> None:
    assert measure([record(chunks_s=[0.1, 0.2, 0.6])], 0.0).chunk_gap_p99_s == pytest.approx(0.1 + 0.99 * 0.3)


def test_a_failed_request_counts_as_failed_and_adds_no_tokens_and_no_latency() -> None:
    failed = record(e2e_s=9.0, output_tokens=3, error="broke")
    metrics = measure([record(), failed], 0.0)
    assert (metrics.requests, metrics.failed, metrics.short) == (2, 1, 0)
    assert metrics.output_tokens_per_s == pytest.approx(5 / 9.0)
    assert metrics.e2e_p99_s == pytest.approx(0.6)


def test_short_and_silent_answers_are_counted() -> None:
    metrics = measure([record(), record(output_tokens=4), record(chunks_s=[])], 0.0)
    assert (metrics.short, metrics.silent, metrics.failed) == (1, 1, 0)
    assert metrics.output_tokens_per_s == pytest.approx(14 / 0.6)


def test_no_throughput_if_one_answer_was_not_counted() -> None:
    metrics = measure([record(), record(output_tokens=None)], 0.0)
    assert metrics.output_tokens_per_s is None
    assert metrics.requests_per_s is not None


def test_all_failed_has_no_figures() -> None:
    metrics = measure([record(error="broke")], 0.0)
    assert (metrics.failed, metrics.output_tokens_per_s, metrics.ttft_p50_s, metrics.e2e_p50_s) == (1, None, None, None)


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, None]) is None
    assert Spread.of([]) is None


def test_an_interrupted_run_counts_only_where_there_is_no_whole_one() -> None:
    whole, cut = run([record()], 1), run([record()], 1, interrupted=True)
    alone = run([record()], 8, interrupted=True)
    assert runs_by_concurrency([alone, cut, whole]) == {1: [whole], 8: [alone]}
