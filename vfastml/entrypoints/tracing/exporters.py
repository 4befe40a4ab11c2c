"""Where spans go. Whatever is wrong with it, requests do not wait for it, and the log says it rarely."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.tracing.span_file import SpanFile
from vfastml.utils.rare_warning import RareWarning

logger = logging.getLogger(__name__)

_FILE_EVERY_MS = 500
_SPEAKS_OFTEN = "opentelemetry.exporter"
"""Its logger has a line for each try."""


def check(config: GatewayConfig) -> None:
    """Raises ValueError, with a sentence for the operator, for a trace file that cannot be written."""
    if config.trace_file:
        _opened(config.trace_file).shutdown()


def processors(config: GatewayConfig) -> list[SpanProcessor]:
    """One for each place, with a thread of its own and a queue that is bounded: when it is full, spans are lost. Raises
    ValueError as `check` does."""
    found: list[SpanProcessor] = []
    if config.trace_file:  # the first to be closed: a collector may take all of the time that there is
        file = ForgivingExporter(_opened(config.trace_file), "the file cannot be written")
        found.append(BatchSpanProcessor(file, schedule_delay_millis=_FILE_EVERY_MS))
    if config.trace_endpoint:
        logging.getLogger(_SPEAKS_OFTEN).setLevel(logging.CRITICAL)
        collector = OTLPSpanExporter(endpoint=config.trace_endpoint)
        found.append(BatchSpanProcessor(ForgivingExporter(collector, "the collector does not take them")))
    return found


def _opened(path: str) -> SpanFile:
    try:
        return SpanFile(path)
    except OSError as error:
        raise ValueError(f"the trace file {path} cannot be written: {error.strerror}") from error


class ForgivingExporter(SpanExporter):
    """Says what another exporter fails with, once in ten seconds, in a line that begins with why."""

    def __init__(self, exporter: SpanExporter, trouble: str) -> None:
        self._exporter = exporter
        self._trouble = trouble
        self._lost = RareWarning(logger)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # a disk that is full, or whatever a library raises
            self._lost.warn("%d spans of traces are lost, %s (%s).", len(spans), self._trouble, type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._lost.warn("%d spans of traces are lost, %s.", len(spans), self._trouble)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
