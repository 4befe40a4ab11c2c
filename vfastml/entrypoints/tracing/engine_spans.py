"""What a model server measured of a request, as spans: when it waited, read its prompt, wrote, and stood aside.

A model server tells seconds since the request's arrival there, on a clock of its own: when that was, on the gateway's
clock, it cannot say. So its time is placed such that it ends when its last message arrived here. All of it is then late
by as long as that message travelled, and by no more; it cannot begin before the request was sent, nor end after its
answer came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import Tracer, set_span_in_context

from vfastml.engine.dispatch_replies import Finished, Mark

MAX_MARKS = 512
"""Of one request: what is more is not shown."""
_PREFILLED, _PREEMPTED, _RESUMED, _DROPPED = "prefilled", "preempted", "resumed", "dropped"


@dataclass(slots=True)
class _Phase:
    """A span, in seconds since the arrival."""

    name: str
    begin_s: float
    end_s: float
    marks: list[Mark] = field(default_factory=list)
    index: int | None = None
    """Of the choice or beam, where it is about one."""


@dataclass(frozen=True, slots=True)
class ServerTime:
    """The model server's seconds on the gateway's clock. What does not lie in the time that the request took is moved
    to its edge: a clock that lies draws no nonsense."""

    ended_ns: int
    total_s: float

    def at_ns(self, seconds: float) -> int:
        """Unix nanoseconds."""
        inside_s = min(max(seconds, 0.0), self.total_s) if math.isfinite(seconds) else self.total_s
        return self.ended_ns - round(1e9 * (self.total_s - inside_s))


def add_engine_spans(tracer: Tracer, parent: Context, finished: Finished, ended_ns: int, most_s: float) -> None:
    """A span `model server` below `parent`, and its phases below that. `ended_ns` is when `finished` arrived, and
    `most_s` for how long the request had been under way then."""
    total_s = finished.timings.total_s
    server = ServerTime(ended_ns, min(total_s, most_s) if total_s >= 0 else 0.0)
    whole = tracer.start_span("model server", parent, start_time=server.at_ns(0.0))
    below = set_span_in_context(whole, parent)
    for phase in phases(finished):
        _add(tracer, below, server, phase)
    whole.end(ended_ns)


def phases(finished: Finished) -> list[_Phase]:
    """`queue`, `prefill`, `decode`, and a `preempted` for each time that a choice or beam was without its blocks. Other
    marks are events of the phase that they fall into."""
    timings, marks = finished.timings, finished.marks[:MAX_MARKS]
    has_begun = finished.usage.completion_tokens > 0
    prompt_end_s = timings.first_token_s if has_begun else timings.total_s
    queue = _Phase("queue", 0.0, timings.queued_s)
    prefill = _Phase("prefill", timings.queued_s, prompt_end_s)
    decode = _Phase("decode", prompt_end_s, timings.total_s)
    shown = [queue, prefill, decode] if has_begun else [queue, prefill]
    aside = list(_preempted(marks, timings.total_s))
    for mark in marks:
        if mark.name not in (_PREEMPTED, _RESUMED):
            _phase_at(mark, shown).marks.append(mark)
    return [*shown, *aside]


def _phase_at(mark: Mark, shown: Sequence[_Phase]) -> _Phase:
    """A chunk is marked at its end, which for the last one is the end of the prompt."""
    if mark.name == _PREFILLED:
        return next((phase for phase in shown[1:] if mark.at_s <= phase.end_s), shown[-1])
    return next((phase for phase in shown if mark.at_s < phase.end_s), shown[-1])


def _preempted(marks: Iterable[Mark], total_s: float) -> Iterator[_Phase]:
    """From the loss of its blocks until it is computed anew, or a beam is given up; or to the end."""
    lost: dict[int, Mark] = {}
    for mark in marks:
        if mark.name == _PREEMPTED:
            lost.setdefault(mark.index, mark)
        elif mark.name in (_RESUMED, _DROPPED) and (since := lost.pop(mark.index, None)) is not None:
            yield _Phase(_PREEMPTED, since.at_s, mark.at_s, [], mark.index)
    for since in lost.values():
        yield _Phase(_PREEMPTED, since.at_s, total_s, [], since.index)


def _add(tracer: Tracer, context: Context, server: ServerTime, phase: _Phase) -> None:
    begin_ns, end_ns = server.at_ns(phase.begin_s), server.at_ns(phase.end_s)
    span = tracer.start_span(phase.name, context, start_time=begin_ns)
    if phase.index is not None:
        span.set_attribute("vfastml.index", phase.index)
    for mark in phase.marks:
        attributes = {"vfastml.index": mark.index, "vfastml.tokens": mark.num_tokens}
        span.add_event(mark.name, attributes, server.at_ns(mark.at_s))
    span.end(max(begin_ns, end_ns))
