"""The span of an HTTP request, after OpenTelemetry's conventions for HTTP servers: method, route, status. No path, no
query, no body, and no header but the request's id: what a client writes there may be private."""

from __future__ import annotations

import random

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.entrypoints.auth import is_probe
from vfastml.entrypoints.http_errors import SERVER_STATUS
from vfastml.entrypoints.request_notes import METHODS, NOTES, route_template
from vfastml.entrypoints.tracing.caller import Caller, caller_of
from vfastml.entrypoints.tracing.request_trace import TRACE, RequestTrace, TraceClock
from vfastml.utils.log_fields import LOG_FIELDS

_OTHER_METHOD = "_OTHER"
_CLIENT_GONE = "client_disconnected"
_NO_KEY = 401


class TracingMiddleware:
    """Outside of keys and all else that answers, so that refusals are seen, and inside of the access log, which has
    named the request. `share` of the requests are traced, 0 to 1, probes never; but a client that has a trace of its
    own has decided for its request (the rule that OpenTelemetry calls parent-based), unless its key is missing or
    unknown.

    Which requests are left out is decided here, without OpenTelemetry: they cost a look at their headers."""

    def __init__(self, app: ASGIApp, tracer: Tracer, share: float) -> None:
        self.app = app
        self._tracer = tracer
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope):
            await self.app(scope, receive, send)
            return
        caller = caller_of(scope["headers"])
        if caller.is_sampled if caller else random.random() < self._share:
            await self._traced(scope, receive, send, caller)
            return
        if caller is not None:
            _note(caller.trace_id_text)
        await self.app(scope, receive, send)

    async def _traced(self, scope: Scope, receive: Receive, send: Send, caller: Caller | None) -> None:
        trace = self._begun(scope, caller)
        answer = _WatchedAnswer(send)
        before = TRACE.set(trace)
        try:
            await self.app(scope, receive, answer.send)
        except BaseException as error:
            answer.failed_with = type(error).__name__
            raise
        finally:
            TRACE.reset(before)
            answer.note(scope.get(SERVER_STATUS))
            if caller is None or answer.status != _NO_KEY or random.random() < self._share:
                _end(trace, scope, answer)

    def _begun(self, scope: Scope, caller: Caller | None) -> RequestTrace:
        clock = TraceClock()
        span = self._tracer.start_span(
            _method(scope), _context(caller), SpanKind.SERVER, _asked(scope), start_time=clock.wall_ns
        )
        _note(format_trace_id(span.get_span_context().trace_id))
        notes = NOTES.get()
        return RequestTrace(span, clock, notes.request_id if notes else None)


class _WatchedAnswer:
    """What has gone out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.is_whole = False
        self.failed_with: str | None = None
        """The class of what the app has raised."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)
        await self._send(message)

    def note(self, status: int | None) -> None:
        """Of an answer that the HTTP server has given, if it has."""
        if status is not None:
            self.status, self.is_whole = status, True

    @property
    def error(self) -> str | None:
        """What `error.type` says; None where nothing is the server's fault. A 4xx is none of a server's, by the
        conventions; that a client went away is worth a word all the same."""
        if self.failed_with is not None:
            return self.failed_with
        if self.status is not None and self.status >= 500:
            return str(self.status)
        return None if self.is_whole else _CLIENT_GONE


def _end(trace: RequestTrace, scope: Scope, answer: _WatchedAnswer) -> None:
    span, route = trace.span, route_template(scope)
    if route is not None:
        span.update_name(f"{_method(scope)} {route}")
        span.set_attribute("http.route", route)
    if answer.status is not None:
        span.set_attribute("http.response.status_code", answer.status)
    if trace.request_id is not None:
        span.set_attribute("vfastml.request_id", trace.request_id)
    if answer.error is not None:
        span.set_attribute("error.type", answer.error)
    if answer.error not in (None, _CLIENT_GONE):
        span.set_status(Status(StatusCode.ERROR))
    span.end(trace.clock.now_ns())


def _note(trace_id: str) -> None:
    """For the log lines of the request."""
    notes = NOTES.get()
    if notes is not None:
        notes.trace_id = trace_id
    # Not taken back: the layer outside takes back its own, and this with it.
    LOG_FIELDS.set({**LOG_FIELDS.get(), "trace_id": trace_id})


def _asked(scope: Scope) -> dict[str, str]:
    return {
        "http.request.method": _method(scope),
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else _OTHER_METHOD


def _context(caller: Caller | None) -> Context:
    """An empty one begins a trace."""
    if caller is None:
        return Context()
    parent = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(parent), Context())
