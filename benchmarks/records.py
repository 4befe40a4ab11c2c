"""What a benchmark leaves behind: one JSON file with every request, and the figures made of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.errors import BenchmarkError
from benchmarks.stored_result import StoredResult

FORMAT = 1

TOKENS_STREAMED = "stream"
"""Each stream brought its usage."""
TOKENS_ASKED_AGAIN = "asked again"
"""The streams did not; the usage is that of the same requests, asked again unstreamed after the run."""
TOKENS_UNKNOWN = "unknown"
"""The server does not count. Chunks are no measure of tokens, so there are no figures that need them."""


class Level(NamedTuple):
    """How hard a run presses. Levels sort by rate, then by concurrency."""

    request_rate: float
    """Requests a second, of Poisson arrivals; inf where none waits for its time: a closed loop."""
    concurrency: int
    """The most that are in flight."""

    @property
    def is_open_loop(self) -> bool:
        """Requests come whether or not earlier ones have been answered."""
        return math.isfinite(self.request_rate)

    def __str__(self) -> str:
        capped = f"c={self.concurrency}"
        return f"{self.request_rate:g}/s, {capped}" if self.is_open_loop else capped


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request. Times are seconds; all but `started_s` count from the moment it was sent."""

    started_s: float
    """Since the start of the run."""
    late_s: float = 0.0
    """In an open loop: from when it was due until it was sent."""
    e2e_s: float
    """Until the last event of the stream, or until it failed."""
    asked_tokens: int
    chunks_s: list[float] = []
    """When each chunk with text or tokens came."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    """As the server counted them; None if it did not say."""
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Until the first chunk with text or tokens; None if none came."""
        return self.chunks_s[0] if self.chunks_s else None

    @property
    def tpot_s(self) -> float | None:
        """Per output token after the first: (end to end - TTFT) / (tokens - 1)."""
        if self.ttft_s is None or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)

    @property
    def is_short(self) -> bool:
        """Ended well, with fewer tokens than were asked for."""
        return self.error is None and self.output_tokens is not None and self.output_tokens < self.asked_tokens


class RunMetrics(msgspec.Struct, kw_only=True):
    """The figures of one run. Latencies are of requests that did not fail; None is "not known"."""

    wall_s: float
    """From the first request sent to the end of the last."""
    output_tokens_per_s: float | None
    requests_per_s: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    chunk_gap_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    mean_input_tokens: float | None
    mean_output_tokens: float | None
    requests: int
    failed: int
    short: int
    silent: int
    """Ended well, but no text came before the end, so they have neither TTFT nor TPOT."""
    client_cpu: float | None
    """Cores that the client itself kept busy; None where there is no client."""
    goodput_per_s: float | None = None
    """Requests a second that met every goal; None without goals."""
    late_p99_s: float | None = None
    """Open loop: how late requests were sent. Much of it means that the cap, or the client, was the limit. None in a
    closed loop."""


class Run(msgspec.Struct, kw_only=True):
    """One pass over new prompts at one level."""

    concurrency: int
    request_rate: float | None = None
    """Of an open loop; None for a closed one."""
    repeat: int
    seed: int
    tokens_from: str
    """One of the three above."""
    interrupted: bool = False
    """Stopped by Ctrl-C: only requests that had ended are in it."""
    metrics: RunMetrics
    records: list[RequestRecord]

    @property
    def level(self) -> Level:
        """What runs that are alike have in common."""
        return Level(math.inf if self.request_rate is None else self.request_rate, self.concurrency)


class BenchmarkResult(StoredResult, kw_only=True):
    """Everything about one server on one machine at one time."""

    format: int = FORMAT
    label: str
    settings: dict[str, Any]
    server: dict[str, Any]
    runs: list[Run]

    @classmethod
    def load(cls, path: Path) -> BenchmarkResult:
        """Raises BenchmarkError."""
        try:
            result = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be read: {error.strerror}.") from error
        except msgspec.DecodeError as error:
            raise BenchmarkError(f"{path} is not a result of a benchmark: {error}.") from error
        if result.format != FORMAT:
            raise BenchmarkError(f"{path} has format {result.format}; this program reads {FORMAT}.")
        return result
