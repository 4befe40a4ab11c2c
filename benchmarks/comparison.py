"""Several servers side by side: the first one against each of the others, and against the best of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.metrics import Spread, runs_by_level
from benchmarks.records import BenchmarkResult, Level, Run
from benchmarks.tables import (
    COUNTS,
    E2E_P50,
    TOKENS_PER_S,
    TPOT_P50,
    TPOT_P99,
    TTFT_P50,
    TTFT_P99,
    UNKNOWN,
    Figure,
    TextTable,
    counted_cell,
    spread_cell,
)

COMPARED = (TOKENS_PER_S, TTFT_P50, TTFT_P99, TPOT_P50, TPOT_P99, E2E_P50)
"""The rows for each level."""
OFFLINE = "offline"
"""Stands for the endpoint of what is no server. Its times are those of a whole batch: only tokens/s are compared."""

_FACTS: tuple[tuple[str, str, Callable[[Sequence[float]], float], str], ...] = (
    ("start to ready, s", "ready_s", statistics.median, ".1f"),
    ("resident memory, MB", "resident_mb", max, ".0f"),
)


def side_by_side(results: Sequence[BenchmarkResult]) -> TextTable:
    """A column for each result, with the ratio of the first one's figure to its own; with two or more others, a last
    column for the ratio to the best of them."""
    table = _Comparison(results)
    levels = sorted({level for runs in table.runs for level in runs})
    rows = []
    for level in levels:
        rows += [table.row(level, figure) for figure in COMPARED]
        rows += [table.counts(level, title, count) for title, count in COUNTS]
    rows += [row for fact in _FACTS if {*(row := table.facts(*fact))[1:]} != {UNKNOWN}]
    best = ["first / best other"] if table.rivals else []
    header = ["", *(result.label for result in results), *best]
    return TextTable("Medians (lowest to highest), ratios first / this one", header, rows)


class _Comparison:
    def __init__(self, results: Sequence[BenchmarkResult]) -> None:
        self.runs = [runs_by_level(result.runs) for result in results]
        self._results = results
        others = [number for number in range(1, len(results)) if not _is_variant(results[number])]
        self.rivals = others if len(others) > 1 else []

    def row(self, level: Level, figure: Figure) -> list[str]:
        """Medians and ratios."""
        runs = [self._comparable(number, level, figure) for number in range(len(self.runs))]
        spreads = [figure.spread(each) for each in runs]
        ratios = ["", *(_ratio(spreads[0], spread) for spread in spreads[1:])]
        cells = [f"{spread_cell(figure, each)} {ratio}".strip() for each, ratio in zip(runs, ratios, strict=True)]
        return [f"{level}  {figure.title}", *cells, *self._best(figure, spreads)]

    def counts(self, level: Level, title: str, count: Callable[[Any], int]) -> list[str]:
        """How many requests of all."""
        cells = [counted_cell(runs.get(level, []), count) for runs in self.runs]
        return [f"{level}  {title}", *cells, *([UNKNOWN] if self.rivals else [])]

    def facts(self, title: str, key: str, summary: Callable[[Sequence[float]], float], form: str) -> list[str]:
        """What was noted of each server beside its runs. Offline it would be something else: a start without imports, a
        peak instead of what is resident."""
        noted = [None if _is_offline(result) else result.server.get(key) for result in self._results]
        cells = [format(summary(values), form) if values else UNKNOWN for values in noted]
        return [title, *cells, *([UNKNOWN] if self.rivals else [])]

    def _comparable(self, number: int, level: Level, figure: Figure) -> list[Run]:
        return (
            []
            if _is_offline(self._results[number]) and figure is not TOKENS_PER_S
            else self.runs[number].get(level, [])
        )

    def _best(self, figure: Figure, spreads: Sequence[Spread | None]) -> list[str]:
        known = [spread for number in self.rivals if (spread := spreads[number]) is not None]
        if not self.rivals:
            return []
        choose = max if figure.more_is_better else min
        return [_ratio(spreads[0], choose(known, key=lambda spread: spread.median, default=None)) or UNKNOWN]


def _ratio(first: Spread | None, other: Spread | None) -> str:
    return f"{first.median / other.median:.2f}x" if first and other and other.median else ""


def _is_offline(result: BenchmarkResult) -> bool:
    return result.settings.get("endpoint") == OFFLINE


def _is_variant(result: BenchmarkResult) -> bool:
    """The first server once more, with other flags: no rival of itself."""
    return bool(result.server.get("variant_of"))
