"""What the benchmark of the engine leaves behind: its runs, as a table, a picture and a JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from benchmarks.metrics import Spread
from benchmarks.stored_result import StoredResult
from benchmarks.tables import UNKNOWN, TextTable

_PANEL_INCHES = (3.4, 3.6)
_PANELS_IN_A_ROW = 4


class EngineRun(msgspec.Struct, kw_only=True):
    """One run of one case."""

    case: str
    """What is compared with what; empty where there is one case only."""
    sequences: int
    repeat: int
    figures: dict[str, float]
    """By title, which names the unit."""

    @property
    def column(self) -> str:
        """Of the table."""
        return f"{self.case} n={self.sequences}".strip()


class EngineResult(StoredResult, kw_only=True):
    """One call of the program."""

    mode: str
    settings: dict[str, Any]
    runs: list[EngineRun]


def table(result: EngineResult) -> TextTable:
    """A column for each case and number of sequences: the median of its runs, and the lowest and highest."""
    groups = _groups(result.runs)
    rows = [[title, *(_cell(runs, title) for runs in groups.values())] for title in _titles(result.runs)]
    return TextTable(f"engine, {result.mode}: median (lowest to highest)", ["", *groups], rows)


def median(runs: Sequence[EngineRun], case: str, title: str) -> float | None:
    """Over the runs of a case; None if they do not have that figure."""
    spread = _spread([run for run in runs if run.case == case], title)
    return None if spread is None else spread.median


def draw(result: EngineResult, path: Path) -> None:
    """A PNG: a panel of bars for each figure, with lines from the lowest run to the highest."""
    titles, groups = _titles(result.runs), _groups(result.runs)
    num_rows = -(-len(titles) // _PANELS_IN_A_ROW)
    width, height = _PANEL_INCHES
    picture = Picture(figsize=(width * _PANELS_IN_A_ROW, height * num_rows), layout="constrained")
    panels = picture.subplots(num_rows, _PANELS_IN_A_ROW, squeeze=False).flat
    for axes, title in zip(panels, titles, strict=False):
        _bars(axes, title, groups)
    for axes in list(panels):
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _bars(axes: Axes, title: str, groups: dict[str, list[EngineRun]]) -> None:
    for name, runs in groups.items():
        if (spread := _spread(runs, title)) is not None:
            around = [[spread.median - spread.low], [spread.high - spread.median]]
            axes.bar(name, spread.median, yerr=around, color="C0", capsize=3)
    axes.set_title(title, fontsize="medium")
    axes.tick_params(axis="x", labelrotation=45)
    axes.grid(axis="y", alpha=0.3)


def _groups(runs: Sequence[EngineRun]) -> dict[str, list[EngineRun]]:
    groups: dict[str, list[EngineRun]] = defaultdict(list)
    for run in runs:
        groups[run.column].append(run)
    return groups


def _titles(runs: Sequence[EngineRun]) -> list[str]:
    return list(dict.fromkeys(title for run in runs for title in run.figures))


def _spread(runs: Sequence[EngineRun], title: str) -> Spread | None:
    return Spread.of(run.figures.get(title) for run in runs)


def _cell(runs: Sequence[EngineRun], title: str) -> str:
    spread = _spread(runs, title)
    if spread is None:
        return UNKNOWN
    median, low, high = map(_number, (spread.median, spread.low, spread.high))
    return median if len(runs) == 1 else f"{median} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
