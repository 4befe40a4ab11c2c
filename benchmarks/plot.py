"""The figures as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import ScalarFormatter

from benchmarks.metrics import Spread, runs_by_level
from benchmarks.records import BenchmarkResult, Level
from benchmarks.tables import TOKENS_PER_S, TPOT_P50, TPOT_P99, TTFT_P50, TTFT_P99, Figure

matplotlib.use("Agg")

_INCHES = (15.0, 4.8)
_DPI = 110


def draw(results: Sequence[BenchmarkResult], path: Path) -> None:
    """A PNG: tokens/s, TTFT and TPOT against concurrency, or against the rate where any run has one; one colour for
    each result. Bars span the runs."""
    picture = Picture(figsize=_INCHES, layout="constrained")
    throughput, first_token, per_token = picture.subplots(1, 3)
    for position, result in enumerate(results):
        colour = f"C{position}"
        _line(throughput, result, TOKENS_PER_S, colour, result.label)
        for axes, typical, worst in ((first_token, TTFT_P50, TTFT_P99), (per_token, TPOT_P50, TPOT_P99)):
            _line(axes, result, typical, colour, result.label)
            _dashes(axes, result, worst, colour)
    levels = sorted({run.level for result in results for run in result.runs})
    _dress(throughput, "output tokens/s", levels)
    _dress(first_token, "TTFT, ms: p50, and p99 dashed", levels)
    _dress(per_token, "TPOT, ms: p50, and p99 dashed", levels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=_DPI)


def _line(axes: Axes, result: BenchmarkResult, figure: Figure, colour: str, label: str) -> None:
    if points := _points(result, figure):
        spreads = list(points.values())
        medians = [spread.median for spread in spreads]
        below = [spread.median - spread.low for spread in spreads]
        above = [spread.high - spread.median for spread in spreads]
        axes.errorbar(
            _places(list(points)), medians, yerr=[below, above], color=colour, label=label, marker="o", capsize=3
        )


def _dashes(axes: Axes, result: BenchmarkResult, figure: Figure, colour: str) -> None:
    points = _points(result, figure)
    axes.plot(
        _places(list(points)), [spread.median for spread in points.values()], color=colour, linestyle="--", alpha=0.5
    )


def _points(result: BenchmarkResult, figure: Figure) -> dict[Level, Spread]:
    spreads = {level: figure.spread(runs) for level, runs in runs_by_level(result.runs).items()}
    return {level: spread for level, spread in spreads.items() if spread is not None}


def _places(levels: Sequence[Level]) -> list[float]:
    """Where levels stand on the x axis."""
    return [level.request_rate if level.is_open_loop else level.concurrency for level in levels]


def _dress(axes: Axes, title: str, levels: Sequence[Level]) -> None:
    axes.set_title(title)
    axes.set_xlabel("requests a second" if levels[0].is_open_loop else "requests in flight")
    axes.set_xscale("log", base=2)
    axes.set_xticks(_places(levels))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
