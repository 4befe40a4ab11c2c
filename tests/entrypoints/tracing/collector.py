"""An OpenTelemetry collector for tests: it takes OTLP over HTTP and keeps what came."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Seen:
    """One span, as it came."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    begin_ns: int
    end_ns: int
    is_error: bool
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    text: str
    """All of it, for looking for what must not be there."""

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


@dataclass
class Collector:
    url: str = ""
    status: int = 200
    requests: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of each."""
    resources: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)

    def named(self, name: str) -> Seen:
        """The only one of that name."""
        [span] = [span for span in self.spans if span.name == name]
        return span

    def below(self, parent: Seen) -> list[Seen]:
        """Its children, in the order in which they begin."""
        children = [span for span in self.spans if span.parent_id == parent.span_id]
        return sorted(children, key=lambda span: (span.begin_ns, span.end_ns))

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(group.resource.attributes))
            self.spans += [_seen(span) for scope in group.scope_spans for span in scope.spans]


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    """Listens in threads of its own; answers each request with that status."""
    collector = Collector(status=status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests.append({name.lower(): value for name, value in self.headers.items()})
            if self.path == "/v1/traces" and collector.status == 200:
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _seen(span: Span) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        _values(span.attributes),
        [(event.name, event.time_unix_nano, _values(event.attributes)) for event in span.events],
        str(span),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
