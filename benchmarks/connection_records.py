"""What the benchmark of connections leaves behind: its runs, as a table, a picture and a JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import ScalarFormatter

from benchmarks.metrics import Spread
from benchmarks.stored_result import StoredResult
from benchmarks.tables import TextTable

matplotlib.use("Agg")


class ConnectionRun(msgspec.Struct, kw_only=True):
    """All streams of one run beside the connections that only stay open. Times are seconds."""

    streams: int
    idle: int
    repeat: int
    opened_s: float
    """To open the idle connections, each with one small request."""
    idle_lost: int
    """Idle connections that were no longer open when the last stream had ended."""
    failed: int
    """Streams that did not come to their end."""
    chunks: int
    wall_s: float
    first_p50_s: float
    """From a stream's request to its first event, all streams being asked for at the same moment."""
    first_p99_s: float
    gap_p99_s: float
    """Of the longest silence within each stream."""
    probe_p50_s: float
    """Of short requests on new connections, one after the other, while the streams run."""
    probe_p99_s: float
    gateway_cpu_s: float
    """Over `wall_s`: user and system time of all its threads."""
    gateway_rss_mb: float
    gateway_descriptors: int

    @property
    def chunks_per_cpu_s(self) -> float:
        """Of the gateway's own CPU time."""
        return self.chunks / self.gateway_cpu_s


class ConnectionResult(StoredResult, kw_only=True):
    """One call of the program."""

    settings: dict[str, Any]
    runs: list[ConnectionRun]


LEGEND = (
    "Medians. Columns: streams / idle connections. First event: from the request, all streams being asked for at once; "
    "silence: the longest within each stream; short request: one after the other meanwhile, each on a new connection."
)
_FIGURES: tuple[tuple[str, Callable[[ConnectionRun], float], int], ...] = (
    ("chunks/s", lambda run: run.chunks / run.wall_s, 0),
    ("chunks per CPU s of the gateway", lambda run: run.chunks_per_cpu_s, 0),
    ("first event p50, ms", lambda run: 1e3 * run.first_p50_s, 0),
    ("first event p99, ms", lambda run: 1e3 * run.first_p99_s, 0),
    ("silence p99, ms", lambda run: 1e3 * run.gap_p99_s, 0),
    ("short request p50, ms", lambda run: 1e3 * run.probe_p50_s, 1),
    ("short request p99, ms", lambda run: 1e3 * run.probe_p99_s, 1),
    ("RSS of the gateway, MB", lambda run: run.gateway_rss_mb, 0),
    ("its descriptors", lambda run: run.gateway_descriptors, 0),
    ("to open the idle ones, s", lambda run: run.opened_s, 1),
    ("idle ones closed", lambda run: run.idle_lost, 0),
    ("streams failed", lambda run: run.failed, 0),
)


def table(result: ConnectionResult) -> TextTable:
    """A column for each number of streams and of idle connections; LEGEND says what is in it."""
    groups = _groups(result.runs)
    rows = [
        [title, *(f"{_median(runs, get):.{digits}f}" for runs in groups.values())] for title, get, digits in _FIGURES
    ]
    return TextTable("connections", ["", *map(_name, groups)], rows)


def notes(result: ConnectionResult) -> list[str]:
    """What a reader of the figures has to know."""
    found = [] if result.settings["pinned"] else ["All processes shared the same cores."]
    for key, runs in _groups(result.runs).items():
        if failed := sum(run.failed for run in runs):
            found.append(f"{_name(key)}: {failed} streams FAILED.")
        if lost := sum(run.idle_lost for run in runs):
            found.append(f"{_name(key)}: {lost} idle connections were closed.")
    return found


def draw(result: ConnectionResult, path: Path) -> None:
    """A PNG: waiting times, and chunks per second of the gateway's CPU time, against streams."""
    picture = Picture(figsize=(11.0, 4.8), layout="constrained")
    waits, cpu = picture.subplots(1, 2)
    _lines(waits, result, "first event p99, ms", lambda run: 1e3 * run.first_p99_s)
    _lines(cpu, result, "chunks per second of gateway CPU", lambda run: run.chunks_per_cpu_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _groups(runs: Sequence[ConnectionRun]) -> dict[tuple[int, int], list[ConnectionRun]]:
    groups: dict[tuple[int, int], list[ConnectionRun]] = defaultdict(list)
    for run in runs:
        groups[run.idle, run.streams].append(run)
    return dict(sorted(groups.items()))


def _name(key: tuple[int, int]) -> str:
    idle, streams = key
    return f"{streams} / {idle}"


def _median(runs: Sequence[ConnectionRun], get: Callable[[ConnectionRun], float]) -> float:
    spread = Spread.of(get(run) for run in runs)
    assert spread is not None
    return spread.median


def _lines(axes: Axes, result: ConnectionResult, title: str, get: Callable[[ConnectionRun], float]) -> None:
    groups = _groups(result.runs)
    for idle in dict.fromkeys(idle for idle, _ in groups):
        points = {streams: _median(runs, get) for (beside, streams), runs in groups.items() if beside == idle}
        axes.plot(list(points), list(points.values()), label=f"{idle} idle", marker="o")
    axes.set_title(title)
    axes.set_xlabel("streams")
    axes.set_xscale("log")
    axes.set_xticks(sorted({streams for _, streams in groups}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
