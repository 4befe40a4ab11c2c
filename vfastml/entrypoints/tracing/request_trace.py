"""The trace of one HTTP request, while it is open."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context


@dataclass(frozen=True, slots=True)
class TraceClock:
    """Wall time at the beginning of a trace, and from there on monotonic time: a clock that is set meanwhile changes no
    duration, and spans of one trace fit each other."""

    wall_ns: int = field(default_factory=time.time_ns)
    monotonic_s: float = field(default_factory=time.monotonic)

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return self.at_ns(time.monotonic())

    def at_ns(self, monotonic_s: float) -> int:
        """Of a moment on `time.monotonic`'s clock."""
        return self.wall_ns + round(1e9 * (monotonic_s - self.monotonic_s))


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """The server's span, and the clock of all that is below it."""

    span: Span
    clock: TraceClock
    request_id: str | None

    def context(self) -> Context:
        """For children."""
        return set_span_in_context(self.span)


TRACE: ContextVar[RequestTrace | None] = ContextVar("vfastml.request_trace", default=None)
"""Of the HTTP request that this task, and those that it starts, work for; None: it is not traced."""
