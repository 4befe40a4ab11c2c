from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.metrics import Goals, Spread, measure, percentile, runs_by_level
from benchmarks.records import Level
from tests.benchmarks.results import record, run


def closed(concurrency: int) -> Level:
    return Level(math.inf, concurrency)


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
    assert list(runs_by_level([alone, cut, whole]).items()) == [(closed(1), [whole]), (closed(8), [alone])]


def test_runs_of_another_rate_are_not_alike() -> None:
    slow, fast, free = (run([record()], 8, request_rate=rate) for rate in (0.5, 2.0, None))
    assert [str(level) for level in runs_by_level([free, fast, slow])] == ["0.5/s, c=8", "2/s, c=8", "c=8"]


@pytest.mark.parametrize(
    ("goals", "good"),
    [
        (Goals(ttft_s=0.2), 3),
        (Goals(ttft_s=0.19), 1),
        (Goals(tpot_s=0.11), 3),
        (Goals(tpot_s=0.09), 1),
        (Goals(ttft_s=0.2, tpot_s=0.09), 1),
        (Goals(ttft_s=0.05, tpot_s=0.01), 0),
    ],
)
def test_goodput_counts_requests_that_met_every_goal(goals: Goals, good: int) -> None:
    single = record(chunks_s=[0.1], output_tokens=1)  # no second token: no TPOT to miss
    silent = record(chunks_s=[])  # no TTFT is no good TTFT
    failed = record(error="broke")
    metrics = measure([record(), record(), single, silent, failed], 0.0, goals)
    assert metrics.goodput_per_s == pytest.approx(good / metrics.wall_s)


def test_who_waited_to_be_sent_waited_for_the_first_token() -> None:
    metrics = measure([record(late_s=0.3), record(late_s=0.05)], 0.0, Goals(ttft_s=0.4))
    assert metrics.goodput_per_s == pytest.approx(1 / metrics.wall_s)


def test_no_goals_no_goodput() -> None:
    assert measure([record()], 0.0).goodput_per_s is None


def test_lateness_is_of_open_loops() -> None:
    assert measure([record(), record()], 0.0).late_p99_s is None
    assert measure([record(late_s=0.0), record(late_s=0.5)], 0.0).late_p99_s == pytest.approx(0.495)
