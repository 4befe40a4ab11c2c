"""What the benchmark of overload leaves behind: its runs, as a table, a picture and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from benchmarks.metrics import percentile
from benchmarks.records import RequestRecord
from benchmarks.stored_result import StoredResult
from benchmarks.tables import UNKNOWN, TextTable

matplotlib.use("Agg")

_REFUSALS = ("HTTP 429", "HTTP 503")

LEGEND = (
    "Tokens/s are over the time in which requests were sent, what came later left out; peak is the closed loop. "
    "Times are p50 / p99, of answers but for refusals. RSS: of the processes of --pid, before the run and at the most."
)


class OverloadRun(msgspec.Struct, kw_only=True):
    """One run, with every request."""

    times: float | None
    """What was offered, over what the server can carry; None for the closed loop that tells how much that is."""
    repeat: int
    offered_per_s: float | None
    """Requests a second; None for the closed loop."""
    rss_before_mb: float | None
    rss_most_mb: float | None
    records: list[RequestRecord]

    @property
    def sending_s(self) -> float:
        """From the first request sent to the last."""
        return max(record.started_s for record in self.records) - min(record.started_s for record in self.records)

    @property
    def answered(self) -> list[RequestRecord]:
        """Whole answers."""
        return [record for record in self.records if record.error is None]

    @property
    def refused(self) -> list[RequestRecord]:
        """Turned away with a status that says to come again."""
        return [record for record in self.records if record.error is not None and record.error.startswith(_REFUSALS)]

    @property
    def failed(self) -> list[RequestRecord]:
        """Everything else: there should be none."""
        return [record for record in self.records if record.error is not None and record not in self.refused]

    @property
    def tokens_per_s(self) -> float:
        """Of answers that became whole; what came of them after the last request was sent does not count."""
        end_s = max(record.started_s for record in self.records)
        return sum(_tokens_until(record, end_s) for record in self.answered) / self.sending_s

    @property
    def answers_per_s(self) -> float:
        """At that pace of tokens."""
        return self.tokens_per_s * len(self.answered) / sum(record.output_tokens or 0 for record in self.answered)


class OverloadResult(StoredResult, kw_only=True):
    """One call of the program."""

    settings: dict[str, Any]
    server: dict[str, Any]
    runs: list[OverloadRun]

    @property
    def peak_tokens_per_s(self) -> float:
        """The best of the closed loops."""
        return max(run.tokens_per_s for run in self.runs if run.times is None)


def table(result: OverloadResult) -> TextTable:
    """A column for each run; LEGEND says what is in it."""
    columns = [_cells(run, result.peak_tokens_per_s) for run in result.runs]
    rows = [[title, *(column[title] for column in columns)] for title in columns[0]]
    return TextTable("overload", ["", *(_name(run) for run in result.runs)], rows)


def notes(result: OverloadResult) -> list[str]:
    """What a reader of the figures has to know."""
    reasons = [record.error for run in result.runs for record in run.failed]
    return [f"{reasons.count(reason)} x {reason}" for reason in dict.fromkeys(reasons)]


def draw(result: OverloadResult, path: Path) -> None:
    """A PNG: tokens/s, share refused and latency against what was offered."""
    picture = Picture(figsize=(15.0, 4.8), layout="constrained")
    tokens, refused, latency = picture.subplots(1, 3)
    runs = [run for run in result.runs if run.times is not None]
    _points(tokens, runs, "tokens/s; dashed: peak", lambda run: run.tokens_per_s)
    tokens.axhline(result.peak_tokens_per_s, linestyle="--", alpha=0.5)
    _points(refused, runs, "refused, %", lambda run: 100 * len(run.refused) / len(run.records))
    _points(latency, runs, "end to end, s: p50, and p99 above", lambda run: _of_answers(run, 50))
    _points(latency, runs, "end to end, s: p50, and p99 above", lambda run: _of_answers(run, 99))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _name(run: OverloadRun) -> str:
    return f"{'closed loop' if run.times is None else f'{run.times:g} x'}, run {run.repeat}"


def _cells(run: OverloadRun, peak: float) -> dict[str, str]:
    sent = len(run.records)
    memory = None if run.rss_before_mb is None else f"{run.rss_before_mb:.0f}, {run.rss_most_mb:.0f}"
    return {
        "requests sent a second": f"{sent / run.sending_s:.1f}",
        "output tokens/s": f"{run.tokens_per_s:.0f}",
        "of peak": f"{run.tokens_per_s / peak:.2f}",
        "refused": f"{len(run.refused)} of {sent}",
        "failed": f"{len(run.failed)} of {sent}",
        "refusals, ms": _span([1e3 * record.e2e_s for record in run.refused], 1),
        "TTFT, s": _span([record.ttft_s for record in run.answered if record.ttft_s is not None], 2),
        "end to end, s": _span([record.e2e_s for record in run.answered], 2),
        "RSS, MB": memory or UNKNOWN,
    }


def _span(values: Sequence[float], digits: int) -> str:
    median, worst = percentile(values, 50), percentile(values, 99)
    return UNKNOWN if median is None or worst is None else f"{median:.{digits}f} / {worst:.{digits}f}"


def _of_answers(run: OverloadRun, percent: float) -> float:
    return percentile([record.e2e_s for record in run.answered], percent) or 0.0


def _points(axes: Axes, runs: Sequence[OverloadRun], title: str, get: Callable[[OverloadRun], float]) -> None:
    axes.plot([run.times or 0.0 for run in runs], [get(run) for run in runs], marker="o", linestyle="")
    axes.set_title(title)
    axes.set_xlabel("offered, times what it can carry")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _tokens_until(record: RequestRecord, end_s: float) -> float:
    """A chunk may hold several tokens: each counts as its share."""
    if not record.chunks_s:
        return 0.0
    in_time = sum(record.started_s + at <= end_s for at in record.chunks_s)
    return (record.output_tokens or 0) * in_time / len(record.chunks_s)
