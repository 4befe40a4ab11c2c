"""All that a gateway measures, and how it is told to Prometheus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

from vfastml import __version__
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.entrypoints.metrics.engine_collector import EngineCollector
from vfastml.entrypoints.metrics.held_requests import HeldRequests
from vfastml.entrypoints.metrics.http_metrics import HttpMetrics
from vfastml.entrypoints.metrics.process_collector import ProcessesCollector
from vfastml.entrypoints.metrics.request_metrics import RequestMetrics
from vfastml.entrypoints.metrics.shared_folder import VARIABLE, counting_processes

_OPEN_METRICS = "application/openmetrics-text"


class GatewayMetrics:
    """Of this process; or, where PROMETHEUS_MULTIPROC_DIR names a folder, of all processes that count in it, but for
    the model servers of `engine`, which all of them see."""

    def __init__(self, engine: Callable[[], DispatchEngine]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as many series again, of which nobody asks
        self._registry = CollectorRegistry()
        folder = os.environ.get(VARIABLE)
        own = None if folder else self._registry
        self.requests = RequestMetrics(own, HeldRequests(own, lambda: engine().held_requests))
        self.http = HttpMetrics(own)
        build = Gauge(
            "vfastml:build_info",
            "1, for the version of the gateway.",
            ("version",),
            multiprocess_mode="livemax",
            registry=own,
        )
        build.labels(__version__).set(1)
        if folder:
            MultiProcessCollector(self._registry, folder)  # type: ignore[no-untyped-call]
        pids = (lambda: counting_processes(folder)) if folder else (lambda: [os.getpid()])
        self._registry.register(ProcessesCollector(pids))
        self._engine = engine
        self._engines = EngineCollector()
        self._registry.register(self._engines)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as they stand now, and their content type: the one of the two text formats that `accept`, the
        header, asks for. Another thread writes them: a thousand series take as long as some tokens."""
        self._engines.views = self._engine().servers()
        return await asyncio.to_thread(self._encoded, accept)

    def _encoded(self, accept: str) -> tuple[bytes, str]:
        _, content_type = choose_encoder(accept)
        if content_type.startswith(_OPEN_METRICS):
            # The encoder that it chose would make underscores of the colons in our names.
            text = openmetrics.generate_latest(self._registry, openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
            return text, content_type
        return generate_latest(self._registry), content_type
