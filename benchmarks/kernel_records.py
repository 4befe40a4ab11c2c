"""What the benchmark of the CPU kernels leaves behind: its times, as tables, a picture and a JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import ScalarFormatter

from benchmarks.stored_result import StoredResult
from benchmarks.tables import UNKNOWN, TextTable

_PANEL_INCHES = (4.2, 3.8)


class Limits(msgspec.Struct, kw_only=True):
    """What so many threads of this machine can, or a GPU."""

    threads: int
    """0: a GPU."""
    bytes_per_s: float
    """Read from memory; of a GPU: copied, read and written bytes together."""
    operations_per_s: dict[str, float]
    """In registers alone (a GPU: in a large product), by format; a product and its sum are two."""

    def seconds(self, num_bytes: float, operations: float, number_format: str) -> float:
        """The least that a kernel needs for both."""
        return max(num_bytes / self.bytes_per_s, operations / self.operations_per_s[number_format])

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in self.operations_per_s.items())
        reads = (
            f"reads {self.bytes_per_s / 1e9:.1f} GB/s" if self.threads else f"copies {self.bytes_per_s / 1e9:.0f} GB/s"
        )
        return f"{_threads(self.threads)}: {reads}, computes (GFLOP/s) {peaks}"


class KernelRun(msgspec.Struct, kw_only=True):
    """One kernel on one number of rows: the shortest of many runs."""

    family: str
    kernel: str
    number_format: str
    threads: int
    rows: int
    seconds: float
    others: dict[str, float]
    """Seconds of the same in torch, by name."""
    num_bytes: float = 0.0
    """That have to be read from memory. 0, as with operations: no limit is known."""
    operations: float = 0.0
    least_s: float | None = None
    """What the limits allow."""
    per_step: int = 0
    """How often a decode step of so many rows runs it; 0: not as it is here, or not known."""

    @property
    def share(self) -> float | None:
        """Of the limit."""
        return None if self.least_s is None else self.least_s / self.seconds


class KernelResult(StoredResult, kw_only=True):
    """One call of the program."""

    level: str
    """The instructions in use."""
    settings: dict[str, Any]
    limits: list[Limits]
    runs: list[KernelRun]


LEGEND = (
    "us: a layer's part of the shortest of many runs. GB/s are of what must come from memory: weights, or keys and "
    "values. % of limit: the least time that reading them, or computing, takes, over that which it took; above 100, "
    "others were at work while the limit was measured. The other columns are torch's times over ours."
)


def tables(result: KernelResult) -> list[TextTable]:
    """One for each family, format and number of threads; LEGEND says what is in them."""
    return [_table(title, runs) for title, runs in _groups(result.runs).items()]


def draw(result: KernelResult, path: Path) -> None:
    """A PNG: what share of the limit each kernel reaches, against rows; the best of torch's dashed."""
    known = [run for run in result.runs if run.share is not None]
    groups = _groups(known)
    columns = max(1, len({(run.family, run.number_format) for run in known}))
    lines = -(-len(groups) // columns) or 1
    width, height = _PANEL_INCHES
    picture = Picture(figsize=(width * columns, height * lines), layout="constrained")
    panels = picture.subplots(lines, columns, squeeze=False).flat
    for axes, (title, runs) in zip(panels, groups.items(), strict=False):
        _panel(axes, title, runs)
    for axes in list(panels):
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _groups(runs: Sequence[KernelRun]) -> dict[str, list[KernelRun]]:
    groups: dict[str, list[KernelRun]] = defaultdict(list)
    for run in runs:
        groups[f"{run.family}, {run.number_format}, {_threads(run.threads)}"].append(run)
    return groups


def _threads(number: int) -> str:
    return {0: "GPU", 1: "1 thread"}.get(number, f"{number} threads")


def _table(title: str, runs: Sequence[KernelRun]) -> TextTable:
    others = list(dict.fromkeys(name for run in runs for name in run.others))
    rows = [[f"{run.kernel} n={run.rows}", *_own(run), *(_ratio(run, name) for name in others)] for run in runs]
    return TextTable(title, ["", "us", "GB/s", "GFLOP/s", "% of limit", *others], rows)


def _own(run: KernelRun) -> list[str]:
    speeds = (run.num_bytes / run.seconds / 1e9, run.operations / run.seconds / 1e9)
    shown = [f"{speed:.1f}" if speed else UNKNOWN for speed in speeds]
    return [f"{run.seconds * 1e6:.1f}", *shown, UNKNOWN if run.share is None else f"{run.share * 100:.0f}"]


def _ratio(run: KernelRun, name: str) -> str:
    return f"{run.others[name] / run.seconds:.2f}x" if name in run.others else UNKNOWN


def _panel(axes: Axes, title: str, runs: Sequence[KernelRun]) -> None:
    for number, kernel in enumerate(dict.fromkeys(run.kernel for run in runs)):
        own = sorted((run for run in runs if run.kernel == kernel), key=lambda run: run.rows)
        rows, shares = [run.rows for run in own], [100 * (run.share or 0.0) for run in own]
        axes.plot(rows, shares, color=f"C{number}", marker="o", label=kernel)
        theirs = [100 * (run.least_s or 0.0) / min(run.others.values()) for run in own]
        axes.plot(rows, theirs, color=f"C{number}", linestyle="--", alpha=0.5)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("rows")
    axes.set_ylabel("% of limit; torch's best dashed")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({run.rows for run in runs}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
