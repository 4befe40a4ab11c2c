"""Spans as lines of JSON in a file, for looking without a collector."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id


class SpanFile(SpanExporter):
    """Adds to the file, which its user alone may read. Several processes may write the same one: the lines of a batch
    go out in one piece. The constructor raises OSError."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = b"".join(msgspec.json.encode(line_of(span)) + b"\n" for span in spans)
        written = os.write(self._descriptor, lines)
        return SpanExportResult.SUCCESS if written == len(lines) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        os.close(self._descriptor)


def line_of(span: ReadableSpan) -> dict[str, Any]:
    """Times are Unix nanoseconds."""
    context = span.get_span_context()
    assert context is not None
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "parent_id": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "is_error": span.status.status_code is StatusCode.ERROR,
        "attributes": _plain(span.attributes),
        "events": [
            {"name": event.name, "at_ns": event.timestamp, "attributes": _plain(event.attributes)}
            for event in span.events
        ],
    }


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(attributes or {})
