"""From requests to figures, and from the figures of several runs to their median and spread."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from benchmarks.records import Level, RequestRecord, Run, RunMetrics

Number = TypeVar("Number", int, float)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Between the two nearest ranks, linearly; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    rank = percent / 100 * (len(ordered) - 1)
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True)
class Goals:
    """What a request has to meet to count as good; None asks for nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is any."""
        return self.ttft_s is not None or self.tpot_s is not None

    def met_by(self, record: RequestRecord) -> bool:
        """A latency that is not known meets no goal, but that of a single token has no TPOT to miss. The wait to be
        sent counts as TTFT here."""
        in_time = self.ttft_s is None or (record.ttft_s is not None and record.late_s + record.ttft_s <= self.ttft_s)
        if self.tpot_s is None or record.output_tokens == 1:
            return in_time
        return in_time and record.tpot_s is not None and record.tpot_s <= self.tpot_s


NO_GOALS = Goals()


def measure(records: Sequence[RequestRecord], client_cpu_s: float | None, goals: Goals = NO_GOALS) -> RunMetrics:
    """The figures of one run. Requests that failed count in `failed` and in the wall time, and nowhere else. Without a
    client of its own, `client_cpu_s` is None."""
    good = [record for record in records if record.error is None]
    wall_s = _wall_s(records)
    outputs = _known(record.output_tokens for record in good)
    all_counted = bool(good) and len(outputs) == len(good)
    ttfts = _known(record.ttft_s for record in good)
    tpots = _known(record.tpot_s for record in good)
    ends = [record.e2e_s for record in good]
    return RunMetrics(
        wall_s=wall_s,
        output_tokens_per_s=sum(outputs) / wall_s if all_counted else None,
        requests_per_s=len(good) / wall_s if good else None,
        ttft_p50_s=percentile(ttfts, 50),
        ttft_p99_s=percentile(ttfts, 99),
        tpot_p50_s=percentile(tpots, 50),
        tpot_p99_s=percentile(tpots, 99),
        chunk_gap_p99_s=percentile([gap for record in good for gap in _gaps(record)], 99),
        e2e_p50_s=percentile(ends, 50),
        e2e_p99_s=percentile(ends, 99),
        mean_input_tokens=_mean(_known(record.input_tokens for record in good)),
        mean_output_tokens=_mean(outputs),
        requests=len(records),
        failed=len(records) - len(good),
        short=sum(record.is_short for record in good),
        silent=sum(not record.chunks_s for record in good),
        client_cpu=None if client_cpu_s is None else client_cpu_s / wall_s,
        goodput_per_s=sum(map(goals.met_by, good)) / wall_s if goals.is_set else None,
        late_p99_s=percentile([record.late_s for record in records], 99) or None,
    )


@dataclass(frozen=True)
class Spread:
    """A figure over several runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None if any run does not know it."""
        listed = list(values)
        known = _known(listed)
        if not known or len(known) < len(listed):
            return None
        return cls(statistics.median(known), min(known), max(known))


def runs_by_level(runs: Iterable[Run]) -> dict[Level, list[Run]]:
    """Runs that are alike. An interrupted one counts only where there is no whole one."""
    grouped: dict[Level, list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.level].append(run)
    return {level: [run for run in like if not run.interrupted] or like for level, like in sorted(grouped.items())}


def _wall_s(records: Sequence[RequestRecord]) -> float:
    began = min(record.started_s for record in records)
    return max(record.started_s + record.e2e_s for record in records) - began


def _gaps(record: RequestRecord) -> list[float]:
    return [later - earlier for earlier, later in pairwise(record.chunks_s)]


def _known(values: Iterable[Number | None]) -> list[Number]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
