"""The figures of one server as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.metrics import Spread, runs_by_level
from benchmarks.records import TOKENS_ASKED_AGAIN, TOKENS_UNKNOWN, BenchmarkResult, Run, RunMetrics

UNKNOWN = "-"


@dataclass(frozen=True)
class Figure:
    """One row: what it is called, and how it is got and written."""

    title: str
    get: Callable[[RunMetrics], float | None]
    scale: float = 1.0
    digits: int = 1
    more_is_better: bool = False
    is_optional: bool = False
    """Left out where no run knows it."""

    def spread(self, runs: Sequence[Run]) -> Spread | None:
        """Over these runs, in the unit of the title."""
        values = [self.get(run.metrics) for run in runs]
        return Spread.of(None if value is None else value * self.scale for value in values)

    def number(self, value: float) -> str:
        """In its own number of digits."""
        return f"{value:.{self.digits}f}"


TOKENS_PER_S = Figure("output tokens/s", lambda run: run.output_tokens_per_s, more_is_better=True)
TTFT_P50 = Figure("TTFT p50, ms", lambda run: run.ttft_p50_s, 1e3, 0)
TTFT_P99 = Figure("TTFT p99, ms", lambda run: run.ttft_p99_s, 1e3, 0)
TPOT_P50 = Figure("TPOT p50, ms", lambda run: run.tpot_p50_s, 1e3)
TPOT_P99 = Figure("TPOT p99, ms", lambda run: run.tpot_p99_s, 1e3)
E2E_P50 = Figure("end to end p50, s", lambda run: run.e2e_p50_s, 1, 2)

FIGURES = (
    TOKENS_PER_S,
    Figure("requests/s", lambda run: run.requests_per_s, 1, 2),
    Figure("goodput, requests/s", lambda run: run.goodput_per_s, 1, 2, is_optional=True),
    Figure("sent late p99, ms", lambda run: run.late_p99_s, 1e3, is_optional=True),
    TTFT_P50,
    TTFT_P99,
    TPOT_P50,
    TPOT_P99,
    Figure("between chunks p99, ms", lambda run: run.chunk_gap_p99_s, 1e3),
    E2E_P50,
    Figure("end to end p99, s", lambda run: run.e2e_p99_s, 1, 2),
    Figure("input tokens, mean", lambda run: run.mean_input_tokens),
    Figure("output tokens, mean", lambda run: run.mean_output_tokens),
    Figure("client, % of a core", lambda run: run.client_cpu, 100),
)
"""The rows of one server's table."""
COUNTS: tuple[tuple[str, Callable[[RunMetrics], int]], ...] = (
    ("failed", lambda run: run.failed),
    ("short", lambda run: run.short),
)
"""Rows that should be 0."""


@dataclass(frozen=True)
class TextTable:
    """Cells, before it is known where they are shown."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def rich(self) -> Table:
        """For a terminal; rows that count failures are red where there are any."""
        table = Table(title=self.title, title_justify="left", header_style="bold")
        for position, name in enumerate(self.header):
            table.add_column(name, justify="right" if position else "left", no_wrap=position == 0, overflow="fold")
        for row in self.rows:
            table.add_row(*row, style="bold red" if _is_alarming(row) else None)
        return table

    def markdown(self) -> str:
        """For a document."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


def one_server(result: BenchmarkResult) -> TextTable:
    """A column for each level: the median of its runs, and the lowest and highest."""
    levels = runs_by_level(result.runs)
    cells = {figure: [spread_cell(figure, runs) for runs in levels.values()] for figure in FIGURES}
    rows = [[figure.title, *row] for figure, row in cells.items() if not figure.is_optional or {*row} != {UNKNOWN}]
    rows += [[title, *(counted_cell(runs, count) for runs in levels.values())] for title, count in COUNTS]
    repeats = max(len(runs) for runs in levels.values())
    title = (
        f"{result.label}: median (lowest to highest) of {repeats} runs" if repeats > 1 else f"{result.label}: one run"
    )
    return TextTable(title, ["", *map(str, levels)], rows)


def notes(result: BenchmarkResult) -> list[str]:
    """What a reader of the figures has to know."""
    runs = [run for like in runs_by_level(result.runs).values() for run in like]
    found = []
    if failed := sum(run.metrics.failed for run in runs):
        found.append(f"{failed} of {sum(run.metrics.requests for run in runs)} requests FAILED: {_reasons(runs)}")
    if short := sum(run.metrics.short for run in runs):
        found.append(f"{short} answers ended before the length that was asked for: this server did less work.")
    if silent := sum(run.metrics.silent for run in runs):
        found.append(f"{silent} answers brought no text before their end; TTFT and TPOT are of the others.")
    if any(run.tokens_from == TOKENS_ASKED_AGAIN for run in runs):
        found.append("No usage in the streams: tokens are those of the same requests, asked again unstreamed.")
    if any(run.tokens_from == TOKENS_UNKNOWN for run in runs):
        found.append("The server does not say how many tokens it made; nothing is guessed from chunks.")
    if any(run.interrupted for run in runs):
        found.append("Interrupted: requests that had not ended, and their tokens, are missing.")
    return found


def spread_cell(figure: Figure, runs: Sequence[Run]) -> str:
    """The median, and of several runs the lowest and the highest."""
    spread = figure.spread(runs)
    if spread is None:
        return UNKNOWN
    median, low, high = (figure.number(value) for value in (spread.median, spread.low, spread.high))
    return median if len(runs) == 1 else f"{median} ({low} to {high})"


def counted_cell(runs: Sequence[Run], count: Callable[[RunMetrics], int]) -> str:
    """How many, of all."""
    if not runs:
        return UNKNOWN
    return f"{sum(count(run.metrics) for run in runs)} of {sum(run.metrics.requests for run in runs)}"


def _is_alarming(row: Sequence[str]) -> bool:
    is_count = any(row[0].endswith(title) for title, _ in COUNTS)
    return is_count and any(cell != UNKNOWN and not cell.startswith("0 ") for cell in row[1:])


def _reasons(runs: Sequence[Run]) -> str:
    errors = [record.error for run in runs for record in run.records if record.error]
    often = sorted(set(errors), key=errors.count, reverse=True)[:3]
    return "; ".join(f"{errors.count(error)} x {error}" for error in often)
