"""The traces of one gateway process: its tracer, and the parts of the gateway that use it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from vfastml import __version__
from vfastml.engine.request_observer import RequestObserver
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.tracing.dispatch_spans import DispatchSpans
from vfastml.entrypoints.tracing.engine_spans import MAX_MARKS
from vfastml.entrypoints.tracing.exporters import processors
from vfastml.entrypoints.tracing.http_spans import TracingMiddleware

_LAST_WORDS_S = 2.0


class RequestTracing:
    """Made from what the configuration asks for. Raises ValueError for a trace file that cannot be written."""

    def __init__(self, config: GatewayConfig, into: Iterable[SpanProcessor] | None = None) -> None:
        # Not the global provider: an application that has traces of its own keeps them. And what is left out is
        # decided before a span is made: see http_spans.py.
        self._provider = TracerProvider(
            ALWAYS_ON, _resource(), shutdown_on_exit=False, span_limits=SpanLimits(max_events=MAX_MARKS)
        )
        for processor in processors(config) if into is None else into:
            self._provider.add_span_processor(processor)
        self.tracer = self._provider.get_tracer("vfastml", __version__)

    @property
    def layer(self) -> type[TracingMiddleware]:
        """For the app, with the tracer."""
        return TracingMiddleware

    def observer(self) -> RequestObserver:
        """For the dispatch engine."""
        return DispatchSpans(self.tracer)

    def close(self) -> None:
        """Sends what has not been sent, but does not wait for longer than 2 s."""
        # A thread that the interpreter does not wait for at its end.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_LAST_WORDS_S)


def _resource() -> Resource:
    """Who sends the spans; the usual variables (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) have the last word."""
    own = {"service.name": "vfastml", "service.version": __version__, "service.instance.id": secrets.token_hex(8)}
    return Resource(own).merge(OTELResourceDetector().detect())
