"""The span of each request that is dispatched for a traced HTTP request."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from vfastml.engine.dispatch_replies import Delta, Finished
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.request_observer import ObservedRequest, SilentObserver
from vfastml.entrypoints.tracing.engine_spans import add_engine_spans
from vfastml.entrypoints.tracing.request_attributes import answered, asked, operation
from vfastml.entrypoints.tracing.request_trace import TRACE, RequestTrace


@dataclass(slots=True)
class _Open:
    """A span under way."""

    trace: RequestTrace
    span: Span
    finish_reasons: dict[int, str] = field(default_factory=dict)
    """By choice."""


class DispatchSpans(SilentObserver):
    """From the dispatch to the end, whatever it is, with what the model server has measured below it. Only the requests
    of traced ones cost anything, and only they ask the model server for marks."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[ObservedRequest, _Open] = {}

    def on_dispatched(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        trace = TRACE.get()
        if trace is None:
            return
        self._open[observed] = _Open(trace, self._begun(trace, observed))
        if isinstance(observed.request, TextGenerationReq):
            observed.request = msgspec.structs.replace(observed.request, is_traced=True)

    def on_accepted(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        one = self._open.get(observed)
        if one is not None:
            one.span.add_event("accepted", {}, one.trace.clock.now_ns())

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        """See RequestObserver."""
        if delta.finish_reason is not None and (one := self._open.get(observed)) is not None:
            one.finish_reasons[delta.index] = delta.finish_reason

    def on_ended(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        one = self._open.pop(observed, None)
        if one is not None:
            self._end(one, observed)

    def _begun(self, trace: RequestTrace, observed: ObservedRequest) -> Span:
        attributes = asked(observed)
        if trace.request_id is not None:
            attributes["vfastml.request_id"] = trace.request_id
        began_ns = trace.clock.at_ns(observed.dispatched_s)
        name = operation(observed.request)
        return self._tracer.start_span(name, trace.context(), SpanKind.CLIENT, attributes, start_time=began_ns)

    def _end(self, one: _Open, observed: ObservedRequest) -> None:
        ended_ns = one.trace.clock.now_ns()
        reasons = [reason for _, reason in sorted(one.finish_reasons.items())]
        one.span.set_attributes(answered(observed, reasons))
        if observed.model is not None:
            one.span.update_name(f"{operation(observed.request)} {observed.model}")
        if observed.error is not None:
            one.span.set_attribute("error.type", observed.error.kind)
            one.span.set_status(Status(StatusCode.ERROR))
        if isinstance(observed.answer, Finished):
            most_s = (ended_ns - one.trace.clock.at_ns(observed.dispatched_s)) / 1e9
            below = set_span_in_context(one.span)
            add_engine_spans(self._tracer, below, observed.answer, ended_ns, most_s)
        one.span.end(ended_ns)
