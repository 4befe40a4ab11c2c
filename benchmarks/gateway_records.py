"""What the benchmark of the gateway leaves behind: its runs, as a table, a picture and a JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import ScalarFormatter

from benchmarks.metrics import Spread
from benchmarks.stored_result import StoredResult
from benchmarks.tables import TextTable


class GatewayRun(msgspec.Struct, kw_only=True):
    """All streams of one run, from the first request sent to the end of the last stream."""

    endpoint: str
    streams: int
    repeat: int
    tokens: int
    chunks: int
    """Events that the client has read, `[DONE]` aside. Fewer than tokens: the gateway could not keep up, and merged."""
    wall_s: float
    gateway_cpu_s: float
    """User and system time of all its threads."""
    model_server_cpu_s: float
    client_cpu_s: float

    @property
    def chunks_per_s(self) -> float:
        """Of wall time: what the machine came to, others included."""
        return self.chunks / self.wall_s

    @property
    def chunks_per_cpu_s(self) -> float:
        """Of the gateway's own CPU time: what one core could do if the gateway had it."""
        return self.chunks / self.gateway_cpu_s


class GatewayResult(StoredResult, kw_only=True):
    """One call of the program."""

    settings: dict[str, Any]
    runs: list[GatewayRun]


_HEADER = ["", "chunks/s", "per CPU s", "low", "high", "us", "server us"]
LEGEND = (
    "Medians. CPU s and us are the gateway's own, user and system, for each chunk; low and high of all runs. "
    "server us: of the model server, for each token."
)

_MERGED = 0.98
"""Chunks per token, below which it was not one for each."""
_BUSY = 0.8
"""Of a core: then the client may have been the limit."""


def table(result: GatewayResult) -> TextTable:
    """A row for each endpoint and number of streams; LEGEND says what is in it."""
    rows = [[f"{endpoint} c={streams}", *_cells(runs)] for (endpoint, streams), runs in _groups(result.runs).items()]
    return TextTable("gateway", _HEADER, rows)


def notes(result: GatewayResult) -> list[str]:
    """What a reader of the figures has to know."""
    found = [] if result.settings["pinned"] else ["All processes shared the same cores."]
    for (endpoint, streams), runs in _groups(result.runs).items():
        if (share := min(run.chunks / run.tokens for run in runs)) < _MERGED:
            found.append(f"{endpoint} c={streams}: tokens came faster than they left, {share:.2f} chunks for each.")
        if any(run.client_cpu_s / run.wall_s > _BUSY for run in runs):
            found.append(f"{endpoint} c={streams}: the client itself was busy, and may have been the limit.")
    return found


def draw(result: GatewayResult, path: Path) -> None:
    """A PNG: chunks per second of wall time and of the gateway's CPU time, against streams."""
    picture = Picture(figsize=(11.0, 4.8), layout="constrained")
    wall, cpu = picture.subplots(1, 2)
    _lines(wall, result, "chunks/s", lambda run: run.chunks_per_s)
    _lines(cpu, result, "chunks per second of gateway CPU", lambda run: run.chunks_per_cpu_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _groups(runs: Sequence[GatewayRun]) -> dict[tuple[str, int], list[GatewayRun]]:
    groups: dict[tuple[str, int], list[GatewayRun]] = defaultdict(list)
    for run in runs:
        groups[run.endpoint, run.streams].append(run)
    return dict(sorted(groups.items()))


def _spread(runs: Sequence[GatewayRun], get: Callable[[GatewayRun], float]) -> Spread:
    spread = Spread.of(get(run) for run in runs)
    assert spread is not None
    return spread


def _cells(runs: Sequence[GatewayRun]) -> list[str]:
    wall = _spread(runs, lambda run: run.chunks_per_s)
    cpu = _spread(runs, lambda run: run.chunks_per_cpu_s)
    server_us = _spread(runs, lambda run: 1e6 * run.model_server_cpu_s / run.tokens)
    per_s = [f"{figure:.0f}" for figure in (wall.median, cpu.median, cpu.low, cpu.high)]
    return [*per_s, f"{1e6 / cpu.median:.1f}", f"{server_us.median:.1f}"]


def _lines(axes: Axes, result: GatewayResult, title: str, get: Callable[[GatewayRun], float]) -> None:
    groups = _groups(result.runs)
    for endpoint in dict.fromkeys(endpoint for endpoint, _ in groups):
        points = {streams: _spread(runs, get) for (name, streams), runs in groups.items() if name == endpoint}
        medians = [spread.median for spread in points.values()]
        below = [spread.median - spread.low for spread in points.values()]
        above = [spread.high - spread.median for spread in points.values()]
        axes.errorbar(list(points), medians, yerr=[below, above], label=endpoint, marker="o", capsize=3)
    axes.set_title(title)
    axes.set_xlabel("streams")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({streams for _, streams in groups}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
